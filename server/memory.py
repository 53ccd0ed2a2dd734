"""The memory tier: resolved tasks in this process, the newest use last.

An entry older than its time to live is stale: it must be confirmed with Redis before use, so that
a delete in another gateway is seen within that time. While Redis is away a stale entry serves on.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from loragen import metrics
from loragen.recipe import Recipe
from loragen.task import Task

Key = tuple[str, str]


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


class MemoryTier:
    """A least-recently-used map from (tenant, task id) to resolved tasks."""

    def __init__(
        self, *, entries: int, ttl_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._capacity = entries
        self._ttl = ttl_seconds
        self._clock = clock
        self._bytes = 0

    def get(self, key: Key) -> Entry | None:
        """Return the entry, fresh or stale, and mark it used."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def is_fresh(self, entry: Entry) -> bool:
        """Whether the entry may be used without asking Redis."""
        return self._clock() < entry.fresh_until

    def put(self, resolved: Resolved) -> None:
        """Keep a resolved task, fresh from now; the least recently used gives way."""
        key = (resolved.task.tenant, resolved.task.id)
        self.drop(key)
        self._entries[key] = Entry(resolved, self._clock() + self._ttl)
        self._bytes += _size(resolved)
        while len(self._entries) > self._capacity:
            _, victim = self._entries.popitem(last=False)
            self._bytes -= _size(victim.resolved)
        self._measure()

    def drop(self, key: Key) -> None:
        """Forget an entry."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= _size(entry.resolved)
        self._measure()

    def _measure(self) -> None:
        metrics.RECIPE_CACHE_ENTRIES.set(len(self._entries))
        metrics.RECIPE_CACHE_BYTES.set(self._bytes)


def _size(resolved: Resolved) -> int:
    return 0 if resolved.recipe is None else len(resolved.recipe.data)
