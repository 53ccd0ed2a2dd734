"""The gateway's client of the router service: every answer it may get, and none at all."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loragen.errors import (
    DeadlineExceeded,
    GeneratorUnavailable,
    InvalidRequest,
    LoragenError,
    Overloaded,
    PromptTooLong,
    RequestTooLarge,
)
from loragen.wire import CompileRequest
from server.generator import HttpGenerator
from tests.fakes.live import LiveServer, live
from tests.fakes.stub_generator import recipe_of, reply_of

REQUEST = CompileRequest(edge_model="demo", prompt="You are Ada. 🦊")
REPLY = reply_of(recipe_of(REQUEST.prompt))


@dataclass
class Service:
    """A router service that answers as told."""

    status: int = 200
    content: bytes = REPLY.model_dump_json().encode()
    """Before the request's id is put into it."""
    request_id: str | None = None
    """Of the reply; that of its request by default."""
    asked: bytes = b""
    authorization: str | None = None

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/compile", self._compile, methods=["POST"])])

    async def _compile(self, request: Request) -> Response:
        self.asked = await request.body()
        self.authorization = request.headers.get("authorization")
        request_id = self.request_id
        if request_id is None:
            request_id = json.loads(self.asked)["request_id"]
        content = self.content.replace(b'"request_id":""', f'"request_id":"{request_id}"'.encode())
        return Response(content, status_code=self.status, media_type="application/json")


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Service, LiveServer]]:
    """One service for all tests; use `service`."""
    told = Service()
    with live(told.app) as server:
        yield told, server


@pytest.fixture
def service(running: tuple[Service, LiveServer]) -> Service:
    """A service that answers well until told otherwise."""
    running[0].__init__()  # type: ignore[misc]
    return running[0]


async def compile_at(url: str, **options: Any) -> Any:
    generator = HttpGenerator(
        url, **{"secret": "s", "timeout_seconds": 5, "refine_timeout_seconds": 5, **options}
    )
    try:
        return await generator.compile(REQUEST)
    finally:
        await generator.close()


async def test_a_prompt_goes_out_with_the_secret_and_a_recipe_comes_back(
    service: Service, running: tuple[Service, LiveServer]
) -> None:
    reply = await compile_at(running[1].url)
    asked = json.loads(service.asked)
    assert reply == REPLY.model_copy(update={"request_id": asked.pop("request_id")})
    assert asked == {"edge_model": "demo", "prompt": REQUEST.prompt}
    assert service.authorization == "Bearer s"
    await compile_at(running[1].url, secret=None)
    assert service.authorization is None


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, PromptTooLong("x").body(), PromptTooLong),
        (400, InvalidRequest("x", param="request_id").body(), GeneratorUnavailable),
        (400, {"error": "x"}, LoragenError),
        (413, RequestTooLarge("x").body(), PromptTooLong),
        (503, Overloaded("x").body(), Overloaded),
        (503, GeneratorUnavailable("x").body(), GeneratorUnavailable),
        (504, DeadlineExceeded("x").body(), DeadlineExceeded),
        (500, LoragenError("x").body(), LoragenError),
        (401, {"error": {"message": "x", "code": "invalid_api_key"}}, LoragenError),
        (502, {}, GeneratorUnavailable),
        (503, [], GeneratorUnavailable),
        (404, {"error": "x"}, LoragenError),
        (200, {}, LoragenError),
        (200, {**REPLY.model_dump(), "level": 7}, LoragenError),
        (200, {**REPLY.model_dump(), "unknown": 1}, LoragenError),
    ],
)
async def test_each_refusal_keeps_its_meaning(
    service: Service,
    running: tuple[Service, LiveServer],
    status: int,
    error: Any,
    kind: type[LoragenError],
) -> None:
    service.status, service.content = status, json.dumps(error).encode()
    with pytest.raises(LoragenError) as caught:
        await compile_at(running[1].url)
    assert type(caught.value) is kind


async def test_a_reply_to_another_request_is_no_recipe(
    service: Service, running: tuple[Service, LiveServer]
) -> None:
    def misdirected() -> float:
        labels = {"source": "generator"}
        return REGISTRY.get_sample_value("loragen_misdirected_replies_total", labels) or 0.0

    before = misdirected()
    for other in ("0" * 32, ""):
        service.request_id = other
        with pytest.raises(LoragenError, match="another request"):
            await compile_at(running[1].url)
    assert misdirected() == before + 2


async def test_a_page_that_is_no_json_is_a_failed_compile(
    service: Service, running: tuple[Service, LiveServer]
) -> None:
    for status in (200, 500):
        service.status, service.content = status, b"<html>\xff"
        with pytest.raises(LoragenError) as caught:
            await compile_at(running[1].url)
        assert type(caught.value) is LoragenError


@pytest.mark.parametrize("cooldown", [0.0, 60.0])
async def test_a_service_that_is_gone_is_left_alone_for_a_moment_and_found_again(
    cooldown: float,
) -> None:
    service = Service()
    with live(service.app) as server:
        generator = HttpGenerator(
            server.url,
            secret=None,
            timeout_seconds=5,
            refine_timeout_seconds=5,
            cooldown_seconds=cooldown,
        )
        server.kill()
        with pytest.raises(GeneratorUnavailable):
            await generator.compile(REQUEST)
        server.start()
        if cooldown:
            with pytest.raises(GeneratorUnavailable) as resting:
                await generator.compile(REQUEST)
            assert resting.value.retry_after == cooldown
            assert service.asked == b""
        else:
            assert (await generator.compile(REQUEST)).recipe_id == REPLY.recipe_id
        await generator.close()
