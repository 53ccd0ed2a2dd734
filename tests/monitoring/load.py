"""A load that uses everything the dashboard shows, and that survives what the tests provoke."""

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import httpx

from tests.e2e.stack import CHECKPOINT, Stack

HOT_TASKS: Final = 12
PAUSE_SECONDS: Final = 0.1
"""Between requests: what is killed needs the processor to start again."""


def prompts() -> Iterator[str]:
    """Yield prompts that nobody registered before."""
    return (f"You are helper number {number}." for number in itertools.count())


class Load:
    """Asks hot tasks, tasks of their first day, one that always falls back, and no task."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._prompts = prompts()
        too_long = json.loads((CHECKPOINT / "prompts.json").read_text())["fallback"]
        self._hot = [stack.create(next(self._prompts))["id"] for _ in range(HOT_TASKS)]
        self._fallen: str = stack.create(too_long["system_prompt"])["id"]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep asking while the block runs."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=[stop])
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _run(self, stop: threading.Event) -> None:
        for number in itertools.count():
            if stop.wait(PAUSE_SECONDS):
                return
            self._ask(self._hot[number % HOT_TASKS], stream=True)
            match number % 4:
                case 0:
                    self._begin(next(self._prompts))
                case 1:
                    self._ask(self._fallen, stream=True)
                case 2:
                    self._ask(None)

    def _begin(self, prompt: str) -> None:
        with suppress(httpx.HTTPError, AssertionError):  # refused, while no worker is there
            task_id = self._stack.create(prompt)["id"]
            self._ask(task_id)
            # Else ever more tasks would lie idle, and a lost recipe in use be ever less of a share.
            self._stack.http.delete(f"/v1/tasks/{task_id}")

    def _ask(self, task_id: str | None, **fields: bool) -> None:
        with suppress(httpx.HTTPError):
            self._stack.ask("Who are you?", task_id, max_tokens=4, **fields)
