"""The worker's engine, PEFT and merged weights give the same logits; zero gates give the base's.

One vLLM engine runs inside the test process and is compared to two independent references.
"""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from loragen.recipe import Level, Recipe
from tests.fakes.engine import STEP_TOKENS, Answer, Engine, identical, running_engine
from tests.fakes.tiny import TinyEdge
from tests.parity.oracle import (
    assert_prompt_logprobs,
    assert_same,
    base_model,
    gates_of,
    merged,
    reference,
)

pytestmark = pytest.mark.vllm

MAX_ERROR_BF16 = 0.1  # mean over the vocabulary; measured 0.015 to 0.05, the base model included


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEdge:
    return TinyEdge.make(Path(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def engine(tiny: TinyEdge) -> Iterator[Engine]:
    with running_engine(tiny, "float32") as engine:
        yield engine


@pytest.fixture(scope="module")
def base(tiny: TinyEdge) -> PreTrainedModel:
    return base_model(tiny)


@pytest.fixture(scope="module")
def recipes(tiny: TinyEdge) -> list[Recipe | None]:
    """Return the base, dense recipes in both dtypes, paper recipes and zero gates."""
    dense = [tiny.recipe(seed) for seed in range(5)]
    paper = [tiny.recipe(seed, level=Level.PAPER) for seed in (10, 11)]
    return [None, *dense, *paper, tiny.recipe(20, scale=0.0)]


@pytest.fixture(scope="module")
def prompts(recipes: list[Recipe | None]) -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.integers(0, 250, size=3 + 7 * i).tolist() for i in range(len(recipes))]


@pytest.fixture(scope="module")
def answers(engine: Engine, prompts: list[list[int]], recipes: list[Recipe | None]) -> list[Answer]:
    return engine.generate(prompts, recipes)


def test_a_mixed_batch_equals_merged_weights(
    tiny: TinyEdge,
    base: PreTrainedModel,
    prompts: list[list[int]],
    recipes: list[Recipe | None],
    answers: list[Answer],
) -> None:
    for prompt, recipe, answer in zip(prompts, recipes, answers, strict=True):
        assert_same(answer, prompt, merged(base, tiny, recipe))


def test_a_mixed_batch_equals_peft(
    tiny: TinyEdge,
    base: PreTrainedModel,
    prompts: list[list[int]],
    recipes: list[Recipe | None],
    answers: list[Answer],
) -> None:
    for prompt, recipe, answer in zip(prompts, recipes, answers, strict=True):
        if recipe is not None:
            assert_same(answer, prompt, with_peft(base, tiny, recipe))


def test_recipes_change_answers(answers: list[Answer]) -> None:
    first = {tuple(answer.tokens[:4]) for answer in answers[:6]}
    assert len(first) == 6


def test_zero_gates_and_no_recipe_are_the_same_to_the_last_bit(
    engine: Engine, tiny: TinyEdge, prompts: list[list[int]], recipes: list[Recipe | None]
) -> None:
    zero = tiny.recipe(1, scale=0.0)
    alone = engine.generate([prompts[3]], [None])
    assert identical(alone, engine.generate([prompts[3]], [zero]))
    batch = [prompts[3]] * 4
    with_others = engine.generate(batch, [None, *recipes[1:4]])
    assert identical(with_others, engine.generate(batch, [zero, *recipes[1:4]]))
    among_bases = engine.generate(batch, [None] * 4)
    assert identical(with_others[:1], among_bases[:1])


def test_cached_prefixes_never_cross_recipes(
    engine: Engine, base: PreTrainedModel, tiny: TinyEdge
) -> None:
    prompt = np.random.default_rng(1).integers(0, 250, size=300).tolist()  # over two KV blocks
    for seed in (30, 31, 30):
        (answer,) = engine.generate([prompt], [tiny.recipe(seed)])
        assert_same(answer, prompt, merged(base, tiny, tiny.recipe(seed)))


def test_prompt_logprobs_are_right_and_leave_the_engine_alive(
    engine: Engine, base: PreTrainedModel, tiny: TinyEdge, prompts: list[list[int]]
) -> None:
    """vllm#16668: with stock LoRA these kill a CPU engine."""
    assert_prompt_logprobs(engine, base, tiny, prompts[4], tiny.recipe(1))


def test_a_seed_gives_one_answer_however_the_prompt_is_read(engine: Engine) -> None:
    """Read in several steps, which ends vLLM 0.32's own engine on a CPU."""
    from vllm import SamplingParams

    prompts = np.random.default_rng(2).integers(0, 250, size=(3, 400)).tolist()
    params = [SamplingParams(max_tokens=4, seed=seed, ignore_eos=True) for seed in range(3)]

    def answers(first: int, last: int) -> list[list[int]]:
        outputs = engine.llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts[first:last]],
            params[first:last],
            use_tqdm=False,
        )
        return [list(output.outputs[0].token_ids) for output in outputs]

    alone = [answers(index, index + 1)[0] for index in range(3)]
    engine.llm.reset_prefix_cache()
    assert 3 * len(prompts[0]) > 2 * STEP_TOKENS
    assert answers(0, 3) == alone


def test_bfloat16_stays_near_and_zero_gates_stay_exact(
    tiny: TinyEdge,
    base: PreTrainedModel,
    prompts: list[list[int]],
    recipes: list[Recipe | None],
) -> None:
    with running_engine(tiny, "bfloat16") as engine:
        answers = engine.generate(prompts[:6], recipes[:6])
        plain = engine.generate([prompts[3]], [None])
        zero = engine.generate([prompts[3]], [tiny.recipe(1, scale=0.0)])
    assert identical(plain, zero)
    for prompt, recipe, answer in zip(prompts, recipes, answers, strict=False):
        expected = reference(merged(base, tiny, recipe), prompt)[-1]
        assert np.abs(answer.scores[0] - expected).mean() < MAX_ERROR_BF16


def with_peft(base: PreTrainedModel, tiny: TinyEdge, recipe: Recipe) -> nn.Module:
    """Return the edge model under a PEFT adapter of rank R."""
    columns = tiny.pool.spec.columns
    targets = [f"{linear}_proj" for linear in tiny.pool.spec.linears]
    config = LoraConfig(r=columns, lora_alpha=columns, target_modules=targets)
    model: nn.Module = get_peft_model(copy.deepcopy(base), config)
    state = {}
    for (layer, linear), (a_DR, b_RF) in tiny.pool.tensors.items():
        name = f"base_model.model.model.layers.{layer}.mlp.{linear}_proj"
        gates_R = gates_of(tiny, recipe, layer, linear)
        state[f"{name}.lora_A.default.weight"] = a_DR.T
        state[f"{name}.lora_B.default.weight"] = (gates_R[:, None] * b_RF).T
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    return model.eval()
