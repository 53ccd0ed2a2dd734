"""What the fidelity alarms are for, provoked for real: a sabotaged recipe, a collapsed router."""

from pathlib import Path

import pytest
import torch
from prometheus_client import REGISTRY
from transformers import PreTrainedTokenizerBase

from loragen.method.generator import Generator
from loragen.method.refine import RefineSpec
from loragen.recipe import Level, Recipe
from loragen.suite.small import SMALL
from loragen.suite.splits import Split
from loragen.training.batches import Renderer
from loragen.training.checkpoint import Layout
from loragen.training.curriculum import Phase
from loragen.training.gate_evaluation import load_refiner
from loragen.training.generator_run import GeneratorRun
from loragen.training.generator_spec import GeneratorRunSpec
from loragen.training.pretrain import EdgeSize, new_model
from loragen.training.tokenizer import train_tokenizer
from server.gate_shares import GateShares

CHECKPOINT = Path(__file__).parents[3] / "checkpoints" / "small"
COLLAPSED = 0.4
"""Where `LoragenRouterCollapsed` begins."""


def test_a_sabotaged_recipe_is_found_to_do_harm() -> None:
    layout = Layout(CHECKPOINT)
    prompt = SMALL.draw(SMALL.seen[7], Split.UNSEEN_PROMPTS, 0).text
    (recipe,) = Generator.load(layout.generator(Level.DENSE)).compile([prompt])
    sabotaged = Recipe.encode(-2 * recipe.gates, pool_id=recipe.pool_id, level=Level.DENSE)
    refiner = load_refiner(layout, RefineSpec(measure_probes=8))
    assert not refiner.measure(prompt, None, recipe).fidelity.does_harm
    found = refiner.measure(prompt, None, sabotaged).fidelity
    assert found.does_harm
    assert found.score == 0.0


def experts_in_use(balance: float, tokenizer: PreTrainedTokenizerBase, folder: Path) -> float:
    """Train a small generator of level 0 and return what the gateway says of its recipes."""
    torch.manual_seed(0)
    edge = new_model(tokenizer, EdgeSize(hidden=32, layers=2, heads=1, intermediate=48))
    spec = GeneratorRunSpec(
        Level.PAPER,
        experts=8,
        rank=2,
        phases=(Phase("text", 0, 400, text_share=1.0, short_share=1.0),),
        balance=balance,
        router_lr=0.03,
    )
    run = GeneratorRun(edge, tokenizer, spec, 0, folder / f"{balance}.pt")
    run.train(steps=240)
    texts = [
        SMALL.draw(family, Split.UNSEEN_PROMPTS, index).text
        for family in SMALL.seen
        for index in range(4)
    ]
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    pad_id = Renderer(tokenizer).pad_id
    ids = torch.full((len(texts), max(map(len, encoded))), pad_id)
    for row, tokens in enumerate(encoded):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    with torch.inference_mode():
        gates = run.reader(ids, ids != pad_id)
    shares, model = GateShares(), f"balance {balance}"
    for each in gates.numpy():
        shares.add(model, Recipe.encode(each, pool_id="ab" * 32, level=Level.PAPER))
    found = REGISTRY.get_sample_value("loragen_router_effective_experts", {"model": model})
    assert found is not None
    return found


@pytest.mark.slow
def test_a_router_trained_without_its_balance_term_collapses(tmp_path: Path) -> None:
    """At a rate that makes it quick; the term as the paper has it keeps it from that."""
    tokenizer = train_tokenizer(SMALL, 2048, seed=0)
    assert experts_in_use(0.0, tokenizer, tmp_path) < COLLAPSED
    assert experts_in_use(0.01, tokenizer, tmp_path) > COLLAPSED
