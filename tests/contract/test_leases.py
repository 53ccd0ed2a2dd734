"""Leases keep one contract, with Redis and without."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loragen.errors import StoreUnavailable
from loragen.leases import RedisLeases, hold
from loragen.redis_client import connect
from tests.contract.lease_contract import NAME, LeaseContract
from tests.fakes.memory_leases import MemoryLeases
from tests.fakes.valkey import Valkey


class TestMemoryLeases(LeaseContract):
    """The fake."""

    @pytest.fixture
    def leases(self) -> MemoryLeases:
        """Leases that nobody holds."""
        return MemoryLeases()

    async def test_a_short_loss_of_redis_loses_no_lease(self, leases: MemoryLeases) -> None:
        async with hold(leases, NAME, seconds=1.5):
            leases.is_away = True
            await asyncio.sleep(0.6)
            leases.is_away = False
            await asyncio.sleep(1.5)
            assert not await leases.acquire(NAME, "other", seconds=5)


@pytest.mark.redis
class TestRedisLeases(LeaseContract):
    """The real ones."""

    @pytest.fixture
    async def leases(self, valkey: Valkey, namespace: str) -> AsyncIterator[RedisLeases]:
        """Leases in a namespace of their own."""
        client = connect(valkey.url, timeout_seconds=5)
        yield RedisLeases(client, namespace=namespace)
        await client.aclose()

    async def test_every_lease_has_a_time_to_live(
        self, leases: RedisLeases, valkey: Valkey, namespace: str
    ) -> None:
        async with hold(leases, NAME):
            (key,) = valkey.client.scan_iter(f"{namespace}:*")
            assert 0 < int(str(valkey.client.pttl(key))) <= 5_000


@pytest.mark.redis
async def test_without_redis_there_is_no_lease_and_none_is_lost_for_ever(tmp_path: Path) -> None:
    server = Valkey(tmp_path)
    client = connect(server.url, timeout_seconds=1)
    leases = RedisLeases(client, namespace="x")
    try:
        async with hold(leases, NAME):
            server.kill()
        with pytest.raises(StoreUnavailable):
            await hold(leases, NAME).__aenter__()
        server.start()
        async with hold(leases, NAME):
            pass
    finally:
        await client.aclose()
        server.kill()


class _Deaf(MemoryLeases):
    """Loses the first cancellation of a renewal, as redis-py can under load."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0
        self.is_renewing = asyncio.Event()

    async def renew(self, name: str, token: str, *, seconds: float) -> bool:
        self.is_renewing.set()
        if not self.lost:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.lost += 1
        return await super().renew(name, token, seconds=seconds)


async def test_a_lost_cancellation_holds_nobody_up() -> None:
    leases = _Deaf()
    async with asyncio.timeout(30):
        async with hold(leases, NAME, seconds=1.5):
            await leases.is_renewing.wait()
    assert leases.lost == 1
    assert await leases.acquire(NAME, "other", seconds=5)


class _Late(MemoryLeases):
    """Takes a lease at once and replies late."""

    def __init__(self) -> None:
        super().__init__()
        self.has_taken = asyncio.Event()

    async def acquire(self, name: str, token: str, *, seconds: float) -> bool:
        is_taken = await super().acquire(name, token, seconds=seconds)
        self.has_taken.set()
        await asyncio.sleep(60)
        return is_taken


async def test_who_leaves_before_the_reply_leaves_no_lease() -> None:
    leases = _Late()
    waiting = asyncio.create_task(hold(leases, NAME).__aenter__())
    await leases.has_taken.wait()
    assert await leases.held([NAME]) == {NAME}
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    assert await leases.held([NAME]) == set()
