"""Draining: everything under way ends in order, whatever it is."""

import asyncio
import json
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loragen.drain import Drain
from server.drain import DrainMiddleware

HTTP: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}


class Exchange:
    """One request to an application behind a drain."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self.sent: list[Message] = []
        self._app = DrainMiddleware(app, drain=drain)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self._app(dict(HTTP), self._receive, self._send)

    async def _receive(self) -> Message:
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def is_complete(self) -> bool:
        last = self.sent[-1]
        return last["type"] == "http.response.body" and not last.get("more_body", False)


def answering(
    *chunks: bytes, content_type: bytes = b"text/event-stream", ends: bool = False
) -> ASGIApp:
    """Return an application that sends a start and chunks, and then hangs."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", content_type)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if not ends:
            await asyncio.Event().wait()
        await send({"type": "http.response.body", "body": b""})

    return app


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


def error_in(data: bytes) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(data)["error"]
    return error


async def begun(exchange: Exchange) -> None:
    async with asyncio.timeout(5):
        while not exchange.sent:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)


async def test_what_ends_in_time_is_left_alone() -> None:
    drain = Drain()
    drain.begin(seconds=5)
    exchange = Exchange(answering(b"data: 1\n\n", ends=True), drain)
    await exchange.task
    assert exchange.body == b"data: 1\n\n"
    assert exchange.is_complete


async def test_a_stream_under_way_ends_with_an_error_event() -> None:
    drain = Drain()
    exchange = Exchange(answering(b"data: 1\n\n"), drain)
    await begun(exchange)
    drain.begin(seconds=0.01)
    await exchange.task
    first, last = exchange.body.split(b"\n\n")[:2]
    assert first == b"data: 1"
    assert error_in(last.removeprefix(b"data: "))["code"] == "unavailable"
    assert b"[DONE]" not in exchange.body
    assert exchange.is_complete


async def test_a_request_without_an_answer_yet_gets_503() -> None:
    drain = Drain()
    exchange = Exchange(silent, drain)
    await asyncio.sleep(0)
    drain.begin(seconds=0.01)
    await exchange.task
    assert exchange.sent[0]["status"] == 503
    assert dict(exchange.sent[0]["headers"])[b"retry-after"] == b"1"
    assert error_in(exchange.body)["type"] == "server_error"
    assert exchange.is_complete


async def test_what_comes_while_draining_has_the_same_deadline_and_is_asked_to_leave() -> None:
    drain = Drain()
    drain.begin(seconds=0.02)
    exchange = Exchange(answering(b"data: 1\n\n"), drain)
    await exchange.task
    assert dict(exchange.sent[0]["headers"])[b"connection"] == b"close"
    assert b'"error"' in exchange.body


async def test_half_an_answer_that_is_no_stream_is_not_made_to_look_whole() -> None:
    drain = Drain()
    exchange = Exchange(answering(b'{"half":', content_type=b"application/json"), drain)
    await begun(exchange)
    drain.begin(seconds=0.01)
    await exchange.task
    assert not exchange.is_complete


async def test_a_timeout_of_the_application_is_not_taken_for_the_drain() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await Exchange(app, Drain()).task
