"""Shadow: messages of live requests measure their tasks' recipes again, and show when they drift.

A share of the requests is sampled, within a budget per tenant and gateway, once their answers are
over. The messages stay in this process: a full pile goes to the refiner as probes and is forgotten,
and so is one that no message was added to for an hour, whether its task is still there or not.
Redis, logs and other gateways never see one.
"""

import asyncio
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from loragen import metrics
from loragen.task import Task
from loragen.wire import MAX_PROBE_CHARS, ProbeText
from server.measuring import Measuring
from server.messages import split_prompt
from server.requests import ChatRequest

_PILES: Final = 256
"""Tasks whose messages are collected at once; of the one that was asked longest ago they go."""
_WINDOW_SECONDS: Final = 60.0
_KEPT_SECONDS: Final = 3_600.0
"""After its last message a pile that is not full is forgotten."""


@dataclass(slots=True)
class _Pile:
    messages: dict[str, None] = field(default_factory=dict)
    last_at: float = 0.0


class Shadow:
    """Collects live messages by task."""

    def __init__(
        self,
        measuring: Measuring,
        *,
        share: float,
        per_minute: int,
        messages: int,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Sample a `share` of requests, at most so many of a tenant `per_minute` in this process.

        A task is measured on so many different `messages`.
        """
        self._measuring = measuring
        self._share = share
        self._per_minute = per_minute
        self._messages = messages
        self._clock = clock
        self._draw = draw
        self._piles: OrderedDict[tuple[str, str], _Pile] = OrderedDict()
        self._taken: Counter[str] = Counter()
        self._window_ends = 0.0

    def take(self, task: Task, message: str) -> None:
        """Sample a message to a task, or do not; measure the task once there are enough."""
        if self._share <= 0 or not self._measuring.is_on(task.edge_model):
            return
        if task.policy.shadow == "never" or task.recipe is None:
            return
        if self._draw() >= self._share:
            return
        if not self._has_budget(task.tenant):
            metrics.SHADOW_MESSAGES.labels("over_budget").inc()
            return
        metrics.SHADOW_MESSAGES.labels("taken").inc()
        key = (task.tenant, task.id)
        pile = self._piles.setdefault(key, _Pile())
        self._piles.move_to_end(key)
        pile.messages[message] = None
        pile.last_at = self._clock()
        if len(pile.messages) >= self._messages:
            del self._piles[key]
            self._measuring.start_live(task, tuple(ProbeText(input=each) for each in pile.messages))
        elif len(self._piles) > _PILES:
            self._piles.popitem(last=False)

    def expire(self) -> None:
        """Drop the piles that no message was added to for long."""
        oldest = self._clock() - _KEPT_SECONDS
        while self._piles and next(iter(self._piles.values())).last_at < oldest:
            self._piles.popitem(last=False)

    async def expire_forever(self) -> None:
        """Drop them every minute, until cancelled."""
        while True:
            await asyncio.sleep(_WINDOW_SECONDS)
            self.expire()

    def _has_budget(self, tenant: str) -> bool:
        now = self._clock()
        if now >= self._window_ends:
            self._taken.clear()
            self._window_ends = now + _WINDOW_SECONDS
        self._taken[tenant] += 1
        return self._taken[tenant] <= self._per_minute


def live_message(request: object, *, is_written: bool) -> str | None:
    """Return what a request asks its task, if that is one message of a user and nothing else.

    With `is_written` the request's leading system text is its prompt.
    """
    if not isinstance(request, ChatRequest) or request.tools:
        return None
    messages = split_prompt(request.messages)[1] if is_written else request.messages
    if len(messages) != 1 or messages[0].get("role") != "user":
        return None
    content = messages[0].get("content")
    if not isinstance(content, str) or not 0 < len(content) <= MAX_PROBE_CHARS:
        return None
    return content
