"""Clients that send or read too slowly, or heads without end: hung up on, and others served."""

import json
import socket
from collections.abc import Iterator

import pytest

from server.patience import MAX_HEAD_BYTES
from tests.fakes.gateway import MODEL, Gateway, gateway, redis_store
from tests.fakes.live import wait_until
from tests.fakes.raw_client import connect, error_in, rest_of
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

PATIENCE = 0.5
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}).encode()
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n" % len(BODY)
)


@pytest.fixture
def hasty(valkey: Valkey, namespace: str) -> Iterator[Gateway]:
    """A gateway with little patience."""
    server = {"client_timeout_seconds": PATIENCE}
    with gateway(redis_store(valkey.url, namespace), namespace, server=server) as running:
        yield running


def trickle(client: socket.socket, data: bytes) -> bytes:
    """Send a byte at a time until the server hangs up; return what it said."""
    client.settimeout(PATIENCE / 10)
    for at in range(len(data)):
        try:
            client.sendall(data[at : at + 1])
            if said := client.recv(1 << 16):
                return said + rest_of(client)
            return b""
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            return b""
    raise AssertionError("it waits for ever")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(HEAD, id="a head that does not end"),
        pytest.param(HEAD + b"\r\n", id="no body"),
        pytest.param(HEAD + b"\r\n" + BODY[:-1], id="a body without its last byte"),
    ],
)
def test_a_request_that_does_not_end_is_a_408(hasty: Gateway, sent: bytes) -> None:
    with connect(hasty.server) as client:
        client.sendall(sent)
        assert error_in(rest_of(client)) == (408, "request_timeout")
    assert hasty.ask("hi").status_code == 200
    assert len(hasty.worker.seen) == 1


@pytest.mark.parametrize(
    "begin", [pytest.param(b"", id="head"), pytest.param(HEAD + b"\r\n", id="body")]
)
def test_a_byte_now_and_then_does_not_keep_it_waiting(hasty: Gateway, begin: bytes) -> None:
    endless = b"GET /" + b"x" * 10_000 if not begin else b" " * 10_000
    with connect(hasty.server) as client:
        client.sendall(begin)
        assert error_in(trickle(client, endless))[0] in (400, 408)
    assert hasty.ask("hi").status_code == 200


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"])
def test_a_connection_without_a_request_is_closed_without_a_word(
    hasty: Gateway, sent: bytes
) -> None:
    with connect(hasty.server) as client:
        client.sendall(sent)
        assert rest_of(client) == b""


def test_another_request_of_a_connection_has_its_own_time(hasty: Gateway) -> None:
    with connect(hasty.server) as client:
        for _ in range(3):
            client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b'{"status":"ok"}'):
                answer += client.recv(1 << 16)
        client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n")
        assert error_in(rest_of(client)) == (408, "request_timeout")


def test_a_connection_may_rest_between_requests(hasty: Gateway) -> None:
    with connect(hasty.server) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b'{"status":"ok"}'):
            answer += client.recv(1 << 16)
        client.settimeout(3 * PATIENCE)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_a_slow_answer_is_no_slow_client(hasty: Gateway) -> None:
    hasty.worker.hold = True
    with connect(hasty.server) as client:
        client.sendall(HEAD + b"\r\n" + BODY)
        wait_until(lambda: hasty.worker.held)
        client.settimeout(3 * PATIENCE)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.sendall(b"\r\n")  # some clients end their bodies so
        with pytest.raises(TimeoutError):
            client.recv(1)
        hasty.worker.hold = False
        client.settimeout(30)
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_a_head_without_end_is_a_431(gate: Gateway) -> None:
    head = b"GET /health HTTP/1.1\r\nx-filler: "
    with connect(gate.server) as client:
        client.sendall(head + b"x" * (MAX_HEAD_BYTES - len(head)))
        client.sendall(b"x")
        assert error_in(rest_of(client)) == (431, "request_too_large")
    assert gate.http.get("/health").status_code == 200


@pytest.mark.parametrize(
    "sent", [b"hello\r\n\r\n", b"\x16\x03\x01\x00\xa5", b"GET / HTTP/9\r\n\r\n"]
)
def test_what_is_not_http_is_a_400_in_the_one_shape(gate: Gateway, sent: bytes) -> None:
    with connect(gate.server) as client:
        client.sendall(sent)
        assert error_in(rest_of(client)) == (400, "invalid_request")


def test_a_client_that_does_not_read_holds_neither_memory_nor_its_worker(hasty: Gateway) -> None:
    words, size = 3_000, 20_000
    hasty.worker.max_words = hasty.worker.max_model_len = 2 * words
    hasty.worker.tail = (" " + "x" * size) * words
    body = json.dumps(
        {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    ).encode()
    head = HEAD.replace(b"%d" % len(BODY), b"%d" % len(body))
    with connect(hasty.server, SO_RCVBUF=4_096) as client:
        client.sendall(head + b"\r\n" + body)
        wait_until(lambda: hasty.worker.streamed)
        wait_until(
            lambda: (
                hasty.metric("loragen_worker_requests_inflight", worker=hasty.worker_server.url)
                == 0
            ),
            seconds=30,
        )
        assert hasty.worker.streamed < words
    assert hasty.ask("hi", max_tokens=1).status_code == 200


def test_a_client_that_reads_slowly_but_reads_gets_all(hasty: Gateway) -> None:
    hasty.worker.tail = (" " + "x" * 100) * 20
    hasty.worker.pause_seconds = PATIENCE / 5
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with hasty.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert list(answer.iter_lines())[-2] == "data: [DONE]"
