"""The chaos load sees what it looks for: foreign, wrong and malformed answers."""

import asyncio
import json
from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.chaos.canaries import Canary
from tests.chaos.tenants import Slot
from tests.chaos.traffic import Traffic
from tests.fakes.live import live, wait_until

OWN = Canary("Say amber.", "hi", "amber")
OTHER = Canary("Say coral.", "hi", "coral")
ERROR = {"error": {"message": "no", "type": "t", "param": None, "code": "c"}}


def answer(text: str) -> Callable[[bool], Response]:
    def reply(is_stream: bool) -> Response:
        headers = {"x-loragen-mode": "compiled"}
        if not is_stream:
            return JSONResponse({"choices": [{"message": {"content": text}}]}, headers=headers)
        chunk = json.dumps({"choices": [{"delta": {"content": text}}]})
        return PlainTextResponse(f"data: {chunk}\n\ndata: [DONE]\n\n", headers=headers)

    return reply


def kinds(reply: Callable[[bool], Response], slot: Slot, *, seconds: float = 0.0) -> set[str]:
    async def complete(request: Request) -> Response:
        await asyncio.sleep(seconds)
        return reply((await request.json())["stream"])

    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    with live(app) as server:
        traffic = Traffic(
            [server.url],
            [slot],
            foreign=frozenset({"amber", "coral"}),
            model="m",
            clients=2,
            timeout_seconds=0.2 if seconds else 20.0,
        )
        wait_until(lambda: traffic.requests >= (4 if seconds else 12), seconds=20)
        traffic.end()
    return set(traffic.kinds)


def slot_of(*canaries: Canary | None) -> Slot:
    slot = Slot("slot-0", "tenant-0", "key")
    for canary in canaries:
        slot.begin(canary)
        slot.acknowledge("task_1")
    return slot


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (answer("amber"), "right"),
        (answer("coral"), "foreign answer"),
        (answer("something"), "wrong answer"),
        (lambda _: JSONResponse(ERROR, 503), "error"),
        (lambda _: JSONResponse({"detail": "no"}, 503), "malformed"),
        (lambda _: JSONResponse(ERROR, 404), "malformed"),  # the task is there
        (lambda _: JSONResponse(ERROR, 400), "malformed"),  # nothing is wrong with the request
        (lambda _: PlainTextResponse("data: {", headers={"x-loragen-mode": "x"}), "malformed"),
    ],
)
def test_every_kind_is_told_from_the_others(
    reply: Callable[[bool], Response], expected: str
) -> None:
    assert kinds(reply, slot_of(OWN)) == {expected}


def test_an_answer_that_does_not_come_hangs() -> None:
    assert kinds(answer("amber"), slot_of(OWN), seconds=0.5) == {"hung"}


def test_a_stream_may_end_with_an_error() -> None:
    def reply(is_stream: bool) -> Response:
        if is_stream:
            return PlainTextResponse(f"data: {json.dumps(ERROR)}\n\n")
        return JSONResponse(ERROR, 502)

    assert kinds(reply, slot_of(OWN)) == {"error", "error event"}


def test_an_earlier_prompt_may_answer_for_a_moment_and_a_foreign_one_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.chaos.tenants.PROPAGATION_SECONDS", 60.0)
    assert kinds(answer("coral"), slot_of(OTHER, OWN)) == {"right"}
    third = Canary("Say gold.", "hi", "gold")
    assert kinds(answer("coral"), slot_of(third, OWN)) == {"foreign answer"}


def test_near_an_edit_a_text_of_no_prompt_is_neither_right_nor_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.chaos.tenants.PROPAGATION_SECONDS", 60.0)
    assert kinds(answer("something"), slot_of(OTHER, OWN)) == {"during an edit"}
    assert kinds(answer("something"), slot_of(None, OWN)) == {"during an edit"}
    monkeypatch.setattr("tests.chaos.tenants.PROPAGATION_SECONDS", -1.0)
    assert kinds(answer("something"), slot_of(OTHER, OWN)) == {"wrong answer"}


def test_what_a_name_stood_for_long_ago_may_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.chaos.tenants.PROPAGATION_SECONDS", -1.0)
    assert kinds(answer("coral"), slot_of(OTHER, OWN)) == {"foreign answer"}
