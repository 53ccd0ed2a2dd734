"""Lost connections end as one error of ours, or as none."""

import asyncio
import socket
import struct
from collections import Counter
from pathlib import Path

import pytest
import uvloop

from loragen.errors import StoreUnavailable
from loragen.redis_client import connect, mapped
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

CONNECTIONS = 8


async def test_connections_from_before_a_restart_of_redis_fail_no_call(tmp_path: Path) -> None:
    server = Valkey(tmp_path)
    client = connect(server.url, timeout_seconds=5.0)
    try:
        await asyncio.gather(*(client.blpop(["none"], timeout=0.2) for _ in range(CONNECTIONS)))
        server.kill()
        server.start()
        for _ in range(2 * CONNECTIONS):
            async with mapped():
                assert await client.set("key", "value")
    finally:
        await client.aclose()
        server.kill()


async def test_a_connection_that_holds_a_reply_nobody_read_serves_no_call(tmp_path: Path) -> None:
    server = Valkey(tmp_path)
    writers: list[asyncio.StreamWriter] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        above, below = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(_copy(reader, below), _copy(above, writer))

    async with await asyncio.start_server(pass_on, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        client = connect(f"redis://127.0.0.1:{port}/0", timeout_seconds=5.0)
        try:
            await client.set("key", "value")
            writers[0].write(b"$7\r\nanother\r\n")
            await asyncio.sleep(0.1)
            assert await client.get("key") == b"value"
            assert len(writers) == 2
        finally:
            await client.aclose()
            server.kill()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while read := await reader.read(4096):
        writer.write(read)
    writer.close()


def test_a_reset_connection_is_a_store_that_does_not_answer_on_uvloop_too() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcomes = runner.run(_ask_over_reset_connections())
    assert set(outcomes) <= {"answered", "StoreUnavailable"}
    assert outcomes["answered"]


async def _ask_over_reset_connections() -> Counter[str]:
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while read := await reader.read(4096):
            writer.write(b"+OK\r\n" * max(1, read.count(b"\r\n*") + 1))

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = connect(f"redis://127.0.0.1:{port}/0?protocol=2", timeout_seconds=2.0)
    outcomes = Counter[str]()
    for _ in range(5):
        try:
            async with mapped():
                await client.set("key", "value")
            outcomes["answered"] += 1
        except StoreUnavailable:
            outcomes["StoreUnavailable"] += 1
        for writer in writers:
            reset(writer)
        writers.clear()
        await asyncio.sleep(0.05)
    await client.aclose()
    server.close()
    return outcomes


def reset(writer: asyncio.StreamWriter) -> None:
    """Hang up with an RST instead of a FIN."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
