"""The launcher as a process, over stub services and a real Redis: start, kills, clean ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from config.environment import child_environment
from config.process_tree import descendants
from tests.fakes.live import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(60)]

ROOT = Path(__file__).parents[2]
NAMES = ["redis", "router_service", "worker demo", "server"]
SECONDS = 20.0


class Launcher:
    """A running stub stack."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder = folder
        self.output = folder / "output.txt"
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                (sys.executable, "-m", "tests.fakes.stub_stack", str(folder), *more),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=child_environment(),
                start_new_session=True,
            )

    def wait_ready(self) -> "Launcher":
        wait_until(lambda: "\nready: http" in self.printed or self.has_ended, seconds=SECONDS)
        assert not self.has_ended, self.printed
        return self

    def wait_end(self) -> int:
        return self.process.wait(SECONDS)

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def printed(self) -> str:
        return self.output.read_text()

    def printed_times(self, text: str, times: int) -> bool:
        return self.printed.count(text) == times

    @property
    def run(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "state" / "run.json").read_text())
        return content

    @property
    def family(self) -> list[int]:
        """The launcher and everything below it: keepers, services and their children."""
        return [self.process.pid, *descendants(self.process.pid)]


Start = Callable[..., Launcher]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Launcher] = []

    def run(*more: str) -> Launcher:
        started.append(Launcher(tmp_path, *more))
        return started[-1]

    yield run
    for launcher in started:
        if not launcher.has_ended:
            launcher.process.terminate()
            launcher.wait_end()


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_one_ready_line_and_what_runs_where(start: Start) -> None:
    launcher = start().wait_ready()
    lines = launcher.printed.splitlines()
    assert [line for line in lines if line.startswith("ready: ")] == [
        f"ready: {launcher.run['url']}"
    ]
    for name in NAMES:
        assert any(line.endswith(f" s] {name}: ready") for line in lines)
    assert sorted(launcher.run["pids"]) == sorted(NAMES)
    assert len(alive(list(launcher.run["pids"].values()))) == len(NAMES)
    assert Path(launcher.run["temp_dir"]).is_dir()
    assert redis.Redis.from_url(launcher.run["redis_url"]).ping()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_process_and_no_file(start: Start, signum: signal.Signals) -> None:
    launcher = start().wait_ready()
    family = launcher.family
    # launcher, four keepers, four services, three children in sessions of their own
    assert len(family) == 12
    temp = Path(launcher.run["temp_dir"])
    os.killpg(launcher.process.pid, signum)
    assert launcher.wait_end() == 0
    assert alive(family) == []
    assert not temp.exists()
    assert not (launcher.folder / "state" / "run.json").exists()
    assert launcher.printed.splitlines()[-1].endswith("stopped")


def test_a_launcher_killed_by_force_takes_all_along_and_the_next_cleans_up(start: Start) -> None:
    launcher = start().wait_ready()
    family, temp = launcher.family, Path(launcher.run["temp_dir"])
    launcher.process.kill()
    launcher.wait_end()
    wait_until(lambda: not alive(family), seconds=SECONDS)
    assert temp.exists()
    launcher.output.unlink()
    start().wait_ready()
    assert not temp.exists()


def test_killed_children_are_started_again(start: Start) -> None:
    launcher = start().wait_ready()
    before = launcher.run["pids"]
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    for name in NAMES:
        again = f"] {name}: ready"
        wait_until(partial(launcher.printed_times, again, 2), seconds=SECONDS)
        assert f"{name}: killed by SIGKILL, starting again in 1 s" in launcher.printed
        assert launcher.run["pids"][name] != before[name]
    assert launcher.printed.count("ready: http") == 1


def test_redis_keeps_what_it_was_told_over_starts(start: Start) -> None:
    first = start().wait_ready()
    redis.Redis.from_url(first.run["redis_url"]).set("task", "kept")
    first.process.terminate()
    assert first.wait_end() == 0
    first.output.unlink()
    second = start().wait_ready()
    assert redis.Redis.from_url(second.run["redis_url"]).get("task") == b"kept"


def test_a_child_that_refuses_ends_the_start_with_its_reason_and_status(start: Start) -> None:
    launcher = start(
        "--failing", "import sys; print('pool does not fit the edge model'); sys.exit(4)"
    )
    assert launcher.wait_end() == 4
    last = launcher.printed.splitlines()[-1]
    assert last.startswith(
        "loragen: worker demo did not start, ended with exit code 4: "
        "pool does not fit the edge model (log: "
    )


def test_a_second_start_is_told_of_the_first(start: Start) -> None:
    first = start().wait_ready()
    second = start()
    assert second.wait_end() == 1
    assert f"already running here as process {first.process.pid}" in first.printed


def test_a_second_signal_does_not_wait(start: Start) -> None:
    deaf = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); import time; time.sleep(60)"
    )
    launcher = start("--failing", deaf)
    wait_until(lambda: "server: ready" in launcher.printed, seconds=SECONDS)
    family = launcher.family
    started = time.monotonic()
    launcher.process.send_signal(signal.SIGINT)
    wait_until(lambda: "once more" in launcher.printed)
    launcher.process.send_signal(signal.SIGINT)
    launcher.wait_end()
    assert time.monotonic() - started < 8  # the grace is 15
    assert alive(family) == []
