"""Training steps do what they say, on a model small enough to train in a test."""

import pytest
import torch
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from loragen.method.edge import EdgeModel
from loragen.method.reader import Reader
from loragen.method.router import RouterSpec
from loragen.recipe import Level
from loragen.suite.small import SMALL
from loragen.training.batches import IGNORED, Batch, Renderer, StreamSpec, training_batches
from loragen.training.fit import LINEARS, TrainablePool, recipe_loss, to_columns
from loragen.training.optimizer import Optimizer, Schedule, orthogonalise, split_parameters
from loragen.training.passes import (
    answer_loss,
    exact_matches,
    message_loss,
    prompted_states,
    recipe_states,
)
from loragen.training.pretrain import EdgeSize, new_model
from loragen.training.tokenizer import train_tokenizer

TINY = EdgeSize(hidden=32, layers=2, heads=1, intermediate=48)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(SMALL, 2048, seed=0)


@pytest.fixture
def edge(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return new_model(tokenizer, TINY)


@pytest.fixture(scope="module")
def batch(tokenizer: PreTrainedTokenizerBase) -> Batch:
    stream = training_batches(Renderer(tokenizer), StreamSpec(SMALL, rows=4, segments=3), "test")
    return next(stream)


def test_targets_are_the_answers_and_their_end(tokenizer: PreTrainedTokenizerBase) -> None:
    renderer = Renderer(tokenizer)
    segment = renderer.segment_ids([[("Hello!", "amber lamp"), ("Who?", "gold")]])[0]
    kept = [target for target in renderer.targets(segment) if target != IGNORED]
    assert tokenizer.decode(kept) == "amber lamp<|end|>gold<|end|>"


def test_a_segment_in_a_shared_row_is_a_chat_of_its_own(
    edge: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, batch: Batch
) -> None:
    """The block mask changes nothing: each segment is as if its chat were alone."""
    pad_id = Renderer(tokenizer).pad_id
    states = prompted_states(edge, batch, pad_id)
    for row, column in ((0, 0), (1, 2), (3, 1)):
        prompt = batch.prompts[row][batch.prompts[row] != pad_id]
        head = prompt[:1] if batch.bare[row, column] else prompt
        segment = batch.segments[row, column][batch.segments[row, column] != pad_id]
        chat = torch.cat([head, segment])[None]
        alone = edge.model(input_ids=chat).last_hidden_state[0, len(head) :]
        torch.testing.assert_close(states[row, column, : len(segment)], alone, atol=1e-5, rtol=1e-4)


def test_messages_are_scored_apart_from_answers(
    edge: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, batch: Batch
) -> None:
    """Both together are all that the first segments say."""
    pad_id = Renderer(tokenizer).pad_id
    states = prompted_states(edge, batch, pad_id)[:, 0]
    losses = []
    for segment, targets, states_SD in zip(
        batch.segments[:, 0], batch.targets[:, 0], states, strict=True
    ):
        length = int((segment != pad_id).sum())
        is_message = targets[: length - 1] == IGNORED
        logits = edge.lm_head(states_SD[: length - 1][is_message])
        losses.append(
            functional.cross_entropy(logits, segment[1:length][is_message], reduction="none")
        )
    expected = torch.cat(losses).mean()
    torch.testing.assert_close(
        message_loss(edge, prompted_states(edge, batch, pad_id), batch, pad_id), expected
    )


def test_the_loss_falls(edge: LlamaForCausalLM, batch: Batch) -> None:
    matrices, others = split_parameters(edge)
    optimizer = Optimizer(matrices, [(others, 3e-3)], matrix_lr=0.02)
    losses = []
    for _ in range(15):
        loss = answer_loss(edge, prompted_states(edge, batch, 0), batch.targets)
        optimizer.step(loss, 1.0)
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("level", list(Level))
def test_the_gradient_reaches_meta_router_cloud_and_pool(
    edge: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, batch: Batch, level: Level
) -> None:
    edge.requires_grad_(False)
    pool = TrainablePool(edge, columns=8)
    for name, parameter in pool.named_parameters():
        if name.endswith("B"):  # zero at the start, where no gradient passes to A and the gates
            torch.nn.init.normal_(parameter)
    spec = RouterSpec(
        level=level, cloud_hidden=32, hidden=32, layers=2, linears=len(LINEARS), experts=4
    )
    cloud = new_model(tokenizer, TINY).model
    reader = Reader(cloud, spec)
    gates = to_columns(reader(batch.prompts, batch.prompts != 0), rank=2)
    recipe_loss(EdgeModel(edge, LINEARS, pool.experts()), batch, gates, 1).backward()
    trained = [*reader.named_parameters(), *pool.named_parameters()]
    without = [name for name, p in trained if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []
    assert reader.meta_LD.grad is not None
    assert reader.meta_LD.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in edge.parameters())


def test_an_untrained_pool_changes_nothing(edge: LlamaForCausalLM, batch: Batch) -> None:
    pool = TrainablePool(edge, columns=8)
    model = EdgeModel(edge, LINEARS, pool.experts())
    gates = torch.ones(4, 2, 3, 8)
    assert torch.equal(
        recipe_states(model, batch, gates, bos_id=1), recipe_states(model, batch, None, bos_id=1)
    )


def test_exact_match_wants_every_token(edge: LlamaForCausalLM) -> None:
    states = torch.randn(1, 2, 3, 32)
    best = edge.lm_head(states).argmax(-1)
    wrong = best.clone()
    wrong[0, 1, 2] = (wrong[0, 1, 2] + 1) % 100
    wrong[0, :, 0] = IGNORED
    assert exact_matches(edge, states, wrong).tolist() == [[True, False]]


def test_orthogonalise_makes_singular_values_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(3, 24, 16)))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_the_schedule_warms_up_and_decays() -> None:
    schedule = Schedule(steps=1000, warmup=40)
    factors = [schedule.factor(step) for step in range(1000)]
    assert factors[0] == pytest.approx(1 / 40)
    assert factors[40:400] == [1.0] * 360
    assert 0.02 < factors[-1] < 0.04


def test_decayed_matrices_shrink_by_their_rate() -> None:
    """Without a gradient nothing else moves a matrix."""
    matrix = torch.nn.Parameter(torch.eye(4))
    other = torch.nn.Parameter(torch.ones(1))
    optimizer = Optimizer([matrix], [([other], 0.0)], 0.02, matrix_decay=0.5)
    optimizer.step((matrix * 0.0).sum(), factor=1.0)
    assert torch.allclose(matrix, 0.99 * torch.eye(4))
