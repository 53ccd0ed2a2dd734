"""`python -m tests.fuzz`: schemathesis asks the APIs while atheris feeds what reads bytes.

Side by side, for the same time. Ends with 1 and says where to look if anything was found.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench.provenance import provenance
from tests.fuzz.api import ask_all
from tests.fuzz.targets import TARGETS

_EXECUTED: Final = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_LONGEST_SECONDS: Final = 20
"""For one input; what takes longer is a find."""


def main(
    minutes: Annotated[float, typer.Option(help="How long.")] = 16.0,
    seed: Annotated[int, typer.Option(help="Of all that is made up.")] = 1,
    is_short: Annotated[
        bool, typer.Option("--api-only", help="Leave out what reads bytes.")
    ] = False,
    found: Annotated[Path, typer.Option(help="Folder for what is found.")] = Path("runs/fuzz"),
    out: Annotated[Path | None, typer.Option(help="File for the summary.")] = None,
) -> None:
    """Fuzz the APIs and all that reads bytes from outside."""
    found.mkdir(parents=True, exist_ok=True)
    seconds, started = round(60 * minutes), time.monotonic()
    fed_targets = () if is_short else tuple(TARGETS)
    each = max(1, seconds // len(TARGETS))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(max_workers=1) as feeder:
        feeding = {
            name: feeder.submit(_feed, name, Path(folder), found, seconds=each, seed=seed)
            for name in fed_targets
        }
        asked = ask_all(Path(folder), found, seconds=seconds, seed=seed)
        fed = {name: future.result() for name, future in feeding.items()}
    summary: dict[str, Any] = {
        **provenance("tests.fuzz"),
        "seconds": round(time.monotonic() - started),
        "seed": seed,
        "api": {name: result.summary() for name, result in asked.items()},
        "bytes": fed,
    }
    text = json.dumps(summary, indent=2) + "\n"
    typer.echo(text)
    if out is not None:
        out.write_text(text)
    if any(part["found"] for kind in ("api", "bytes") for part in summary[kind].values()):
        typer.echo(f"found something: see {found}", err=True)
        raise typer.Exit(1)


def _feed(name: str, folder: Path, found: Path, *, seconds: int, seed: int) -> dict[str, Any]:
    corpus = folder / name
    corpus.mkdir()
    command = (
        sys.executable, "-m", "tests.fuzz.coverage", name, str(corpus),
        f"-max_total_time={seconds}", f"-seed={seed}", f"-timeout={_LONGEST_SECONDS}",
        "-print_final_stats=1", f"-artifact_prefix={found}/{name}-",
    )  # fmt: skip
    log = found / f"{name}.log"
    with log.open("wb") as output:
        status = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
    executed = _EXECUTED.search(log.read_text(errors="replace"))
    return {"inputs": int(executed[1]) if executed else 0, "found": status != 0}


if __name__ == "__main__":
    typer.run(main)
