"""A module of this repository as a process of a benchmark, until it listens."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from config.environment import child_environment

ROOT: Final = Path(__file__).parents[1]
START_SECONDS: Final = 120.0


@contextmanager
def module_process(
    command: Sequence[str], *, port: int, log: Path, **environment: str
) -> Iterator[int]:
    """Run `python -m` with a command until the block ends; yield its process id.

    Raises:
        SystemExit: it ended, or did not listen in time.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=output,
            stderr=output,
            env=child_environment(**environment),
            cwd=ROOT,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"bench: {command[0]} did not start:\n{log.read_text()[-2_000:]}")
            time.sleep(0.1)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
