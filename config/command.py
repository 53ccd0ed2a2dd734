"""Command: what the commands of `loragen` have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from config.environment import files_from_environment
from config.load import load_settings
from config.settings import Settings
from loragen.errors import LoragenError, StartupError

DEMO: Final = Path(__file__).with_name("demo.yaml")

Config = Annotated[
    list[Path] | None,
    typer.Option("--config", help="YAML file, may be given several times; later ones win."),
]


def load(config: list[Path] | None) -> tuple[Settings, list[Path]]:
    """Return the settings of the given files, of LORAGEN_CONFIG, or of the demo; and the files."""
    files = list(config or files_from_environment() or [DEMO])
    return load_settings(files), files


@contextmanager
def own_errors() -> Iterator[None]:
    """End the command with our own errors in one line; exit status 1 where they name none."""
    try:
        yield
    except LoragenError as error:
        typer.echo(f"loragen: {error.message}", err=True)
        code = error.exit_code if isinstance(error, StartupError) else 1
        raise typer.Exit(code) from error
