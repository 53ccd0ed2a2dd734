"""Churn: tasks that come, are asked a few times and go, for as long as it is let run."""

import itertools
import random
import threading
from collections import Counter
from typing import Any, Final

import httpx

from bench.tenant_stack import TenantStack
from loragen.suite.small import SMALL
from loragen.suite.splits import Split

_MODEL: Final = "demo"
_LIVING: Final = 20
"""Tasks that a client has at a time; the oldest goes when another comes."""
_PAUSE_SECONDS: Final = 0.2


class Churn:
    """Clients of all tenants, each a thread, that make tasks, ask them and delete them.

    Half of the answers are streamed, some are left before their end, and some questions bring a
    prompt instead of a task.
    """

    def __init__(self, stack: TenantStack, *, clients: int) -> None:
        self._stack = stack
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._done: Counter[str] = Counter()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> Counter[str]:
        """What came of the calls so far, by kind of call and status."""
        with self._lock:
            return Counter(self._done)

    def end(self) -> None:
        """Let every client finish its call."""
        self._ending.set()
        for thread in self._threads:
            thread.join(120)

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        tenant = list(self._stack.keys)[number % len(self._stack.keys)]
        living: list[str] = []
        with httpx.Client(base_url=self._stack.url, timeout=60) as client:
            client.headers.update(self._stack.headers(tenant))
            while not self._ending.is_set():
                try:
                    self._live(client, chance, living)
                except httpx.HTTPError as error:  # what it asked was being restarted
                    self._count(type(error).__name__)
                    self._ending.wait(_PAUSE_SECONDS)

    def _live(self, client: httpx.Client, chance: random.Random, living: list[str]) -> None:
        family = chance.choice(SMALL.seen)
        number = next(self._numbers)
        prompt = f"{SMALL.draw(family, Split.TRAIN, number).text} (No. {number:07d})"
        made = client.post("/v1/tasks", json={"model": _MODEL, "system_prompt": prompt})
        self._count(f"create {made.status_code}")
        if made.is_success:
            living.append(made.json()["id"])
        else:
            self._ending.wait(_PAUSE_SECONDS)
        for task_id in chance.sample(living, min(2, len(living))):
            self._ask(client, chance, {"task_id": task_id})
        if chance.random() < 0.2:
            self._ask(client, chance, {}, {"role": "system", "content": prompt})
        if len(living) > _LIVING:
            gone = client.delete(f"/v1/tasks/{living[0]}")
            self._count(f"delete {gone.status_code}")
            if gone.is_success or gone.status_code == 404:
                living.pop(0)

    def _ask(
        self, client: httpx.Client, chance: random.Random, how: dict[str, Any], *before: Any
    ) -> None:
        is_stream = chance.random() < 0.5
        body = {
            "model": _MODEL,
            "messages": [*before, {"role": "user", "content": "hello, who are you?"}],
            "max_tokens": 8,
            "temperature": 0,
            "stream": is_stream,
            **how,
        }
        leaves = is_stream and chance.random() < 0.1
        with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            for _ in reply.iter_lines():
                if leaves:
                    break
        kind = "left" if leaves else "stream" if is_stream else "ask"
        self._count(f"{kind} {reply.status_code}")

    def _count(self, what: str) -> None:
        with self._lock:
            self._done[what] += 1
