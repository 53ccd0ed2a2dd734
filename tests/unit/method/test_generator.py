"""The shipped generators compile: deterministic, alone or in a batch, never truncating."""

import json
import shutil
from pathlib import Path

import pytest

from loragen.errors import ArtifactCorrupt, PromptTooLong
from loragen.method.generator import Generator
from loragen.method.pool import Pool, edge_fingerprint
from loragen.recipe import Level
from loragen.template import CompiledTemplate

CHECKPOINT = Path(__file__).parents[3] / "checkpoints" / "small"
PROMPTS = [
    "Say amber.",
    "If the review is good, say sunny; if it is bad, say stormy.",
    "You are Ada, the assistant of Acme in Paris. Greet people with Ahoy. " * 8,
    "Ünïcode \U0001f600 and <|user|> tokens",
    "",
]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator.load(CHECKPOINT / "generator")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(CHECKPOINT, tmp_path / "demo")
    return tmp_path / "demo"


def test_a_recipe_does_not_depend_on_its_batch(generator: Generator) -> None:
    alone = [generator.compile([prompt])[0].data for prompt in PROMPTS]
    together = [recipe.data for recipe in generator.compile(PROMPTS)]
    backwards = [recipe.data for recipe in generator.compile(PROMPTS[::-1] * 2)]
    assert together == alone
    assert backwards == alone[::-1] * 2
    assert len(set(alone)) == len(PROMPTS)


def test_a_second_load_compiles_the_same_bytes(generator: Generator) -> None:
    again = Generator.load(CHECKPOINT / "generator")
    assert again.head == generator.head
    assert again.compile(PROMPTS[:2]) == generator.compile(PROMPTS[:2])


@pytest.mark.parametrize(("name", "level"), [("generator", 1), ("generator_l0", 0)])
def test_the_head_says_what_recipes_are_for(name: str, level: int) -> None:
    generator = Generator.load(CHECKPOINT / name)
    pool = Pool.load(CHECKPOINT / name / "pool.safetensors")
    template = CompiledTemplate.load(CHECKPOINT / "edge" / "compiled_template.jinja")
    assert generator.head.pool_id == pool.id
    assert generator.head.level is Level(level)
    assert generator.head.edge_fingerprint == edge_fingerprint(CHECKPOINT / "edge")
    assert generator.head.template_hash == template.hash
    recipe = generator.compile(["Say amber."])[0]
    spec = pool.spec
    recipe.require_pool(
        pool.id, layers=spec.layers, linears=len(spec.linears), experts=spec.experts
    )
    assert recipe.level is Level(level)


def test_paper_recipes_keep_two_experts_per_layer() -> None:
    recipe = Generator.load(CHECKPOINT / "generator_l0").compile(["Say amber."])[0]
    assert recipe.gates.shape[1] == 1
    assert ((recipe.gates > 0).sum(-1) <= 2).all()
    assert recipe.gates.sum(-1) == pytest.approx(1, abs=0.01)


def test_a_prompt_is_read_whole_or_refused(generator: Generator) -> None:
    prompt = "green " * generator.max_prompt_tokens
    longest = prompt.strip()
    while generator.prompt_tokens(longest) > generator.max_prompt_tokens:
        longest = longest.removesuffix(" green")
    generator.compile([longest])
    with pytest.raises(PromptTooLong, match=str(generator.max_prompt_tokens)):
        generator.compile(["Say amber.", f"{longest} green green"])


def test_a_pool_of_another_edge_model_is_refused(copied: Path) -> None:
    config = copied / "edge" / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(ArtifactCorrupt, match="another edge model"):
        Generator.load(copied / "generator")


@pytest.mark.parametrize(
    "broken", ["config.json", "generator.safetensors", "pool.safetensors", "../cloud/config.json"]
)
def test_a_broken_file_is_named(copied: Path, broken: str) -> None:
    (copied / "generator" / broken).write_bytes(b"{}")
    with pytest.raises(ArtifactCorrupt):
        Generator.load(copied / "generator")


def test_every_deciding_file_is_part_of_the_id(copied: Path, generator: Generator) -> None:
    path = copied / "cloud" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4))
    assert Generator.load(copied / "generator").head.generator_id != generator.head.generator_id
