"""Targets: what reads bytes from outside, each with what must hold of whatever bytes.

A target takes bytes and raises if something does not hold. `SEEDS` are bytes to begin with.
"""

import asyncio
import contextlib
import json
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ValidationError
from starlette.types import Message, Receive, Scope, Send

from loragen.api_key import ApiKey
from loragen.errors import InvalidRequest, LoragenError, RecipeInvalid
from loragen.own_template import OwnTemplate
from loragen.recipe import GateDtype, Level, Recipe
from loragen.template import CompiledTemplate
from loragen.tools import (
    canonical_tools,
    compile_text,
    dump_tools,
    load_tools,
    same_tools,
    try_parse_tools,
)
from loragen.wire import (
    COMPILED_SWITCH,
    RECIPE_FIELD,
    CompileReply,
    CompileRequest,
    HeadList,
    MeasureReply,
    MeasureRequest,
    RefineReply,
    RefineRequest,
    WorkerInfo,
)
from server.answer import Provenance, Stopwatch, relay
from server.authentication import bearer_token
from server.http_errors import explain_validation
from server.reference import TaskReference
from server.requests import ChatRequest, CompletionRequest, CreateTaskRequest
from server.response_request import ResponsesRequest
from server.transfer import TaskLine
from tests.fuzz.growth import Growth
from workers.middleware import RecipeMiddleware

Target = Callable[[bytes], None]

POOL_ID: Final = "ab" * 32
GOOD: Final = Recipe.encode(
    np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4), pool_id=POOL_ID, level=Level.DENSE
)
_OWN: Final = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_COMPILED: Final = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


def recipe_bytes(data: bytes) -> None:
    """Bytes are a recipe in its one spelling, or refused."""
    try:
        recipe = Recipe.decode(data)
    except RecipeInvalid:
        return
    assert recipe.data == data
    assert np.isfinite(recipe.gates).all()
    again = Recipe.encode(
        recipe.gates, pool_id=recipe.pool_id, level=recipe.level, dtype=recipe.dtype
    )
    assert again.id == recipe.id
    assert Recipe.from_text(recipe.text) == recipe


def recipe_text(data: bytes) -> None:
    """A text is a recipe in its one spelling, or refused."""
    text = data.decode("latin-1")
    try:
        recipe = Recipe.from_text(text)
    except RecipeInvalid:
        return
    assert recipe.text == text


def worker_request(data: bytes) -> None:
    """A worker serves a request without its recipe field, or refuses it; it never fails."""
    head, _, body = data.partition(b"\n")
    headers = [(b"x-lora-recipe", line) for line in head.split(b"\t") if line]
    seen, status = asyncio.run(_through_middleware(headers, body))
    assert status in (200, 400, 409), status
    if status == 200:
        _check_passed_on(body, seen)


def _check_passed_on(body: bytes, seen: bytes) -> None:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        assert seen == body
        return
    if isinstance(given, dict):
        given.pop(RECIPE_FIELD, None) if RECIPE_FIELD.encode() in body else None
    assert json.dumps(json.loads(seen)) == json.dumps(given)


async def _through_middleware(headers: list[tuple[bytes, bytes]], body: bytes) -> tuple[bytes, int]:
    """Return the body that the application got, and the status of the answer."""
    seen, sent = bytearray(), list[Message]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        seen.extend(message["body"])
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        assert lengths == [str(len(message["body"])).encode()]
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [*headers, (b"content-length", str(len(body)).encode())],
        "app": SimpleNamespace(state=SimpleNamespace(recipe_intake=_Intake())),
    }
    await RecipeMiddleware(app)(scope, receive, send)
    return bytes(seen), sent[0]["status"]


class _Intake:
    @contextlib.contextmanager
    def admit(self, text: str) -> Iterator[None]:
        Recipe.from_text(text).require_pool(POOL_ID, layers=2, linears=3, experts=4)
        yield

    def turn(self, admitted: None, /) -> None:
        """Nothing waits."""


_WIRE: Final[tuple[type[BaseModel], ...]] = (
    CompileReply, CompileRequest, HeadList, MeasureReply, MeasureRequest, RefineReply,
    RefineRequest, WorkerInfo,
)  # fmt: skip


def wire_message(data: bytes) -> None:
    """A message is one that can be sent on as it was understood, or refused."""
    for kind in _WIRE:
        text = data if data.startswith(b"{") else _grown(kind, data)
        try:
            message = kind.model_validate_json(text)
        except ValidationError:
            continue
        assert kind.model_validate_json(message.model_dump_json()) == message


def api_key(data: bytes) -> None:
    """A header bears the key it shows, or none."""
    shown = bearer_token(data.decode("latin-1"))
    key = ApiKey.try_parse(shown)
    if key is not None:
        assert key.text == shown
        assert key.fits(key.digest)
        assert key.text not in repr(key)


def api_request(data: bytes) -> None:
    """A body is a request that can be passed on as JSON, or refused with an error that says why."""
    for kind in (ChatRequest, CompletionRequest, CreateTaskRequest, ResponsesRequest, TaskLine):
        try:
            body = json.loads(data if data.startswith(b"{") else _grown(kind, data, model="demo"))
        except (ValueError, RecursionError):
            return
        try:
            request = kind.model_validate(body)
            if isinstance(request, ResponsesRequest):
                request = request.chat()
            if isinstance(request, ChatRequest | CompletionRequest):
                TaskReference.parse(model=request.model, task_id=request.task_id, headers=())
                json.dumps(request.upstream(), allow_nan=False).encode()
        except ValidationError as error:
            refusal: LoragenError = explain_validation(error.errors())
            json.dumps(refusal.body()).encode("ascii")
        except LoragenError as error:
            json.dumps(error.body()).encode("ascii")


def chat_template(data: bytes) -> None:
    """A worker's one template prints a conversation by the template that the switch says."""
    messages = _value(data).get("messages")
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        return
    compiled = CompiledTemplate(_COMPILED)
    own = OwnTemplate(_OWN)
    served = own.served(compiled)
    assert OwnTemplate(served).try_render(messages) == own.try_render(messages)
    switched = OwnTemplate(served, {COMPILED_SWITCH: "true"}).try_render(messages)
    try:
        assert switched == compiled.render(messages)
    except InvalidRequest:
        assert switched is None


def tools(data: bytes) -> None:
    """Tools are read back as they were written, and have one text; else they are refused."""
    bodies = _value(data).get("tools")
    parsed = try_parse_tools(bodies if isinstance(bodies, list) else [bodies])
    if parsed is None:
        return
    with contextlib.suppress(UnicodeEncodeError):  # such a text never gets past a body's check
        dump_tools(parsed).encode()
        assert load_tools(dump_tools(parsed)) == parsed
        assert canonical_tools(load_tools(dump_tools(parsed))) == canonical_tools(parsed)
    assert same_tools(parsed, parsed[::-1])
    assert compile_text("prompt", parsed).startswith("prompt")


def stream(data: bytes) -> None:
    """A worker's stream ends with `[DONE]` or with one error, whatever its bytes."""
    events = asyncio.run(_relayed(data.split(b"\x00")))
    assert events[-1] == b"data: [DONE]\n\n" or events[-1].startswith(b'data: {"error":')
    assert all(event.startswith(b"data: ") and event.endswith(b"\n\n") for event in events)


async def _relayed(parts: list[bytes]) -> list[bytes]:
    async def chunks() -> Any:
        for part in parts:
            yield part

    watch = Stopwatch("demo", "base", started=0.0)
    served = Provenance(mode="base")
    return [event async for event in relay(chunks(), served, watch, request_id="")]


def _grown(kind: type[BaseModel], data: bytes, **given: Any) -> bytes:
    """Return JSON text of some of the fields of a message, with values grown from bytes."""
    growth = Growth(data)
    fields = {name: growth.value() for name in kind.model_fields if growth.byte() % 3}
    return json.dumps({**fields, **given}).encode()


def _value(data: bytes) -> dict[str, Any]:
    """Return an object: of JSON text where the bytes are that, else grown from them."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = Growth(data).fields()
    return found if isinstance(found, dict) else {"input": found}


def _json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


_HI: Final = [{"role": "user", "content": "hi"}]
_TOOL: Final = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}

TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for target in (
        recipe_bytes, recipe_text, worker_request, wire_message, api_key, api_request,
        chat_template, tools, stream,
    )
}  # fmt: skip
SEEDS: Final[dict[str, tuple[bytes, ...]]] = {
    "recipe_bytes": tuple(
        Recipe.encode(GOOD.gates, pool_id=POOL_ID, level=level, dtype=dtype).data
        for level in Level
        for dtype in GateDtype
    ),
    "recipe_text": (GOOD.text.encode(),),
    "worker_request": (
        GOOD.text.encode() + b"\n" + _json(messages=_HI),
        b"\n" + _json(messages=_HI, loragen_recipe=GOOD.text),
        b"\n" + b'{"loragen_recipe":' + b"[" * 100_000,
        b"x\t" + GOOD.text.encode() + b"\n" + _json(loragen_recipe=1),
    ),
    "wire_message": (
        _json(edge_model="demo", prompt="hi", tools=[_TOOL]),
        _json(edge_model="demo", prompt="hi", recipe=GOOD.text, probes=None),
        _json(
            recipe=GOOD.text, recipe_id=GOOD.id, pool_id=POOL_ID, generator_id=POOL_ID, level=1,
            template_hash=POOL_ID, compile_seconds=0.5,
        ),
        _json(heads=[]),
        _json(fidelity=math.nan, agreement=1, does_harm=False, probes=8, measure_seconds=0.1),
        _json(fidelity=0.5, agreement=1, does_harm=False, probes=8, measure_seconds=0.1),
        _json(
            edge_model="demo", pool_id=None, template_hash=POOL_ID, backend="none", max_model_len=9
        ),
    ),
    "api_key": (f"Bearer {ApiKey.make().text}".encode(), b"bearer  x", b"Basic eDp5"),
    "api_request": (
        _json(messages=_HI, stream=True, stream_options={"include_usage": True}, tools=[_TOOL]),
        _json(prompt=["a", "b"], logprobs=1, stop=["\n"]),
        _json(input=[{"type": "message", "role": "user", "content": "hi"}], instructions="Be."),
        _json(system_prompt="You are Ada.", tools=[_TOOL], policy={"fallback": "error"}),
    ),
    "chat_template": (
        _json(messages=[{"role": "system", "content": "{{ 1 }}"}, *_HI]),
        _json(messages=[{"role": "user", "content": [{"type": "text", "text": "{% if %}"}]}]),
    ),
    "tools": (_json(tools=[_TOOL]),),
    "stream": (
        b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n\x00data: {"choices":[],"usage":{}}\n\n'
        b"data: [DONE]\n\n",
        b"data: [DONE]\n\ndata: {}\n\n",
        b'data: {"error":{}}\n\n',
        b'data: {"finish_reason":"abort"}\n\n',
    ),
}  # fmt: skip
