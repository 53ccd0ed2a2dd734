"""Supervisor: starts children in parallel, starts dead ones again, ends them all in order.

A child that dies before it was ever ready ends the start: something is wrong that another try
would not change. One that was ready is started again with growing pauses, for as long as it takes.
"""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from config.child_log import last_message
from config.probe import Probe
from config.process_tree import children
from loragen.errors import ArtifactCorrupt, ConfigError, SelfTestFailed, StartupError

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""Having run this long, a child that dies is started again without a longer pause."""
PROBE_SECONDS: Final = 0.25
REMINDER_SECONDS: Final = 15.0

Say = Callable[[str], None]

_REFUSALS: Final[Mapping[int, type[StartupError]]] = {
    error.exit_code: error for error in (ConfigError, ArtifactCorrupt, SelfTestFailed)
}


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child: how to start it, how to see that it is ready, when to end it."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    probe: Probe
    stage: int = 0
    """Children of the highest stage end first."""
    grace_seconds: float = 15.0


class Child:
    """One child over all its restarts."""

    def __init__(self, spec: ChildSpec, *, say: Say, changed: Callable[[], None]) -> None:
        self.spec = spec
        self.pid: int | None = None
        self.ready = asyncio.Event()
        self._say = say
        self._changed = changed
        self._process: Process | None = None

    async def keep(self) -> None:
        """Run the child, again and again, until cancelled.

        Raises:
            StartupError: it died before it was ever ready.
        """
        pause, was_ready = FIRST_PAUSE_SECONDS, False
        while True:
            started = time.monotonic()
            process = await self._start()
            if await self._becomes_ready(process):
                was_ready = True
                self.ready.set()
                self._say(f"{self.spec.name}: ready")
            code = await process.wait()
            self.ready.clear()
            self.pid = None
            self._changed()
            if not was_ready:
                raise self._refusal(code)
            if time.monotonic() - started > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            self._say(f"{self.spec.name}: {_reason(code)}, starting again in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def end(self) -> None:
        """End the child and all it started, by force after its grace."""
        if self._signal(signal.SIGTERM):
            assert self._process is not None
            await self._process.wait()
            self.pid = None

    def kill(self) -> None:
        """End the child and all it started at once."""
        self._signal(signal.SIGQUIT)

    def _signal(self, signum: signal.Signals) -> bool:
        if self._process is None or self._process.returncode is not None:
            return False
        self._process.send_signal(signum)
        return True

    async def _start(self) -> Process:
        spec = self.spec
        keeper = (
            sys.executable,
            "-P",
            "-m",
            "config.keeper",
            str(os.getpid()),
            str(spec.grace_seconds),
        )
        with spec.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *keeper,
                *spec.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(spec.environment),
                start_new_session=True,
            )
        return self._process

    async def _becomes_ready(self, process: Process) -> bool:
        while process.returncode is None:
            if self.pid is None and (below := children(process.pid)):
                self.pid = below[0]
                self._changed()
            if self.pid is not None and await self.spec.probe():
                return True
            await asyncio.sleep(PROBE_SECONDS)
        return False

    def _refusal(self, code: int) -> StartupError:
        last = last_message(self.spec.log) or "it said nothing"
        error = _REFUSALS.get(code, StartupError)
        return error(
            f"{self.spec.name} did not start, {_reason(code)}: {last} (log: {self.spec.log})"
        )


class Supervisor:
    """All children of one start."""

    def __init__(
        self, specs: Sequence[ChildSpec], *, say: Say, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._say = say
        self.children = [Child(spec, say=say, changed=changed) for spec in specs]

    async def run(self, when_ready: Callable[[], None]) -> None:
        """Keep all children running until cancelled; call `when_ready` once all are ready.

        Raises:
            StartupError: a child died before it was ever ready; the others are ended.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for child in self.children:
                    group.create_task(child.keep())
                group.create_task(self._wait_ready(when_ready))
        except ExceptionGroup as failures:
            # Not except*: what that raises is a group again up to Python 3.11.3.
            refusals = failures.subgroup(StartupError)
            if refusals is None:
                raise
            raise refusals.exceptions[0] from None
        finally:
            await self._end()

    def kill(self) -> None:
        """End all children and what they started at once."""
        for child in self.children:
            child.kill()

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the children that run."""
        return {child.spec.name: child.pid for child in self.children if child.pid is not None}

    async def _wait_ready(self, when_ready: Callable[[], None]) -> None:
        for child in self.children:
            while not child.ready.is_set():
                try:
                    # wait_for of Python 3.11 loses a cancellation that comes with the event.
                    async with asyncio.timeout(REMINDER_SECONDS):
                        await child.ready.wait()
                except TimeoutError:
                    waiting = [each.spec.name for each in self.children if not each.ready.is_set()]
                    self._say(f"waiting for {', '.join(waiting)}")
        when_ready()

    async def _end(self) -> None:
        ordered = sorted(self.children, key=lambda child: -child.spec.stage)
        for _, stage in groupby(ordered, key=lambda child: child.spec.stage):
            await asyncio.gather(*(child.end() for child in stage))


def _reason(code: int) -> str:
    if code > 128:
        return f"killed by {signal.Signals(code - 128).name}"
    return f"ended with exit code {code}"
