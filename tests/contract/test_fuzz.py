"""What reads bytes from outside holds whatever the bytes, and the APIs are as they say.

The short form of `make fuzz`, which looks for longer, and by coverage.
"""

import subprocess
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from config.environment import child_environment
from tests.fuzz.targets import SEEDS, TARGETS

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-fuzz" / "bin" / "python"
"""With the fuzzers, which do not go with our packages."""

FOUND = {
    "stream": (b'data: {"choi"}`]}\n\n\x00data: [DONE]\n\n\ndata: [DON\n',),
    "wire_message": (
        b'{"fidelity":NaN,"agreement":1,"does_harm":false,"probes":8,"measure_seconds":0.1}',
    ),
    "worker_request": (b"\n" + b'{"loragen_recipe":' + b"[" * 100_000,),
}
"""What fuzzers have found, by target."""


@pytest.mark.parametrize("name", TARGETS)
def test_it_holds_for_what_was_found_and_what_is_good(name: str) -> None:
    for data in (*SEEDS[name], *FOUND.get(name, ()), b"", b"\x00"):
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
@hypothesis.given(data=strategies.data())
@hypothesis.settings(max_examples=100, derandomize=True, database=None)
def test_it_holds_for_whatever_bytes(name: str, data: strategies.DataObject) -> None:
    seeds = strategies.sampled_from(SEEDS[name])
    tails = strategies.binary(max_size=200)
    mutated = strategies.tuples(seeds, strategies.integers(0, 300), tails).map(
        lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] + len(drawn[2]) :]
    )
    TARGETS[name](data.draw(strategies.binary(max_size=400) | mutated))


def test_the_apis_are_as_their_documents_say(tmp_path: Path) -> None:
    command = (
        str(PYTHON), "-m", "tests.fuzz", "--api-only", "--minutes", "0.2", "--found", str(tmp_path),
    )  # fmt: skip
    environment = child_environment(PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    logs = [path.read_text(errors="replace") for path in tmp_path.glob("*.log")]
    assert done.returncode == 0, "\n".join([done.stderr.decode()[-2_000:], *logs])[-10_000:]
    assert all("generated" in log for log in logs)
