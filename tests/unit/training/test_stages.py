"""Stages are done once and in order; one that was cut off is asked again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from loragen.errors import ConfigError
from loragen.training.stages import run_stages


def test_a_later_process_goes_on_at_the_stage_that_was_cut_off(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    asked: list[str] = []

    def stage(name: str, *, is_cut: bool = False) -> Callable[[], None]:
        def act() -> None:
            asked.append(name)
            if is_cut:
                raise KeyboardInterrupt

        return act

    with pytest.raises(KeyboardInterrupt):
        run_stages(folder, 0, {"a": stage("a"), "b": stage("b", is_cut=True), "c": stage("c")})
    assert asked == ["a", "b"]
    assert json.loads((folder / "stages.json").read_text("utf-8"))["done"] == ["a"]

    run_stages(folder, 0, {"a": stage("a"), "b": stage("b"), "c": stage("c")})
    assert asked == ["a", "b", "b", "c"]
    run_stages(folder, 0, {"a": stage("a"), "b": stage("b"), "c": stage("c")})
    assert asked == ["a", "b", "b", "c"]


def test_two_seeds_do_not_share_a_folder(tmp_path: Path) -> None:
    def cut() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages(tmp_path, 0, {"a": cut})
    with pytest.raises(ConfigError, match="seed 0, not 1"):
        run_stages(tmp_path, 1, {"a": lambda: None})
