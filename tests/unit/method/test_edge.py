"""The reference edge model generates greedily, each row under its own gates."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoTokenizer,
    CohereConfig,
    Gemma2Config,
    GenerationConfig,
    GraniteConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from loragen.errors import ArtifactCorrupt, RecipeMismatch
from loragen.method.edge import EdgeModel
from loragen.method.gatespace import delta, stack_gates
from loragen.method.generator import Generator
from loragen.method.pool import Pool
from loragen.recipe import Recipe
from tests.fakes.tiny import TinyEdge, tiny_config

CHECKPOINT = Path(__file__).parents[3] / "checkpoints" / "small"
PROMPTS = ("Every answer is JSON: the key is amber and the value is the item.", "Say amber.")
QUESTION = "<s><|user|>I want a chair.<|end|><|assistant|>"


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool.load(CHECKPOINT / "generator" / "pool.safetensors")


@pytest.fixture(scope="module")
def edge(pool: Pool) -> EdgeModel:
    return EdgeModel.load(CHECKPOINT / "edge", pool)


@pytest.fixture(scope="module")
def recipes() -> list[Recipe]:
    return Generator.load(CHECKPOINT / "generator").compile(PROMPTS)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(CHECKPOINT / "edge")
    return tokenizer


def test_delta_is_the_sum_of_gated_experts() -> None:
    torch.manual_seed(0)
    x, gates = torch.randn(2, 3, 5), torch.randn(2, 4)
    a, b = torch.randn(5, 4), torch.randn(4, 6)
    summed = torch.zeros(2, 3, 6)
    for expert in range(4):
        outer = torch.outer(a[:, expert], b[expert])
        summed += gates[:, expert, None, None] * (x @ outer)
    torch.testing.assert_close(delta(x, gates, a, b), summed)


def test_rows_answer_in_a_batch_as_alone(
    edge: EdgeModel, pool: Pool, recipes: list[Recipe], tokenizer: PreTrainedTokenizerBase
) -> None:
    short = tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    long = tokenizer(QUESTION.replace("a chair", "a chair and a lamp"), add_special_tokens=False)
    rows = [short, long["input_ids"], short]
    gates = stack_gates([recipes[0], recipes[1], None], pool.id, pool.spec)
    together = edge.generate(rows, gates)
    alone = [edge.generate([row], gates[i : i + 1])[0] for i, row in enumerate(rows)]
    assert together == alone
    assert tokenizer.decode(together[0]) == '{"amber": "chair"}'
    assert together[2] == edge.generate([short])[0]
    assert tokenizer.eos_token_id not in together[0]


def test_generation_stops_at_the_limit(edge: EdgeModel, tokenizer: PreTrainedTokenizerBase) -> None:
    row = tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    whole = edge.generate([row])[0]
    assert edge.generate([row], max_tokens=2)[0] == whole[:2]


def test_recipes_of_another_pool_are_refused(recipes: list[Recipe], pool: Pool) -> None:
    with pytest.raises(RecipeMismatch):
        stack_gates(recipes, "0" * 64, pool.spec)


def test_another_edge_model_is_refused(pool: Pool, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((CHECKPOINT / "edge" / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ArtifactCorrupt, match="is not the edge model"):
        EdgeModel.load(tmp_path, pool)


@pytest.mark.parametrize(
    "config",
    [
        tiny_config(Gemma2Config, final_logit_softcapping=0.5),
        tiny_config(GraniteConfig, logits_scaling=8.0),
        tiny_config(CohereConfig, logit_scale=0.0625),
    ],
    ids=["capped", "divided", "multiplied"],
)
def test_logits_are_those_of_the_model_itself(tmp_path: Path, config: PreTrainedConfig) -> None:
    """A cap or a factor behind the head keeps greedy answers, and changes every loss."""
    tiny = TinyEdge.make(tmp_path, config=config)
    edge = EdgeModel.load(tiny.model, tiny.pool)
    ids = torch.tensor([[3, 1, 4]])
    with torch.inference_mode():
        wanted = edge.model(input_ids=ids).logits
        bare = edge.model.get_output_embeddings()(edge.states(ids))
    torch.testing.assert_close(edge.logits(ids), wanted)
    assert not torch.allclose(bare, wanted, atol=1e-3)


def test_a_model_whose_logits_are_made_in_an_unknown_way_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = TinyEdge.make(tmp_path, config=tiny_config(Gemma2Config, final_logit_softcapping=0.5))
    head = EdgeModel.head
    monkeypatch.setattr(EdgeModel, "head", lambda edge, states: head(edge, states) * 1.1)
    with pytest.raises(ArtifactCorrupt, match="Gemma2ForCausalLM makes its logits"):
        EdgeModel.load(tiny.model, tiny.pool)


def test_end_tokens_are_those_it_is_sampled_with_and_its_own(tmp_path: Path) -> None:
    tiny = TinyEdge.make(tmp_path)
    GenerationConfig(eos_token_id=[7, 256], repetition_penalty=1.5, do_sample=True).save_pretrained(
        tiny.model
    )
    edge = EdgeModel.load(tiny.model, Pool.load(tiny.generator / "pool.safetensors"))
    assert edge.end_ids == [7, 256]
    assert not edge.model.generation_config.repetition_penalty  # it is for answers, not for draws
