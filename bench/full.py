"""`python -m bench.full`: every measurement of serving at its full length, one after the other.

Each is a process of its own and writes one file. One that is there already is not measured again,
so a run that was broken off goes on where it was; `--again` begins anew.
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from bench.progress import say

SECTIONS: Final = {
    "decode": ("bench.decode", "--layer-rounds", "31", "--engine-rounds", "21"),
    "first_token": ("bench.first_token", "--pairs", "42"),
    "goodput": ("bench.goodput",),
    "goodput_whole_prompts": ("bench.goodput", "--repeats", "3", "--batched-tokens", "4096"),
    "goodput_long_answers": ("bench.goodput", "--repeats", "3", "--answer-tokens", "400"),
    "rotation": ("bench.rotation",),
    "waves": ("bench.serving", "--rounds", "9"),
    "cold_start": ("bench.cold_start",),
}


def main(
    out: Annotated[Path, typer.Option(help="Folder of the JSON files.")],
    again: Annotated[
        bool, typer.Option("--again", help="Measure what is there already, too.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help="Sections; default: all.")] = None,
) -> None:
    """Measure serving for hours; it can be broken off and goes on."""
    if unknown := set(only or ()) - set(SECTIONS):
        raise typer.BadParameter(f"no section {', '.join(sorted(unknown))}", param_hint="--only")
    out.mkdir(parents=True, exist_ok=True)
    for section in only or SECTIONS:
        target = out / f"{section}.json"
        if target.exists() and not again:
            say(f"{section}: is there")
            continue
        say(f"{section}: measuring")
        module, *options = SECTIONS[section]
        # What is broken off leaves no file that looks whole.
        partial = target.with_suffix(".partial")
        command = [sys.executable, "-m", module, "--out", str(partial), *options]
        subprocess.run(command, check=True)
        partial.rename(target)


if __name__ == "__main__":
    typer.run(main)
