"""Invalidations without Redis, between the gateways of this process."""

import asyncio

from loragen.errors import StoreUnavailable
from loragen.invalidations import Forget, Missed, nothing


class MemoryInvalidations:
    """Calls every follower at once; `is_away` makes it fail like a lost Redis."""

    def __init__(self) -> None:
        self.followers: list[Forget] = []
        self.is_away = False

    async def publish(self, tenant: str, task_id: str) -> None:
        """Tell every gateway that listens."""
        if self.is_away:
            raise StoreUnavailable("the task store does not answer", retry_after=1.0)
        for forget in self.followers:
            forget(tenant, task_id)

    async def follow(self, forget: Forget, missed: Missed = nothing) -> None:
        """Call `forget` for every message until cancelled."""
        self.followers.append(forget)
        missed()
        try:
            await asyncio.Event().wait()
        finally:
            self.followers.remove(forget)
