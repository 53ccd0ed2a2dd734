"""The environment of this process and of those it starts: its one reader and writer."""

import os
from pathlib import Path
from typing import Final

CONFIG_VARIABLE: Final = "LORAGEN_CONFIG"


def child_environment(**values: str) -> dict[str, str]:
    """Return this process's environment with `values` on top, for a process it starts."""
    return {**os.environ, **values}  # noqa: TID251 - the one owner of the environment


def export_environment(**values: str) -> None:
    """Set variables for libraries that this process loads later and for all it starts."""
    os.environ.update(values)  # noqa: TID251 - the one owner of the environment


def files_from_environment() -> list[Path]:
    """Return the configuration files that LORAGEN_CONFIG names."""
    names = os.environ.get(CONFIG_VARIABLE, "")  # noqa: TID251 - the one owner of the environment
    return [Path(name) for name in names.split(",") if name]
