"""Conversations keep one contract, with Redis and without."""

from collections.abc import AsyncIterator

import pytest

from loragen.conversations import Conversations, RedisConversations
from loragen.errors import StoreUnavailable
from loragen.redis_client import connect
from tests.fakes.memory_conversations import MemoryConversations
from tests.fakes.valkey import Valkey


class ConversationsContract:
    """The checks."""

    async def test_what_is_remembered_is_known(self, conversations: Conversations) -> None:
        assert not await conversations.is_remembered(["a"])
        await conversations.remember(["a", "b"])
        await conversations.remember([])
        asked = (["a"], ["b"], ["c"], ["c", "a"])
        known = [await conversations.is_remembered(keys) for keys in asked]
        assert known == [True, True, False, True]


class TestMemoryConversations(ConversationsContract):
    """The fake."""

    @pytest.fixture
    def conversations(self) -> MemoryConversations:
        """No conversation."""
        return MemoryConversations()

    async def test_memory_ends_with_its_time(self) -> None:
        now = 0.0
        conversations = MemoryConversations(ttl_seconds=10, clock=lambda: now)
        await conversations.remember(["a"])
        now = 9
        await conversations.remember(["a"])
        now = 18
        assert await conversations.is_remembered(["a"])
        now = 19
        assert not await conversations.is_remembered(["a"])


@pytest.mark.redis
class TestRedisConversations(ConversationsContract):
    """The real ones."""

    @pytest.fixture
    async def conversations(
        self, valkey: Valkey, namespace: str
    ) -> AsyncIterator[RedisConversations]:
        """No conversation, in a namespace of their own."""
        client = connect(valkey.url, timeout_seconds=5)
        yield RedisConversations(client, namespace=namespace, ttl_seconds=30)
        await client.aclose()

    async def test_every_key_ends_by_itself(
        self, conversations: RedisConversations, valkey: Valkey, namespace: str
    ) -> None:
        await conversations.remember(["a"])
        (key,) = valkey.client.scan_iter(f"{namespace}:*")
        valkey.client.expire(key, 9)
        await conversations.remember(["a"])
        assert 9 < int(str(valkey.client.ttl(key))) <= 30

    async def test_no_redis_means_unavailable(self) -> None:
        client = connect("redis://127.0.0.1:1", timeout_seconds=1)
        away = RedisConversations(client, namespace="x", ttl_seconds=30)
        for call in (away.remember(["a"]), away.is_remembered(["a"])):
            with pytest.raises(StoreUnavailable):
                await call
        await client.aclose()
