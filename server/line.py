"""Line: those who wait, in turns by tenant.

Of one tenant first come first served, and one of each tenant before a second of any (round robin,
after Nagle, RFC 970). So who comes with one waits for one of each other tenant, however many these
have waiting; and where the line is full, the tenant that has most in it makes room.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

Waiter = TypeVar("Waiter")


class Line(Generic[Waiter]):
    """Waiters by tenant; the tenants in the order of their turns."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[Waiter, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[tuple[str, Waiter]]:
        """Yield tenants and waiters in the order of their turns, as it is at the beginning."""
        queues = [(tenant, list(queue)) for tenant, queue in self._waiting.items()]
        longest = max((len(queue) for _, queue in queues), default=0)
        for round_ in range(longest):
            for tenant, queue in queues:
                if round_ < len(queue):
                    yield tenant, queue[round_]

    def join(self, tenant: str, waiter: Waiter) -> None:
        """Put a waiter behind those of its tenant; a tenant that has none is the last to come."""
        self._waiting.setdefault(tenant, {})[waiter] = None

    def leave(self, tenant: str, waiter: Waiter) -> None:
        """Take a waiter out that is there or not; its tenant's turn stays where it is."""
        queue = self._waiting.get(tenant, {})
        queue.pop(waiter, None)
        if not queue:
            self._waiting.pop(tenant, None)

    def serve(self, tenant: str, waiter: Waiter) -> None:
        """Take a waiter out whose turn it was: its tenant's next turn is after all others'."""
        self.leave(tenant, waiter)
        queue = self._waiting.pop(tenant, None)
        if queue is not None:
            self._waiting[tenant] = queue

    def in_excess(self, tenant: str) -> tuple[str, Waiter] | None:
        """Return who should leave for another of a tenant: the last of who has most waiting.

        None where that is the tenant itself, or would be with one more.
        """
        most = max(self._waiting, key=lambda name: len(self._waiting[name]), default=tenant)
        own = len(self._waiting.get(tenant, ()))
        if own + 1 >= len(self._waiting.get(most, ())):
            return None
        return most, next(reversed(self._waiting[most]))
