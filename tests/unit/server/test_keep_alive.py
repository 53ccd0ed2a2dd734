"""Comments fill the silences of a stream, and come nowhere else."""

import asyncio

from starlette.types import Message

from server.keep_alive import KeepAlive

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
COMMENT = b": keep-alive\n\n"


def part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


class Client:
    """Takes what is sent, unless told to be slow."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self._came = asyncio.Condition()
        self.is_reading = asyncio.Event()
        self.is_reading.set()

    async def send(self, message: Message) -> None:
        await self.is_reading.wait()
        async with self._came:
            self.seen.append(message.get("body", b"start"))
            self._came.notify_all()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(5), self._came:
            await self._came.wait_for(lambda: len(self.seen) >= count)


async def test_every_silence_is_filled_until_the_stream_goes_on() -> None:
    client = Client()
    steady = KeepAlive(client.send, seconds=0.005)
    async with steady.running():
        await steady(START)
        await steady(part(b"one"))
        await client.wait_for(4)
        await steady(part(b"two"))
    assert client.seen[:4] == [b"start", b"one", COMMENT, COMMENT]
    assert [seen for seen in client.seen if seen != COMMENT] == [b"start", b"one", b"two"]


async def test_nothing_comes_before_the_start_or_after_the_end() -> None:
    client = Client()
    steady = KeepAlive(client.send, seconds=0.002)
    async with steady.running():
        await asyncio.sleep(0.02)
        assert client.seen == []
        await steady(START)
        await steady(part(b"all", more=False))
        await asyncio.sleep(0.02)
    assert client.seen == [b"start", b"all"]


async def test_a_stream_without_silence_has_no_comment() -> None:
    client = Client()
    steady = KeepAlive(client.send, seconds=60)
    async with steady.running():
        await steady(START)
        for _ in range(50):
            await steady(part(b"token"))
    assert client.seen == [b"start", *[b"token"] * 50]


async def test_a_client_that_does_not_read_is_sent_nothing_more() -> None:
    client = Client()
    steady = KeepAlive(client.send, seconds=0.002)
    async with steady.running():
        await steady(START)
        client.is_reading.clear()
        sending = asyncio.create_task(steady(part(b"one")))
        await asyncio.sleep(0.02)
        client.is_reading.set()
        await sending
        assert client.seen.index(b"one") == len(client.seen) - 1
        assert client.seen.count(COMMENT) <= 1  # the one that came before the event, if any


async def test_it_ends_with_its_block() -> None:
    client = Client()
    steady = KeepAlive(client.send, seconds=0.002)
    async with steady.running():
        await steady(START)
        await client.wait_for(2)
    said = len(client.seen)
    await asyncio.sleep(0.02)
    assert len(client.seen) == said
