"""The shipped checkpoint does what the README says, on a few prompts; eval-demo has the figures."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from loragen.method.edge import EdgeModel
from loragen.method.gatespace import stack_gates
from loragen.method.generator import Generator
from loragen.method.pool import Pool
from loragen.recipe import Level
from loragen.suite.demo import DEMO
from loragen.suite.splits import Split
from loragen.template import CompiledTemplate
from loragen.training.checkpoint import Layout
from loragen.training.evaluation import Evaluator, Figures

CHECKPOINT = Path(__file__).parents[3] / "checkpoints" / "demo"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def dense() -> Figures:
    return Evaluator(Layout(CHECKPOINT), Level.DENSE, DEMO).score(Split.UNSEEN_PROMPTS, prompts=4)


def test_recipes_do_what_prompts_do_on_unseen_prompts(dense: Figures) -> None:
    assert dense["full_prompt"] >= 0.85
    assert dense["recipe"] >= 0.93 * dense["full_prompt"]


def test_controls_do_not(dense: Figures) -> None:
    assert dense["none"] <= 0.15
    assert dense["other_recipe"] <= dense["none"] + 0.1
    assert dense["multitask_lora"] <= dense["none"] + 0.1
    assert dense["mean_recipe"] <= dense["none"] + 0.1
    assert dense["same_family_other_recipe"] <= 0.5 * dense["recipe"]


def test_paper_recipes_carry_much_of_the_prompt() -> None:
    paper = Evaluator(Layout(CHECKPOINT), Level.PAPER, DEMO).score(Split.UNSEEN_PROMPTS, prompts=4)
    assert paper["recipe"] >= 0.3 * paper["full_prompt"]


def test_shown_prompts_are_answered_greedily_under_their_recipes() -> None:
    examples = json.loads((CHECKPOINT / "prompts.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT / "edge")
    template = CompiledTemplate.load(CHECKPOINT / "edge" / "compiled_template.jinja")
    pool = Pool.load(CHECKPOINT / "generator" / "pool.safetensors")
    edge = EdgeModel.load(CHECKPOINT / "edge", pool)
    generator = Generator.load(CHECKPOINT / "generator")
    works = examples["works"]
    assert len(works) == 3
    recipes = generator.compile([example["system_prompt"] for example in works])
    texts = [
        template.render([{"role": "user", "content": example["question"]}]) for example in works
    ]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    answers = edge.generate(ids, stack_gates(recipes, pool.id, pool.spec))
    assert [tokenizer.decode(a) for a in answers] == [example["answer"] for example in works]
    fallback = generator.prompt_tokens(examples["fallback"]["system_prompt"])
    assert fallback > generator.max_prompt_tokens


def test_the_checkpoint_stays_small() -> None:
    total = sum(path.stat().st_size for path in CHECKPOINT.rglob("*") if path.is_file())
    assert total <= 25 * MEGABYTE
