"""Up: everything a configuration needs, on this machine, from nothing to ready to gone.

What can be seen to be wrong beforehand (files, ports, disk, a second start) ends it with one line
before a process runs. Afterwards nothing is left: no process, no file outside the state folder.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import typer

from config.check import file_problems
from config.examples import Examples
from config.ports import require_free
from config.probe import require_redis
from config.settings import Settings
from config.stack import Stack, plan_stack, port_claims
from config.state_folder import StateFolder
from config.supervisor import Supervisor
from config.temp_folder import RANDOM_CHARS, RAY_CHARS, temp_folder
from loragen.errors import ArtifactCorrupt, ConfigError

RAY_FOLDER_CHARS = len("/ray-") + RANDOM_CHARS
"""The router service makes Ray's folder inside ours."""


class Progress:
    """Tells on stdout what happens, with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Print one progress line."""
        self.print(f"[{time.monotonic() - self._started:3.0f} s] {text}")

    def print(self, text: str) -> None:
        """Print text as it is."""
        with suppress(OSError):  # the terminal may be gone; the children must still end in order
            typer.echo(text)
            sys.stdout.flush()


class Plan(Protocol):
    """Derives the stack of a configuration, as `plan_stack`."""

    def __call__(
        self, settings: Settings, files: Sequence[Path], *, state: StateFolder, temp: Path
    ) -> Stack:
        """Return the stack."""


def up(
    settings: Settings, files: Sequence[Path], examples: Path | None, *, plan: Plan = plan_stack
) -> None:
    """Start the stack of a configuration and keep it running until SIGINT or SIGTERM.

    Raises:
        StartupError: it cannot start; the message says why.
    """
    if sys.platform != "linux":
        raise ConfigError("loragen up needs Linux")
    shown = Examples.load(examples) if examples is not None else None
    if not settings.edge_models:
        raise ConfigError("edge_models: none is configured, so there is nothing to serve")
    if problems := file_problems(settings):
        raise ArtifactCorrupt(problems[0])
    progress = Progress()
    with (
        StateFolder.open(settings.state_dir) as state,
        temp_folder("lg-", behind=RAY_FOLDER_CHARS + RAY_CHARS) as temp,
    ):
        require_free(port_claims(settings))
        stack = plan(settings, files, state=state, temp=temp)
        if settings.redis_url is not None:
            asyncio.run(require_redis(stack.redis_url))

        def when_ready() -> None:
            progress.print(f"ready: {stack.url}")
            if shown is not None:
                model = settings.edge_models[0].name
                progress.print("\n".join(shown.lines(url=stack.url, model=model)))

        asyncio.run(run_stack(stack, state=state, temp=temp, progress=progress, ready=when_ready))


async def run_stack(
    stack: Stack, *, state: StateFolder, temp: Path, progress: Progress, ready: Callable[[], None]
) -> None:
    """Run the children of a stack until a signal; a second signal ends them by force.

    Raises:
        StartupError: a child died before it was ever ready.
    """

    def changed() -> None:
        state.say_running(
            {
                "pid": os.getpid(),
                "url": stack.url,
                "redis_url": stack.redis_url,
                "admin_url": stack.admin_url,
                "temp_dir": str(temp),
                "pids": supervisor.pids,
                "logs": {child.name: str(child.log) for child in stack.children},
            }
        )

    supervisor = Supervisor(stack.children, say=progress.say, changed=changed)
    changed()
    progress.say(f"starting {', '.join(child.name for child in stack.children)}")
    progress.say(f"logs: {state.path / 'logs'}")
    task = asyncio.create_task(supervisor.run(ready))
    _stop_on_signals(task, supervisor, progress)
    try:
        await task
    except asyncio.CancelledError:
        progress.say("stopped")


def _stop_on_signals(
    task: "asyncio.Task[None]", supervisor: Supervisor, progress: Progress
) -> None:
    def stop() -> None:
        if task.cancelling():
            progress.say("ending everything at once")
            supervisor.kill()
        else:
            progress.say("stopping; once more to stop at once")
            task.cancel()

    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signals.append(signal.SIGHUP)
    for signum in signals:
        asyncio.get_running_loop().add_signal_handler(signum, stop)
