import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.datastructures import Headers
from starlette.types import Message

from loragen.errors import RecipeInvalid, RecipeMismatch
from workers.middleware import KeyMiddleware, RecipeMiddleware


class FakeIntake:
    """Takes the texts "good" and "large..."; remembers what is being served."""

    def __init__(self) -> None:
        self.serving: str | None = None

    @contextmanager
    def admit(self, text: str) -> Iterator[None]:
        if text == "elsewhere":
            raise RecipeMismatch("another pool")
        if text != "good" and not text.startswith("large"):
            raise RecipeInvalid("garbage")
        self.serving = text
        yield
        self.serving = None

    def turn(self, admitted: None, /) -> AbstractAsyncContextManager[None] | None:
        return None


class FakeLine(FakeIntake):
    """One where a request waits until the line lets it in; remembers whom it has."""

    def __init__(self) -> None:
        super().__init__()
        self.opens = asyncio.Event()
        self.steps: list[str] = []

    @asynccontextmanager
    async def turn(self, admitted: None, /) -> AsyncIterator[None]:
        self.steps.append("waits")
        try:
            await self.opens.wait()
        except asyncio.CancelledError:
            self.steps.append("gives up")
            raise
        self.steps.append("in")
        yield
        self.steps.append("out")


def make_app(intake: FakeIntake | None = None) -> FastAPI:
    app = FastAPI()
    app.state.recipe_intake = intake or FakeIntake()

    @app.post("/v1/echo")
    async def echo(request: Request) -> dict[str, Any]:
        body = await request.body()
        return {
            "body": body.decode(),
            "length": request.headers.get("content-length"),
            "serving": app.state.recipe_intake.serving,
        }

    @app.get("/health")
    async def health() -> dict[str, str | None]:
        return {"serving": app.state.recipe_intake.serving}

    app.add_middleware(RecipeMiddleware)

    def verify(headers: Headers) -> bool:
        return headers.get("authorization") == "Bearer key"

    app.add_middleware(KeyMiddleware, verify=verify)
    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=make_app())
    headers = {"authorization": "Bearer key"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://worker", headers=headers
    ) as client:
        yield client


async def test_a_request_without_recipe_passes_untouched(client: httpx.AsyncClient) -> None:
    reply = (await client.post("/v1/echo", content=b'{"a":  1}')).json()
    assert reply == {"body": '{"a":  1}', "length": "9", "serving": None}


async def test_a_header_brings_a_recipe_for_the_time_of_the_request(
    client: httpx.AsyncClient,
) -> None:
    reply = await client.post("/v1/echo", json={"a": 1}, headers={"x-lora-recipe": "good"})
    assert reply.json()["serving"] == "good"
    assert (await client.get("/health")).json() == {"serving": None}


async def test_a_body_field_brings_a_large_recipe_and_is_popped(client: httpx.AsyncClient) -> None:
    text = "large" + "A" * 50_000
    reply = (await client.post("/v1/echo", json={"a": "ü", "loragen_recipe": text})).json()
    assert reply["serving"] == text
    assert json.loads(reply["body"]) == {"a": "ü"}
    assert int(reply["length"]) == len(reply["body"])


async def test_the_fields_name_inside_a_message_is_only_text(client: httpx.AsyncClient) -> None:
    content = json.dumps({"messages": ["say loragen_recipe"]})
    reply = (await client.post("/v1/echo", content=content)).json()
    assert reply["body"] == content
    assert reply["serving"] is None


@pytest.mark.parametrize("content", ['{"loragen_recipe": ', '["loragen_recipe"]'])
async def test_what_is_no_json_object_is_left_to_vllm(
    client: httpx.AsyncClient, content: str
) -> None:
    assert (await client.post("/v1/echo", content=content)).json()["body"] == content


@pytest.mark.parametrize(
    ("headers", "fields", "status", "code"),
    [
        ({"x-lora-recipe": "junk"}, {}, 400, "recipe_invalid"),
        ({"x-lora-recipe": ""}, {}, 400, "recipe_invalid"),
        ({"x-lora-recipe": "elsewhere"}, {}, 409, "pool_version_mismatch"),
        ({"x-lora-recipe": "large" * 2_000}, {}, 400, "recipe_invalid"),
        ({}, {"loragen_recipe": "junk"}, 400, "recipe_invalid"),
        ({}, {"loragen_recipe": None}, 400, "recipe_invalid"),
        ({}, {"loragen_recipe": 7}, 400, "recipe_invalid"),
        ({}, {"loragen_recipe": "elsewhere"}, 409, "pool_version_mismatch"),
        ({"x-lora-recipe": "good"}, {"loragen_recipe": "good"}, 400, "invalid_request"),
    ],
)
async def test_a_bad_recipe_is_refused_as_an_openai_error(
    client: httpx.AsyncClient,
    headers: dict[str, str],
    fields: dict[str, object],
    status: int,
    code: str,
) -> None:
    reply = await client.post("/v1/echo", json=fields, headers=headers)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert reply.json()["error"]["code"] == code


async def test_two_recipes_in_headers_are_refused(client: httpx.AsyncClient) -> None:
    headers = [("x-lora-recipe", "good"), ("x-lora-recipe", "good")]
    reply = await client.post("/v1/echo", json={}, headers=headers)
    assert reply.status_code == 400


async def test_the_key_comes_before_the_recipe(client: httpx.AsyncClient) -> None:
    headers = {"authorization": "Bearer wrong", "x-lora-recipe": "junk"}
    reply = await client.post("/v1/echo", json={}, headers=headers)
    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == "invalid_api_key"


async def test_health_needs_no_key(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health", headers={"authorization": ""})).status_code == 200


class Caller:
    """A request with a recipe as its server hands it to the application: it may leave."""

    def __init__(self, intake: FakeLine) -> None:
        self.left = asyncio.Event()
        self.sent: list[Message] = []
        self._body: list[Message] = [{"type": "http.request", "body": b"{}", "more_body": False}]
        scope = {
            "type": "http", "method": "POST", "path": "/v1/echo", "raw_path": b"/v1/echo",
            "query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1",
            "headers": [(b"authorization", b"Bearer key"), (b"x-lora-recipe", b"good")],
        }  # fmt: skip
        self.task = asyncio.create_task(make_app(intake)(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._body:
            return self._body.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)


async def test_a_request_is_served_in_its_turn() -> None:
    line = FakeLine()
    caller = Caller(line)
    await asyncio.sleep(0.01)
    assert line.steps == ["waits"]
    line.opens.set()
    await caller.task
    assert line.steps == ["waits", "in", "out"]
    assert caller.sent[0]["status"] == 200


async def test_who_leaves_the_line_gives_its_place_up_and_gets_no_answer() -> None:
    """Else clients that are gone would be let in before those that wait."""
    line = FakeLine()
    caller = Caller(line)
    await asyncio.sleep(0.01)
    caller.left.set()
    await asyncio.wait_for(caller.task, 1)
    await asyncio.sleep(0)
    assert line.steps == ["waits", "gives up"]
    assert line.serving is None
    assert caller.sent == []


async def test_a_request_that_is_cut_off_in_the_line_gives_its_place_up() -> None:
    line = FakeLine()
    caller = Caller(line)
    await asyncio.sleep(0.01)
    caller.task.cancel()
    await asyncio.gather(caller.task, return_exceptions=True)
    await asyncio.sleep(0)
    assert line.steps == ["waits", "gives up"]
