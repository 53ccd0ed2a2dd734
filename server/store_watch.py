"""Store watch: whether Redis answers this gateway, for the metrics."""

import asyncio

from prometheus_client import Gauge

from loragen.errors import StoreUnavailable
from loragen.store import Store


async def watch_store(store: Store, is_up: Gauge, *, interval_seconds: float) -> None:
    """Ask Redis for a sign of life again and again, traffic or not; `is_up` is 1 while it answers.

    The gauge is given, because a process of tests holds many gateways.
    """
    while True:
        try:
            await store.ping()
        except StoreUnavailable:
            is_up.set(0)
        else:
            is_up.set(1)
        await asyncio.sleep(interval_seconds)
