"""Gate space, merged weights and a PEFT adapter are one function; no recipe is the plain model.

Shipped checkpoint, float32, both levels. Tolerance 1e-4 on logits of size about 10.
"""

import copy
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from loragen.method.edge import EdgeModel
from loragen.method.export import merge, save_adapter
from loragen.method.gatespace import stack_gates
from loragen.method.generator import Generator
from loragen.method.pool import Pool
from loragen.recipe import Recipe
from loragen.template import CompiledTemplate

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "small"
PROMPTS = (
    "You are Ada, the assistant of Acme in Paris. Greet people with Ahoy.",
    "If the review is good, say sunny; if it is bad, say stormy.",
    "Answer in JSON with the key amber and the item as value.",
)
QUESTIONS = ("Who are you?", "The lamp is awful.", "I want a chair.", "Hello!")
TOLERANCE = 1e-4


class Setup:
    """One level of the shipped checkpoint: pool, recipes, and a batch with a row without task."""

    def __init__(self, generator: str) -> None:
        folder = CHECKPOINT / generator
        self.pool = Pool.load(folder / "pool.safetensors")
        self.edge = EdgeModel.load(CHECKPOINT / "edge", self.pool)
        self.recipes: list[Recipe | None] = [*Generator.load(folder).compile(PROMPTS), None]
        self.gates = stack_gates(self.recipes, self.pool.id, self.pool.spec)
        tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT / "edge")
        template = CompiledTemplate.load(CHECKPOINT / "edge" / "compiled_template.jinja")
        texts = [template.render([{"role": "user", "content": text}]) for text in QUESTIONS]
        self.ids = tokenizer(
            texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt"
        )["input_ids"]
        self.plain: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            CHECKPOINT / "edge", dtype=torch.float32
        ).eval()


@pytest.fixture(scope="module", params=["generator", "generator_l0"])
def setup(request: pytest.FixtureRequest) -> Setup:
    return Setup(request.param)


@torch.inference_mode()
def test_recipes_change_the_answer(setup: Setup) -> None:
    logits = setup.edge.logits(setup.ids, setup.gates)
    plain = setup.plain(input_ids=setup.ids).logits
    assert all((logits[row] - plain[row]).abs().max() > 1 for row in range(3))


@torch.inference_mode()
def test_mixed_batch_equals_merged_weights(setup: Setup) -> None:
    logits = setup.edge.logits(setup.ids, setup.gates)
    for row, recipe in enumerate(setup.recipes):
        model = copy.deepcopy(setup.plain)
        if recipe is not None:
            merge(recipe, setup.pool, model)
        merged = model(input_ids=setup.ids[row : row + 1]).logits
        torch.testing.assert_close(logits[row : row + 1], merged, atol=TOLERANCE, rtol=0)


def test_mixed_batch_equals_peft(setup: Setup, tmp_path: Path) -> None:
    with torch.inference_mode():
        logits = setup.edge.logits(setup.ids, setup.gates)
    for row, recipe in enumerate(setup.recipes[:3]):
        assert recipe is not None
        folder = tmp_path / str(row)
        save_adapter(recipe, setup.pool, folder, edge="edge")
        model = PeftModel.from_pretrained(copy.deepcopy(setup.plain), folder)
        with torch.inference_mode():
            adapted = model(input_ids=setup.ids[row : row + 1]).logits
        torch.testing.assert_close(logits[row : row + 1], adapted, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_no_recipe_is_the_plain_model_to_the_bit(setup: Setup) -> None:
    plain = setup.plain(input_ids=setup.ids).logits
    assert torch.equal(setup.edge.logits(setup.ids), plain)
    assert torch.equal(setup.edge.logits(setup.ids, torch.zeros_like(setup.gates)), plain)
    mixed = setup.edge.logits(setup.ids, setup.gates)
    assert torch.equal(mixed[3], plain[3])
