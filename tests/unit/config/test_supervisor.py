"""The supervisor over small children: order, restarts, giving up, ending."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from config import supervisor as module
from config.environment import child_environment
from config.supervisor import ChildSpec, Supervisor
from loragen.errors import ArtifactCorrupt, StartupError

SECONDS = 20.0


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.02)


class Scene:
    """Children below one folder; each is ready once its file exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.ready = asyncio.Event()
        self._spoke = asyncio.Event()

    def child(self, name: str, program: str, *, stage: int = 0) -> ChildSpec:
        mark = self.folder / f"{name}.ready"

        async def probe() -> bool:
            return mark.exists()

        return ChildSpec(
            name=name,
            command=(sys.executable, "-c", program, str(mark), str(self.folder / "ends")),
            environment=child_environment(),
            log=self.folder / f"{name}.log",
            probe=probe,
            stage=stage,
        )

    async def run(
        self, specs: list[ChildSpec], then: Callable[[Supervisor], "asyncio.Future[None] | None"]
    ) -> Supervisor:
        """Run children; once all are ready call `then`, await what it returns, and end."""
        supervisor = Supervisor(specs, say=self.say)
        async with asyncio.timeout(SECONDS):
            task = asyncio.create_task(supervisor.run(self.ready.set))
            done, _ = await asyncio.wait(
                [task, asyncio.create_task(self.ready.wait())],
                return_when=asyncio.FIRST_COMPLETED,
            )
            if task in done:
                await task
            if (more := then(supervisor)) is not None:
                await more
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return supervisor

    async def heard(self, text: str, times: int = 1) -> None:
        while sum(text in line for line in self.said) < times:
            self._spoke.clear()
            await self._spoke.wait()

    def say(self, text: str) -> None:
        self.said.append(text)
        self._spoke.set()


READY = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch()\n"
SERVE = READY + "time.sleep(60)"
REPORT_END = (
    "import signal\n"
    + READY
    + """
def end(*_):
    with open(sys.argv[2], "a") as file:
        file.write(sys.argv[1].rpartition("/")[2] + "\\n")
    sys.exit()
signal.signal(signal.SIGTERM, end)
time.sleep(60)
"""
)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_says_ready_once_all_are(scene: Scene) -> None:
    supervisor = await scene.run(
        [scene.child("a", SERVE), scene.child("b", SERVE)], lambda running: None
    )
    assert sorted(scene.said) == ["a: ready", "b: ready"]
    assert supervisor.pids == {}


async def test_a_dead_child_is_started_again_and_said(scene: Scene) -> None:
    def kill(supervisor: Supervisor) -> "asyncio.Future[None]":
        os.kill(supervisor.pids["a"], signal.SIGKILL)
        return asyncio.ensure_future(scene.heard("a: ready", 2))

    await scene.run([scene.child("a", SERVE), scene.child("b", SERVE)], kill)
    assert "a: killed by SIGKILL, starting again in 0.05 s" in scene.said


async def test_pauses_grow_while_it_keeps_dying(scene: Scene) -> None:
    dying = scene.child("a", READY + "time.sleep(0.1); raise SystemExit(1)")
    await scene.run([dying], lambda _: asyncio.ensure_future(scene.heard("in 0.2 s")))
    assert any("a: ended with exit code 1, starting again in 0.1 s" in line for line in scene.said)


async def test_a_child_that_was_never_ready_ends_the_start_with_its_reason(scene: Scene) -> None:
    refusing = scene.child("a", "import sys; print('no such file'); sys.exit(3)")
    steady = scene.child("b", REPORT_END)
    with pytest.raises(ArtifactCorrupt) as caught:
        await scene.run([steady, refusing], lambda _: None)
    assert caught.value.message.startswith(
        "a did not start, ended with exit code 3: no such file (log: "
    )


async def test_other_exit_codes_are_start_up_errors(scene: Scene) -> None:
    with pytest.raises(StartupError) as caught:
        await scene.run([scene.child("a", "raise SystemExit(9)")], lambda _: None)
    assert type(caught.value) is StartupError
    assert "it said nothing" in caught.value.message


async def test_higher_stages_end_first(scene: Scene) -> None:
    specs = [scene.child(name, REPORT_END, stage=i) for i, name in enumerate("abc")]
    await scene.run(specs, lambda _: None)
    assert (scene.folder / "ends").read_text().split() == ["c.ready", "b.ready", "a.ready"]


async def test_kill_does_not_wait_for_the_grace(scene: Scene) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVE

    def kill_soon(supervisor: Supervisor) -> None:
        asyncio.get_running_loop().call_later(0.3, supervisor.kill)

    before = asyncio.get_running_loop().time()
    await scene.run([scene.child("a", stubborn)], kill_soon)
    assert asyncio.get_running_loop().time() - before < 10  # the grace is 15


async def test_a_stop_at_the_moment_a_child_is_ready_stops(scene: Scene) -> None:
    waiting = "import time; time.sleep(60)"
    children = [scene.child("a", waiting), scene.child("b", waiting)]
    supervisor = Supervisor(children, say=scene.say)
    task = asyncio.create_task(supervisor.run(scene.ready.set))
    await asyncio.sleep(0.1)
    supervisor.children[0].ready.set()
    task.cancel()
    async with asyncio.timeout(SECONDS):
        with pytest.raises(asyncio.CancelledError):
            await task
