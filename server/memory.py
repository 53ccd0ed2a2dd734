"""The memory tier: resolved tasks in this process, the newest use last.

An entry older than its time to live is stale: it must be confirmed with Redis before use, so that
a delete in another gateway is seen within that time even if its invalidation is lost. Its age
counts from the moment Redis was asked. While Redis is away a stale entry serves on.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from loragen import metrics
from loragen.recipe import Recipe
from loragen.task import Task
from loragen.tools import canonical_tools

Key = tuple[str, str]

DROPS: Final = 10_000
"""How many drops are remembered; an answer from Redis that is older than all of them is stale."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A task and the recipe it is served with; None means fallback, for `task.fallback_reason`."""

    task: Task
    recipe: Recipe | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A resolved task and until when it needs no confirmation."""

    resolved: Resolved
    fresh_until: float


@dataclass(frozen=True, slots=True)
class Asked:
    """The moment before a question to Redis: the time, and how many drops came before it."""

    at: float
    drops: int


class MemoryTier:
    """A least-recently-used map from (tenant, task id) to resolved tasks, bounded in bytes too."""

    def __init__(
        self,
        *,
        entries: int,
        max_bytes: int,
        ttl_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._dropped: OrderedDict[Key, int] = OrderedDict()
        self._drops = self._cleared = 0
        self._capacity = entries
        self._max_bytes = max_bytes
        self._ttl = ttl_seconds
        self._clock = clock
        self._bytes = 0

    def asking(self) -> Asked:
        """Return the moment of now, to `put` the answer with."""
        return Asked(self._clock(), self._drops)

    def get(self, key: Key) -> Entry | None:
        """Return the entry, fresh or stale, and mark it used."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def is_fresh(self, entry: Entry) -> bool:
        """Whether the entry may be used without asking Redis."""
        return self._clock() < entry.fresh_until

    def put(self, resolved: Resolved, asked: Asked) -> None:
        """Keep a task as Redis knew it when asked; the least recently used gives way.

        A task dropped since then is not kept: the answer may be from before its delete.
        """
        key = (resolved.task.tenant, resolved.task.id)
        self._take(key)
        if max(self._dropped.get(key, 0), self._cleared) <= asked.drops:
            self._entries[key] = Entry(resolved, asked.at + self._ttl)
            self._bytes += _size(resolved)
        while len(self._entries) > self._capacity or self._bytes > self._max_bytes:
            self._take(next(iter(self._entries)))
        self._measure()

    def drop(self, key: Key) -> None:
        """Forget an entry, and what Redis was asked about it so far."""
        self._take(key)
        self._drops += 1
        self._dropped[key] = self._drops
        self._dropped.move_to_end(key)
        if len(self._dropped) > DROPS:
            self._dropped.popitem(last=False)
        self._measure()

    def clear(self) -> None:
        """Forget all entries; word of a delete may have been missed."""
        self._entries.clear()
        self._bytes = 0
        self._drops += 1
        self._cleared = self._drops
        self._measure()

    def _take(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= _size(entry.resolved)

    def _measure(self) -> None:
        metrics.RECIPE_CACHE_ENTRIES.set(len(self._entries))
        metrics.RECIPE_CACHE_BYTES.set(self._bytes)


def _size(resolved: Resolved) -> int:
    task, recipe = resolved.task, resolved.recipe
    held = 0 if recipe is None else len(recipe.data) + recipe.gates.nbytes
    return (
        held
        + len(task.refined)
        + len(task.spare_refined)
        + len(task.prompt.encode())
        + len(canonical_tools(task.tools).encode())
    )
