"""The shipped checkpoints do what their evaluations say, on a few prompts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from loragen.method.edge import EdgeModel
from loragen.method.gatespace import stack_gates
from loragen.method.generator import Generator
from loragen.method.pool import Pool
from loragen.recipe import Level
from loragen.suite.small import SMALL
from loragen.suite.splits import Split
from loragen.suite.tenants import LOOKUPS, TENANTS
from loragen.template import CompiledTemplate
from loragen.training.checkpoint import Layout
from loragen.training.evaluation import Evaluator, Figures
from loragen.training.showcase import DEMO_SHOW, SMALL_SHOW, Show, Stage

CHECKPOINTS = Path(__file__).parents[3] / "checkpoints"
SMALLER = CHECKPOINTS / "small"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module", params=["small", "demo"])
def dense(request: pytest.FixtureRequest) -> Figures:
    catalogue, prompts = {"small": (SMALL, 4), "demo": (TENANTS, 4)}[request.param]
    evaluator = Evaluator(Layout(CHECKPOINTS / request.param), Level.DENSE, catalogue)
    return evaluator.score(Split.UNSEEN_PROMPTS, prompts)


def test_recipes_do_what_prompts_do_on_unseen_prompts(dense: Figures) -> None:
    assert dense["full_prompt"] >= 0.85
    assert dense["others"]["recipe"] >= 0.93 * dense["others"]["full_prompt"]


def test_recipes_hold_tables() -> None:
    catalogue = replace(TENANTS, seen=LOOKUPS)
    evaluator = Evaluator(Layout(CHECKPOINTS / "demo"), Level.DENSE, catalogue)
    figures = evaluator.score(Split.UNSEEN_PROMPTS, prompts=6)
    assert figures["recipe"] >= 0.6 * figures["full_prompt"]


def test_controls_do_not(dense: Figures) -> None:
    assert dense["none"] <= 0.15
    assert dense["other_recipe"] <= dense["none"] + 0.1
    assert dense["multitask_lora"] <= dense["none"] + 0.1
    assert dense["mean_recipe"] <= dense["none"] + 0.1
    assert dense["same_family_other_recipe"] <= 0.5 * dense["recipe"]


def test_paper_recipes_carry_much_of_the_prompt() -> None:
    paper = Evaluator(Layout(SMALLER), Level.PAPER, SMALL).score(Split.UNSEEN_PROMPTS, prompts=4)
    assert paper["recipe"] >= 0.3 * paper["full_prompt"]


@pytest.fixture(params=["small", "demo"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    return CHECKPOINTS / str(request.param)


def test_shown_prompts_are_answered_greedily_under_their_recipes(checkpoint: Path) -> None:
    examples = json.loads((checkpoint / "prompts.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(checkpoint / "edge")
    template = CompiledTemplate.load(checkpoint / "edge" / "compiled_template.jinja")
    pool = Pool.load(checkpoint / "generator" / "pool.safetensors")
    edge = EdgeModel.load(checkpoint / "edge", pool)
    generator = Generator.load(checkpoint / "generator")
    works = examples["works"]
    assert len(works) == 3
    recipes = generator.compile([example["system_prompt"] for example in works])
    texts = [
        template.render([{"role": "user", "content": example["question"]}]) for example in works
    ]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    answers = edge.generate(ids, stack_gates(recipes, pool.id, pool.spec))
    assert [tokenizer.decode(a) for a in answers] == [example["answer"] for example in works]


@pytest.mark.parametrize(("name", "show"), [("small", SMALL_SHOW), ("demo", DEMO_SHOW)])
def test_what_is_shown_to_be_refined_or_refused_is(name: str, show: Show) -> None:
    layout = Layout(CHECKPOINTS / name)
    examples = json.loads(layout.prompts.read_text())
    stage = Stage(layout, show)
    refined = stage.choose(examples["refined"]["system_prompt"])
    assert refined.recipe is not None
    assert not refined.is_one_pass
    fallback = examples["fallback"]
    if fallback["reason"] == "prompt_too_long":
        tokens = stage.generator.prompt_tokens(fallback["system_prompt"])
        assert tokens > stage.generator.max_prompt_tokens
    else:
        assert stage.choose(fallback["system_prompt"]).refusal == fallback["reason"]


def test_the_checkpoint_stays_small(checkpoint: Path) -> None:
    total = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    assert total <= 25 * MEGABYTE
