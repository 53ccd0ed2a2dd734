"""Store watch: whether Redis answers this gateway, for the metrics."""

import asyncio

from loragen import metrics
from loragen.errors import StoreUnavailable
from loragen.store import Store


async def watch_store(store: Store, *, interval_seconds: float) -> None:
    """Ask Redis for a sign of life again and again, traffic or not."""
    while True:
        try:
            await store.ping()
        except StoreUnavailable:
            metrics.STORE_UP.set(0)
        else:
            metrics.STORE_UP.set(1)
        await asyncio.sleep(interval_seconds)
