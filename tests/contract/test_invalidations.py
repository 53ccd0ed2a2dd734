"""Invalidations reach every gateway that listens, also after Redis was away."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loragen import invalidations
from loragen.errors import StoreUnavailable
from loragen.invalidations import Invalidations, RedisInvalidations
from loragen.redis_client import connect
from tests.fakes.memory_invalidations import MemoryInvalidations
from tests.fakes.valkey import Valkey

Told = list[tuple[str, str]]


@asynccontextmanager
async def following(source: Invalidations, is_listening: Callable[[], bool]) -> AsyncIterator[Told]:
    """Follow for the length of a block; yields what was told."""
    told: Told = []
    task = asyncio.create_task(source.follow(lambda tenant, task: told.append((tenant, task))))
    try:
        await until(is_listening)
        yield told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


class InvalidationContract:
    """The checks; a subclass gives `source` and says when it listens."""

    async def test_followers_are_told_in_order(
        self, source: Invalidations, listeners: Callable[[], int]
    ) -> None:
        async with (
            following(source, lambda: listeners() == 1) as one,
            following(source, lambda: listeners() == 2) as other,
        ):
            for number in range(3):
                await source.publish("tenant", f"task_{number}")
            expected = [("tenant", f"task_{number}") for number in range(3)]
            await until(lambda: one == other == expected)
        await until(lambda: listeners() == 0)

    async def test_a_follower_is_told_that_it_may_have_missed_what_came_before(
        self, source: Invalidations
    ) -> None:
        missed = asyncio.Event()
        task = asyncio.create_task(source.follow(lambda *_: None, missed.set))
        async with asyncio.timeout(5):
            await missed.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def test_without_followers_nothing_happens(self, source: Invalidations) -> None:
        await source.publish("tenant", "task")


class TestMemoryInvalidations(InvalidationContract):
    """The fake."""

    @pytest.fixture
    def source(self) -> MemoryInvalidations:
        return MemoryInvalidations()

    @pytest.fixture
    def listeners(self, source: MemoryInvalidations) -> Callable[[], int]:
        return lambda: len(source.followers)


@pytest.mark.redis
class TestRedisInvalidations(InvalidationContract):
    """The real ones."""

    @pytest.fixture
    async def source(self, valkey: Valkey, namespace: str) -> AsyncIterator[RedisInvalidations]:
        client = connect(valkey.url, timeout_seconds=5)
        yield RedisInvalidations(client, namespace=namespace)
        await client.aclose()

    @pytest.fixture
    def listeners(self, valkey: Valkey, namespace: str) -> Callable[[], int]:
        return lambda: subscribers(valkey, namespace)

    @pytest.mark.parametrize("noise", [b"", b"[]", b"{}", b'{"tenant":"a"}', b"\xff"])
    async def test_what_is_no_message_is_passed_over(
        self,
        source: RedisInvalidations,
        listeners: Callable[[], int],
        valkey: Valkey,
        namespace: str,
        noise: bytes,
    ) -> None:
        async with following(source, lambda: listeners() == 1) as told:
            valkey.client.publish(f"{namespace}:invalidations", noise)
            await source.publish("tenant", "task")
            await until(lambda: told == [("tenant", "task")])


@pytest.mark.redis
async def test_after_redis_was_away_followers_are_told_again(tmp_path: Path) -> None:
    server = Valkey(tmp_path)
    client = connect(server.url, timeout_seconds=1)
    source = RedisInvalidations(client, namespace="x")
    try:
        async with following(source, lambda: subscribers(server, "x") == 1) as told:
            server.kill()
            with pytest.raises(StoreUnavailable):
                await source.publish("tenant", "lost")
            server.start()
            await until(lambda: subscribers(server, "x") == 1)
            await source.publish("tenant", "task")
            await until(lambda: told == [("tenant", "task")])
    finally:
        await client.aclose()
        server.kill()


@pytest.mark.redis
async def test_a_redis_that_is_silent_is_asked_and_one_that_does_not_answer_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidations, "SILENCE_SECONDS", 0.1)
    server = Valkey(tmp_path)
    client = connect(server.url, timeout_seconds=1)
    begun: list[None] = []
    source = RedisInvalidations(client, namespace="x")
    task = asyncio.create_task(source.follow(lambda *_: None, lambda: begun.append(None)))
    try:
        await until(lambda: len(begun) == 1)
        await asyncio.sleep(0.5)
        assert len(begun) == 1  # it answers
        server.signal(signal.SIGSTOP)
        await asyncio.sleep(0.5)
        server.signal(signal.SIGCONT)
        await until(lambda: len(begun) > 1)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()
        server.kill()


def subscribers(server: Valkey, namespace: str) -> int:
    """Return how many connections listen to a namespace's channel."""
    ((_, count),) = server.client.pubsub_numsub(f"{namespace}:invalidations")
    return int(count)
