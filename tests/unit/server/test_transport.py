"""Connections to workers: kept, used again, and given up when of no use; failures by name."""

import asyncio
import datetime
import ipaddress
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpcore
import httpx
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server import transport
from server.transport import _FAILURES, Transport

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BEGUN = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n"

Answer = Callable[["Peer", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Peer:
    """A server that answers every request by one function."""

    answer: Answer
    url: str = ""
    connections: int = 0
    open: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        await self.change(1)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await self.answer(self, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            await self.change(-1)

    async def change(self, by: int) -> None:
        async with self.changed:
            self.open += by
            self.changed.notify_all()

    async def wait_open(self, count: int) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: self.open == count)


async def whole(_: Peer, writer: asyncio.StreamWriter) -> None:
    writer.write(WHOLE)


async def begun(_: Peer, writer: asyncio.StreamWriter) -> None:
    writer.write(BEGUN)


async def last(_: Peer, writer: asyncio.StreamWriter) -> None:
    writer.write(WHOLE)
    writer.close()


async def slow(_: Peer, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.02)
    writer.write(WHOLE)


async def silent(_: Peer, writer: asyncio.StreamWriter) -> None:
    return None


async def hang_up(_: Peer, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def noise(_: Peer, writer: asyncio.StreamWriter) -> None:
    writer.write(b"no HTTP\r\n\r\n")


@asynccontextmanager
async def peer(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """Run a server until the block ends."""
    running = Peer(answer)
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    running.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield running
    finally:
        server.close()
        for writer in running.writers:
            writer.close()


@asynccontextmanager
async def client(ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=Transport(ssl_context), timeout=5) as running:
        yield running


async def test_one_request_after_the_other_takes_one_connection() -> None:
    async with peer(whole) as server, client() as http:
        for _ in range(5):
            assert (await http.get(server.url)).text == "ok"
        assert (server.connections, server.open) == (1, 1)
    await server.wait_open(0)  # the client's end closed it


async def test_requests_at_once_take_a_connection_each_and_the_next_use_them_again() -> None:
    async with peer(slow) as server, client() as http:
        for _ in range(3):
            replies = await asyncio.gather(*(http.get(server.url) for _ in range(8)))
            assert [reply.text for reply in replies] == ["ok"] * 8
        assert server.connections == 8


async def test_a_connection_that_the_worker_closed_is_not_used_again() -> None:
    async with peer(whole) as server, client() as http:
        await http.get(server.url)
        server.writers[0].close()
        await server.writers[0].wait_closed()
        assert (await http.get(server.url)).text == "ok"
        assert server.connections == 2


async def test_a_worker_that_ends_right_behind_its_answer_has_answered() -> None:
    async with peer(last) as server, client() as http:
        for asked in range(1, 4):
            async with http.stream("GET", server.url) as reply:
                await server.wait_open(0)  # so the end is there before the answer is read
                assert await reply.aread() == b"ok"
            assert server.connections == asked


async def test_what_nobody_used_for_a_while_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_KEPT_SECONDS", 0.01)
    async with peer(slow) as gone, peer(slow) as asked, client() as http:
        await asyncio.gather(*(http.get(gone.url) for _ in range(3)))
        await asyncio.sleep(0.02)
        await http.get(asked.url)
        await gone.wait_open(0)


async def test_several_requests_at_once_may_find_the_same_connections_unused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "_KEPT_SECONDS", 0.01)
    async with peer(slow) as gone, peer(slow) as asked, client() as http:
        await asyncio.gather(*(http.get(gone.url) for _ in range(3)))
        await asyncio.sleep(0.02)
        replies = await asyncio.gather(*(http.get(asked.url) for _ in range(5)))
        assert [reply.text for reply in replies] == ["ok"] * 5
        await gone.wait_open(0)


async def test_no_more_are_kept_than_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_KEPT", 2)
    async with peer(slow) as server, client() as http:
        await asyncio.gather(*(http.get(server.url) for _ in range(6)))
        await server.wait_open(2)


async def test_an_answer_that_is_not_read_to_its_end_ends_its_connection() -> None:
    async with peer(begun) as server, client() as http:
        async with http.stream("GET", server.url) as reply:
            assert await anext(reply.aiter_raw()) == b"first"
            assert server.open == 1
        await server.wait_open(0)


@pytest.mark.parametrize("answer", [silent, begun])
async def test_a_request_that_is_given_up_ends_its_connection(answer: Answer) -> None:
    async with peer(answer) as server, client() as http:
        asking = asyncio.create_task(http.get(server.url))
        await server.wait_open(1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await server.wait_open(0)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (silent, httpx.ReadTimeout),
        (begun, httpx.ReadTimeout),
        (hang_up, httpx.RemoteProtocolError),
        (noise, httpx.RemoteProtocolError),
    ],
)
async def test_a_worker_that_fails_is_named_as_httpx_names_it(
    answer: Answer, expected: type[Exception]
) -> None:
    async with peer(answer) as server, client() as http:
        with pytest.raises(expected):
            await http.get(server.url, timeout=0.05)
        await server.wait_open(0)


async def test_nobody_there_is_a_failure_to_connect() -> None:
    async with peer(whole) as server, client() as http:
        url = server.url
    async with client() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(url)


def test_a_worker_that_resets_connections_fails_as_httpx_names_it_on_uvloop_too() -> None:
    """There a write to a connection that was reset is a RuntimeError."""

    async def ask() -> set[str]:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(100)
            threading.Thread(target=reset_all, args=(listening,), daemon=True).start()
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            async with client() as http:
                found: list[object] = []
                for _ in range(10):
                    asked = [http.post(url, content=b"x" * 10) for _ in range(20)]
                    found += await asyncio.gather(*asked, return_exceptions=True)
        return {type(each).__name__ for each in found if not isinstance(each, httpx.TransportError)}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask()) == set()


def reset_all(listening: socket.socket) -> None:
    with suppress(OSError):
        while True:
            accepted, _ = listening.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()


def test_every_failure_of_the_network_has_its_name() -> None:
    """Those apart that cannot come: of proxies, of pools, and what others derive from."""
    bases = {httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError}
    absent = {httpcore.PoolTimeout, httpcore.ProxyError, httpcore.UnsupportedProtocol}
    found = {
        each
        for each in vars(httpcore).values()
        if isinstance(each, type) and issubclass(each, Exception) and each.__module__ == "httpcore"
    }
    unreached = {httpcore.ConnectionNotAvailable}
    assert set(_FAILURES) == found - bases - absent - unreached
    assert all(error.__name__ == known.__name__ for known, error in _FAILURES.items())


async def test_a_worker_behind_tls_is_reached_and_a_stranger_is_not(tmp_path: Path) -> None:
    served, trusted = certificate(tmp_path)
    async with peer(whole, served) as server:
        async with client(trusted) as http:
            for _ in range(2):
                assert (await http.get(server.url)).text == "ok"
            assert server.connections == 1
        async with client() as http:
            with pytest.raises(httpx.ConnectError):
                await http.get(server.url)


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what a server of 127.0.0.1 shows, and what a client needs to believe it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "worker")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    file = folder / "worker.pem"
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(pem))
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(file)
    return served, ssl.create_default_context(cafile=str(file))
