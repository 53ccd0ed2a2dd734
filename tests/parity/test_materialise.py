"""Recipes in vLLM's own slots are as exact as gates in the batch, and reach what these do not."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from transformers import Phi3Config, PreTrainedModel

from loragen.recipe import Level, Recipe
from tests.fakes.engine import Engine, identical, lora_request, running_engine
from tests.fakes.tiny import TinyEdge, tiny_config
from tests.parity.oracle import (
    assert_prompt_logprobs,
    assert_same,
    base_model,
    merged,
)

pytestmark = pytest.mark.vllm

SLOTS = 2
LINEARS = ("q", "o", "up", "down")
"""Some of every kind: packed and not, each with a neighbour that no recipe changes."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEdge:
    return TinyEdge.make(tmp_path_factory.mktemp("tiny"), linears=LINEARS)


@pytest.fixture(scope="module")
def engine(tiny: TinyEdge) -> Iterator[Engine]:
    with running_engine(tiny, "float32", slots=SLOTS) as engine:
        yield engine


@pytest.fixture(scope="module")
def base(tiny: TinyEdge) -> PreTrainedModel:
    return base_model(tiny)


def some_prompts(count: int) -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.integers(0, 250, size=3 + 7 * i).tolist() for i in range(count)]


def test_more_tasks_than_slots_and_none_mixed_equal_merged_weights(
    engine: Engine, tiny: TinyEdge, base: PreTrainedModel
) -> None:
    """With all slots taken, vLLM's CPU kernels would serve tokens without a task by the last."""
    tasks = [tiny.recipe(seed) for seed in range(4)]
    paper = tiny.recipe(10, level=Level.PAPER)
    recipes = [tasks[0], None, tasks[1], tasks[2], None, tasks[3], paper, None, tasks[0]]
    prompts = some_prompts(len(recipes))
    for _ in range(2):
        answers = engine.generate(prompts, recipes)
        for prompt, recipe, answer in zip(prompts, recipes, answers, strict=True):
            assert_same(answer, prompt, merged(base, tiny, recipe))


def test_zero_gates_are_the_base_model_to_the_last_bit(engine: Engine, tiny: TinyEdge) -> None:
    (prompt,) = some_prompts(1)
    zero = tiny.recipe(1, scale=0.0)
    assert identical(engine.generate([prompt], [None]), engine.generate([prompt], [zero]))


def test_a_number_used_again_serves_the_recipe_of_its_request(
    engine: Engine, tiny: TinyEdge, base: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    (prompt,) = some_prompts(1)

    def numbered(recipe: Recipe | None) -> object:
        request = lora_request(recipe)
        request.lora_int_id = 1
        return request

    monkeypatch.setattr("tests.fakes.engine.lora_request", numbered)
    for seed in (20, 21):
        (answer,) = engine.generate([prompt], [tiny.recipe(seed)])
        assert_same(answer, prompt, merged(base, tiny, tiny.recipe(seed)))


def test_prompt_logprobs_are_right_and_leave_the_engine_alive(
    engine: Engine, base: PreTrainedModel, tiny: TinyEdge
) -> None:
    """vllm#16668: with adapters on its output layer these kill a CPU engine."""
    assert_prompt_logprobs(engine, base, tiny, some_prompts(3)[2], tiny.recipe(1))


def test_a_model_whose_gate_and_up_are_one_linear_takes_recipes(tmp_path: Path) -> None:
    config = tiny_config(Phi3Config, num_hidden_layers=2)
    tiny = TinyEdge.make(tmp_path, config=config, linears=("gate_up", "down"))
    recipes, prompts = [None, tiny.recipe(1), tiny.recipe(2)], some_prompts(3)
    with running_engine(tiny, "float32", slots=SLOTS) as engine:
        answers = engine.generate(prompts, recipes)
    base = base_model(tiny)
    for prompt, recipe, answer in zip(prompts, recipes, answers, strict=True):
        assert_same(answer, prompt, merged(base, tiny, recipe))
