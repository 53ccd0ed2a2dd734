"""Tenants: every name under test, what it may answer when, and the edits that change it."""

import math
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from tests.chaos.canaries import Canary
from tests.chaos.errors import is_error

PROPAGATION_SECONDS: Final = 3.0
"""Edits reach every gateway within 2 s; a busy machine looks a little late."""
_RETRY_SECONDS: Final = 0.5
_GIVE_UP_SECONDS: Final = 240.0


@dataclass
class Standing:
    """What a name stood for, from when on and how long that may be seen; None: nothing."""

    canary: Canary | None
    since: float
    until: float = math.inf


@dataclass
class Slot:
    """One name of one tenant."""

    name: str
    tenant: str
    key: str
    task_id: str = ""
    acknowledged: float = 0.0
    """Unix time of the last acknowledged edit."""
    _standings: list[Standing] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, canary: Canary | None) -> None:
        """Note that an edit was sent: from now on either may be seen."""
        with self._lock:
            self._standings.append(Standing(canary, time.monotonic()))

    def acknowledge(self, task_id: str) -> None:
        """Note that the last edit was done: what was before may be seen a little longer."""
        with self._lock:
            for earlier in self._standings[:-1]:
                earlier.until = min(earlier.until, time.monotonic() + PROPAGATION_SECONDS)
            del self._standings[:-4]
            self.task_id, self.acknowledged = task_id, time.time()

    def between(self, start: float, end: float) -> list[Canary | None]:
        """Return all that it may have stood for in a time."""
        with self._lock:
            return [s.canary for s in self._standings if s.since <= end and s.until >= start]

    @property
    def history(self) -> str:
        """What it stood for lately: seconds since each edit was sent, until it may be seen."""
        now = time.monotonic()
        with self._lock:
            return "; ".join(
                f"{each.since - now:.2f} to {each.until - now:.2f} s: {each.canary}"
                for each in self._standings
            )

    @property
    def current(self) -> Canary | None:
        """What it stands for once all edits are done."""
        with self._lock:
            return self._standings[-1].canary if self._standings else None


class Editor:
    """Points names at prompts and deletes tasks; goes through refusals until it is done."""

    def __init__(self, gateways: Sequence[str], model: str) -> None:
        self._gateways = gateways
        self._model = model
        self._chance = random.Random(7)
        self.malformed: list[str] = []
        self.edits = 0

    def put(self, client: httpx.Client, slot: Slot, canary: Canary) -> None:
        """Point the slot's name at a canary's prompt."""
        slot.begin(canary)
        body = {"model": self._model, "system_prompt": canary.prompt}
        reply = self._until(client, slot, "PUT", f"/v1/tasks/by-name/{slot.name}", (200, 201), body)
        slot.acknowledge(reply.json()["id"])
        self.edits += 1

    def delete(self, client: httpx.Client, slot: Slot) -> None:
        """Delete the task that the slot's name stands for."""
        slot.begin(None)
        # 404: an earlier try was done, and its answer lost.
        self._until(client, slot, "DELETE", f"/v1/tasks/{slot.task_id}", (200, 404))
        slot.acknowledge("")
        self.edits += 1

    def _until(
        self,
        client: httpx.Client,
        slot: Slot,
        method: str,
        path: str,
        done: tuple[int, ...],
        body: dict[str, Any] | None = None,
    ) -> httpx.Response:
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        headers = {"authorization": f"Bearer {slot.key}"}
        last = "no answer"
        while time.monotonic() < deadline:
            url = self._chance.choice(self._gateways) + path
            try:
                reply = client.request(method, url, json=body, headers=headers)
            except httpx.TransportError as error:
                last = repr(error)
            else:
                last = f"{method} {reply.status_code} {reply.text[:300]}"
                if reply.status_code in done:
                    return reply
                if reply.status_code != 202 and not is_error(reply):  # 202: not compiled yet
                    self.malformed.append(last)
            time.sleep(_RETRY_SECONDS)
        raise AssertionError(f"{path} was not done in {_GIVE_UP_SECONDS:g} s: {last}")
