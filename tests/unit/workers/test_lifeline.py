import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import multiprocessing, os, sys, time
from workers.lifeline import die_with_parent

if __name__ == "__mp_main__":
    time.sleep(float(sys.argv[1]))
    die_with_parent()

def report():
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=report)
    child.start()
    print(child.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("late_seconds", [0.0, 1.0])
def test_a_child_dies_with_its_killed_parent_even_if_it_ties_itself_late(
    tmp_path: Path, late_seconds: float
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(script), str(late_seconds)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},  # noqa: TID251
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while _is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(child)


def _is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
