"""A pair course leaves the text course as it was, and what it teaches survives a save."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from loragen.errors import ArtifactCorrupt, ConfigError
from loragen.method.generator import Generator
from loragen.method.pool import Pool
from loragen.recipe import Level
from loragen.suite.splits import Split
from loragen.suite.tenants import TENANTS
from loragen.template import FILE_NAME
from loragen.training.checkpoint import Layout, save_tokenizer, train_generator, train_pairs
from loragen.training.curriculum import Phase
from loragen.training.generator_spec import GeneratorRunSpec
from loragen.training.pair_course import PairCourse, PairSpec
from loragen.training.pretrain import EdgeSize, new_model
from loragen.training.tokenizer import COMPILED_TEMPLATE, train_tokenizer

TEXT = GeneratorRunSpec(
    Level.DENSE,
    experts=4,
    rank=1,
    phases=(Phase("rules", 0, 1, text_share=1.0, short_share=1.0),),
    catalogue=TENANTS,
    binds=True,
)
SPEC = PairSpec(
    TENANTS,
    experts=3,
    word_steps=2,
    suite_steps=1,
    end_batches=1,
    end_epochs=1,
    prompt_steps=1,
)
TOGETHER = replace(
    TEXT,
    course="together",
    pair_experts=3,
    phases=(Phase("together", 0, 2, text_share=1.0, short_share=1.0),),
    pair_lr=1e-2,
    router_lr=1e-2,
)
STAGES = ("_learn_words", "_learn_suite", "_learn_ends", "_learn_prompts")
PROMPTS = [TENANTS.draw(family, Split.TRAIN, 0).text for family in TENANTS.seen[:4]]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Make an edge model and a generator that has been through its text course."""
    layout = Layout(tmp_path_factory.mktemp("checkpoint"))
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TENANTS, 2048, seed=0)
    edge = new_model(tokenizer, EdgeSize(hidden=32, layers=2, heads=1, intermediate=48))
    edge.save_pretrained(layout.edge)
    save_tokenizer(tokenizer, layout.edge)
    (layout.edge / FILE_NAME).write_text(COMPILED_TEMPLATE, "utf-8")
    train_generator(layout, TEXT, 3)
    return layout


def recipes(layout: Layout) -> torch.Tensor:
    """Compile some prompts."""
    compiled = Generator.load(layout.generator(Level.DENSE)).compile(PROMPTS)
    return torch.tensor(np.stack([recipe.gates for recipe in compiled]))


@torch.inference_mode()
def text_gates(layout: Layout) -> torch.Tensor:
    """Return what the router makes of some tokens."""
    ids = torch.arange(4, 20).reshape(2, 8)
    reader = Generator.load(layout.generator(Level.DENSE)).reader
    return reader.text_gates(ids, torch.ones_like(ids, dtype=torch.bool))


def test_a_course_adds_experts_and_leaves_the_others(layout: Layout, tmp_path: Path) -> None:
    own = copy_of(layout, tmp_path)
    before = text_gates(own)
    pool_file = own.generator(Level.DENSE) / "pool.safetensors"
    pool = Pool.load(pool_file)
    train_pairs(own, SPEC, 5)
    wider = Pool.load(pool_file)
    assert (pool.spec.experts, wider.spec.experts) == (4, 7)
    for key, (a_DR, b_RF) in pool.tensors.items():
        assert torch.equal(wider.tensors[key][0][:, :4], a_DR)
        assert torch.equal(wider.tensors[key][1][:4], b_RF)
    assert any(b_RF[4:].any() for _, b_RF in wider.tensors.values())
    assert torch.equal(text_gates(own), before)
    assert recipes(own).shape[-1] == 7
    assert not own.pairs_state.exists()


@pytest.mark.parametrize("stage", [1, 3])
def test_a_course_goes_on_at_the_stage_where_it_stopped(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    whole, stopped = copy_of(layout, tmp_path / "whole"), copy_of(layout, tmp_path / "stopped")
    train_pairs(whole, SPEC, 5)
    with monkeypatch.context() as patched:
        patched.setattr(PairCourse, STAGES[stage], interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_pairs(stopped, SPEC, 5)
    assert stopped.pairs_state.exists()
    with monkeypatch.context() as patched:
        for done in STAGES[:stage]:
            patched.setattr(PairCourse, done, interrupt)
        train_pairs(stopped, SPEC, 5)
    for name in ("generator.safetensors", "pool.safetensors"):
        one, other = (load_file(each.generator(Level.DENSE) / name) for each in (whole, stopped))
        for key, tensor in one.items():
            torch.testing.assert_close(other[key], tensor)


def test_a_course_is_taken_once_and_ends_the_text_course(layout: Layout, tmp_path: Path) -> None:
    own = copy_of(layout, tmp_path)
    train_pairs(own, SPEC, 5)
    before = tensors(own)
    train_pairs(own, SPEC, 5)  # as after a stop before anybody knew that it was over
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(own).items())
    with pytest.raises(ConfigError, match="has 3 pair experts"):
        train_pairs(own, replace(SPEC, experts=4), 5)
    with pytest.raises(ConfigError, match="has 3 pair experts"):
        train_generator(own, TEXT, 3)


def test_all_parts_learn_together_after_a_course(layout: Layout, tmp_path: Path) -> None:
    own = copy_of(layout, tmp_path)
    with pytest.raises(ConfigError, match="has 0 pair experts"):
        train_generator(own, TOGETHER, 3)
    train_pairs(own, SPEC, 5)
    before = tensors(own)
    assert not train_generator(own, TOGETHER, 3, seconds=0)
    assert tensors(own).keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(own).items())
    own.state(Level.DENSE).unlink()  # as in a clone
    assert train_generator(own, TOGETHER, 3)
    after = tensors(own)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert {"router.f1.weight", "meta_LD", "pairs.key_code.weight", "pairs.outer.weight"} <= changed
    assert "pairs.norm.running_mean" not in changed
    pool_a = next(name for name in changed if name.endswith("A"))
    assert not torch.equal(after[pool_a][:, :4], before[pool_a][:, :4])
    assert not torch.equal(after[pool_a][:, 4:], before[pool_a][:, 4:])
    assert train_generator(own, TOGETHER, 3)
    assert all(torch.equal(tensor, after[name]) for name, tensor in tensors(own).items())


def test_a_generator_whose_writing_was_cut_off_is_put_back(layout: Layout, tmp_path: Path) -> None:
    own = copy_of(layout, tmp_path)
    folder = own.generator(Level.DENSE)
    folder.rename(folder.with_name("generator.old"))
    folder.with_name("generator.new").mkdir()
    train_pairs(own, SPEC, 5)
    assert tensors(own)
    assert not folder.with_name("generator.old").exists()


def test_a_course_needs_a_text_course_that_is_over(layout: Layout, tmp_path: Path) -> None:
    own = copy_of(layout, tmp_path)
    own.state(Level.DENSE).touch()
    with pytest.raises(ConfigError, match="not over"):
        train_pairs(own, SPEC, 5)


def test_the_state_of_another_seed_or_generator_is_refused(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = copy_of(layout, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(PairCourse, "_learn_suite", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_pairs(own, SPEC, 5)
    with pytest.raises(ConfigError, match="another generator or seed"):
        train_pairs(own, SPEC, 6)


def test_a_pair_reader_needs_its_edge_model_and_does_not_store_it(
    layout: Layout, tmp_path: Path
) -> None:
    own = copy_of(layout, tmp_path)
    train_pairs(own, SPEC, 5)
    folder = own.generator(Level.DENSE)
    with safe_open(folder / "generator.safetensors", framework="pt") as stored:
        names = set(stored.keys())
    assert "pairs.key_code.weight" in names
    assert not any(name.startswith(("edge.", "cloud.")) for name in names)
    shutil.rmtree(own.edge)
    with pytest.raises(ArtifactCorrupt, match="reads pairs"):
        Generator.load(folder)


def tensors(layout: Layout) -> dict[str, torch.Tensor]:
    """Return what a generator's folder holds."""
    folder = layout.generator(Level.DENSE)
    return {
        **load_file(folder / "generator.safetensors"),
        **load_file(folder / "pool.safetensors"),
    }


def copy_of(layout: Layout, folder: Path) -> Layout:
    """Return a checkpoint to change."""
    return Layout(shutil.copytree(layout.root, folder / "copy"))


def interrupt(_: PairCourse) -> None:
    """Stop as by Ctrl-C."""
    raise KeyboardInterrupt
