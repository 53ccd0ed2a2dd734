"""Stages: the parts of a checkpoint, trained in order, with a record of those that are done."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from loragen.errors import ConfigError

logger = logging.getLogger(__name__)

_FILE: Final = "stages.json"


def run_stages(folder: Path, seed: int, actions: Mapping[str, Callable[[], object]]) -> None:
    """Do what is not done yet, in order; another process goes on where this one was stopped.

    `stages.json` in the folder names the seed and the stages that are done. A stage is named there
    after it has returned, so one that was cut off is asked again: it goes on from what it left, and
    changes nothing if it was over.

    Raises:
        ConfigError: the folder holds stages of another seed.
    """
    record = folder / _FILE
    state: dict[str, Any] = {"seed": seed, "done": []}
    if record.exists():
        state = json.loads(record.read_text("utf-8"))
    if state["seed"] != seed:
        raise ConfigError(f"{folder} is of seed {state['seed']}, not {seed}: use another folder")
    _write(record, state)
    for name, act in actions.items():
        if name in state["done"]:
            logger.info("stage %s: done before", name)
            continue
        logger.info("stage %s", name)
        act()
        state["done"].append(name)
        _write(record, state)


def _write(record: Path, state: dict[str, Any]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    partial = record.with_suffix(".partial")
    partial.write_text(json.dumps(state) + "\n", encoding="utf-8")
    partial.replace(record)
