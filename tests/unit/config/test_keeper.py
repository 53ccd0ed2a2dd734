"""The keeper ends a service with everything it started, whoever dies first."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.process_tree import children, descendants

SLEEP = "import time; time.sleep(60)"
# A service with a grandchild in a session of its own, as daemons and Ray's workers are.
FAMILY = f"""
import subprocess, sys, time
for detached in (False, True):
    subprocess.Popen([sys.executable, "-c", {SLEEP!r}], start_new_session=detached)
print("up", flush=True)
time.sleep(60)
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAMILY


def keep(program: str, *, grace: float = 5.0, parent: int | None = None) -> list[str]:
    me = os.getpid() if parent is None else parent
    keeper = [sys.executable, "-m", "config.keeper", str(me), str(grace)]
    return [*keeper, sys.executable, "-c", program]


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []

    def run(program: str, *, grace: float = 5.0) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            keep(program, grace=grace), stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


Start = Callable[..., "subprocess.Popen[str]"]


def family_of(process: "subprocess.Popen[str]") -> list[int]:
    """Wait for the service's family and return the pids: service, child, detached child."""
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    family = descendants(process.pid)
    assert len(family) == 3
    return family


def test_sigterm_ends_the_service_and_what_it_left(start: Start) -> None:
    keeper = start(FAMILY)
    family = family_of(keeper)
    keeper.terminate()
    assert keeper.wait(10) == 128 + signal.SIGTERM
    assert not any(is_alive(pid) for pid in family)


def test_a_service_that_ignores_sigterm_is_killed_after_its_grace(start: Start) -> None:
    keeper = start(STUBBORN, grace=0.3)
    family = family_of(keeper)
    keeper.terminate()
    assert keeper.wait(10) == 128 + signal.SIGKILL
    assert not any(is_alive(pid) for pid in family)


def test_sigquit_ends_all_at_once(start: Start) -> None:
    keeper = start(STUBBORN, grace=60)
    family = family_of(keeper)
    keeper.terminate()
    keeper.send_signal(signal.SIGQUIT)
    assert keeper.wait(5) == 128 + signal.SIGKILL
    assert not any(is_alive(pid) for pid in family)


def test_a_killed_service_takes_its_orphans_along(start: Start) -> None:
    keeper = start(FAMILY)
    family = family_of(keeper)
    os.kill(children(keeper.pid)[0], signal.SIGKILL)
    assert keeper.wait(10) == 128 + signal.SIGKILL
    assert not any(is_alive(pid) for pid in family)


@pytest.mark.parametrize(("program", "code"), [("pass", 0), ("raise SystemExit(3)", 3)])
def test_exits_as_the_service_does(start: Start, program: str, code: int) -> None:
    assert start(program).wait(10) == code


def test_a_command_that_does_not_exist_is_said() -> None:
    command = [*keep("")[:-3], "/no/such/program"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stderr) == (
        127,
        "cannot start /no/such/program: No such file or directory\n",
    )


def test_a_launcher_killed_by_force_takes_everything_along() -> None:
    launcher = f"""
import os, subprocess, sys
keeper = [sys.executable, "-m", "config.keeper", str(os.getpid()), "5"]
subprocess.run([*keeper, sys.executable, "-c", {FAMILY!r}])
"""
    process = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "up\n"
        everyone = descendants(process.pid)
        assert len(everyone) == 4
        process.kill()
        process.wait(10)
        wait_until(lambda: not any(is_alive(pid) for pid in everyone))


def test_a_keeper_whose_launcher_is_gone_starts_nothing() -> None:
    command = keep("print('started')", parent=1 if os.getppid() != 1 else 2)
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stdout) == (1, "")
