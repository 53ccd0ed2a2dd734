"""The curriculum goes on when the drill is right, and a run goes on where it stopped."""

import os
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from safetensors.torch import load_file
from transformers import GenerationConfig

from loragen.suite.small import SMALL
from loragen.training.curriculum import Phase, Position
from loragen.training.edge_run import EdgeRun, RunSpec
from loragen.training.pretrain import EdgeSize

VOCABULARY = 100


def run(position: Position, accuracy: float | None, steps: int) -> None:
    for _ in range(steps):
        position.advance(accuracy=accuracy, is_text=accuracy is None, vocabulary=VOCABULARY)


def test_a_phase_ends_when_the_drill_is_right() -> None:
    position = Position((Phase("a", 0, steps=100, until=0.9), Phase("b", 1, steps=100)))
    run(position, 0.95, 11)
    assert position.phase is not None
    assert position.phase.name == "a"
    run(position, 0.95, 1)
    assert position.phase.name == "b"
    assert (position.step, position.total, position.accuracy) == (0, 12, 0.0)


def test_a_phase_ends_after_its_steps_and_text_counts_for_nothing_else() -> None:
    position = Position((Phase("a", 0, steps=10, until=0.9),))
    run(position, None, 9)
    assert (position.texts, position.accuracy) == (9, 0.0)
    assert position.phase is not None
    run(position, None, 1)
    assert position.phase is None


def test_words_double_until_all_are_in() -> None:
    position = Position((Phase("a", 0, steps=1000, grows=True), Phase("b", 0, steps=1)))
    seen = []
    while position.index == 0:
        run(position, 0.8, 1)
        seen.append(position.words)
    assert sorted(set(seen)) == [32, 64, 100]


def test_growth_that_never_came_still_ends_with_all_words() -> None:
    position = Position((Phase("a", 0, steps=5, grows=True), Phase("b", 0, steps=1)))
    run(position, 0.0, 5)
    assert position.words == VOCABULARY


def test_rates_decay_over_the_last_phase() -> None:
    phase = Phase("cooldown", 0, steps=100, decays=True)
    assert phase.factor(0) == 1.0
    assert phase.factor(50) == pytest.approx(0.5)
    assert phase.factor(99) == pytest.approx(0.03)


@pytest.fixture
def spec() -> RunSpec:
    return RunSpec(
        SMALL,
        EdgeSize(hidden=32, layers=1, heads=1, intermediate=32),
        phases=(
            Phase("pairs", 0, steps=4, matrix_lr=0.02, other_lr=3e-3),
            Phase("text", 1, steps=8, text_share=0.6, short_share=0.5),
        ),
        rows=4,
        drill_questions=2,
        text_segments=2,
    )


def test_a_run_that_stopped_ends_as_one_that_did_not(tmp_path: Path, spec: RunSpec) -> None:
    whole = EdgeRun(tmp_path / "whole", spec, seed=3)
    assert whole.train()
    stopped = EdgeRun(tmp_path / "stopped", spec, seed=3)
    for steps in (2, 7):
        assert not stopped.train(steps=steps)
        stopped = EdgeRun(tmp_path / "stopped", spec, seed=3)
    assert stopped.position.total == 9
    assert stopped.train()
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(stopped.model.state_dict()[name], weight)


def test_without_its_state_a_run_goes_on_from_its_model(tmp_path: Path, spec: RunSpec) -> None:
    first = EdgeRun(tmp_path, spec, seed=3)
    first.train(steps=5)
    (tmp_path / "state.pt").unlink()
    again = EdgeRun(tmp_path, spec, seed=3)
    assert again.position.to_state() == first.position.to_state()
    for name, weight in first.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], weight)
    assert again.train()
    published = GenerationConfig.from_pretrained(tmp_path / "edge")
    assert not published.do_sample


def test_the_published_model_is_the_mean_of_the_kept_ones(tmp_path: Path, spec: RunSpec) -> None:
    first, last = spec.phases
    kept = replace(spec, phases=(replace(first, is_kept=True), replace(last, is_kept=True)))
    assert EdgeRun(tmp_path, kept, seed=3).train()
    ends = [load_file(tmp_path / "kept" / f"{name}.safetensors") for name in ("pairs", "text")]
    published = load_file(tmp_path / "edge" / "model.safetensors")
    for name, weight in published.items():
        torch.testing.assert_close(weight, (ends[0][name] + ends[1][name]) / 2)
    assert any(not torch.equal(weight, ends[1][name]) for name, weight in published.items())
    assert EdgeRun(tmp_path, kept, seed=3).train()  # done already: the same again
    again = load_file(tmp_path / "edge" / "model.safetensors")
    assert all(torch.equal(weight, again[name]) for name, weight in published.items())


def test_a_phase_can_begin_with_the_mean_of_what_was_kept_and_be_killed_meanwhile(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (replace(phase, is_kept=True) for phase in spec.phases)
    last = Phase("still", 0, steps=2, matrix_lr=0.0, other_lr=0.0, takes_mean=True)
    spec = replace(spec, phases=(first, second, last))
    assert not EdgeRun(tmp_path, spec, seed=3).train(steps=first.steps + second.steps)
    ends = [load_file(tmp_path / "kept" / f"{name}.safetensors") for name in ("pairs", "text")]
    with monkeypatch.context() as killed:
        killed.setattr(Path, "rename", _kill)
        with pytest.raises(KeyboardInterrupt):
            EdgeRun(tmp_path, spec, seed=3).train()
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", _kill)
        killed.setattr(os, "unlink", _kill)
        with pytest.raises(KeyboardInterrupt):
            EdgeRun(tmp_path, spec, seed=3).train()
    assert EdgeRun(tmp_path, spec, seed=3).train()
    assert not (tmp_path / "kept").exists()
    published = load_file(tmp_path / "edge" / "model.safetensors")
    for name, weight in published.items():
        torch.testing.assert_close(weight, (ends[0][name] + ends[1][name]) / 2)


def _kill(*_: object, **__: object) -> NoReturn:
    raise KeyboardInterrupt
