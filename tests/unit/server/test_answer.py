"""A worker's answer on its way out: usage added, failures in our shape, every byte kept."""

import json
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from loragen.errors import LoragenError, RecipeInvalid, RecipeMismatch, WorkerUnavailable
from server.answer import Provenance, Stopwatch, complete, refusal, relay

REQUEST_ID = "5eb63bbb"
ID = f"chatcmpl-{REQUEST_ID}"
COMPILED = Provenance(mode="compiled", task_id="t", recipe_id="r", saved_prompt_tokens=7)
DONE = b"data: [DONE]\n\n"


def event(payload: Any) -> bytes:
    text = json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
    return f"data: {text}\n\n".encode()


def delta(text: str) -> dict[str, Any]:
    return {"id": ID, "choices": [{"index": 0, "delta": {"content": text}}]}


USAGE = {"id": ID, "choices": [], "usage": {"prompt_tokens": 3}}


async def relayed(*chunks: bytes | Exception) -> list[bytes]:
    async def source() -> AsyncIterator[bytes]:
        for chunk in chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    watch = Stopwatch("demo", "compiled", started=time.monotonic())
    return [part async for part in relay(source(), COMPILED, watch, request_id=REQUEST_ID)]


def payload(part: bytes) -> dict[str, Any]:
    assert part.startswith(b"data: ")
    assert part.endswith(b"\n\n")
    found: dict[str, Any] = json.loads(part[6:])
    return found


async def test_chunks_pass_and_the_usage_chunk_says_how_it_was_served() -> None:
    out = await relayed(event(delta("a")), event(delta("b")), event(USAGE), DONE)
    assert out[:2] == [event(delta("a")), event(delta("b"))]
    assert payload(out[2])["usage"] == {
        "prompt_tokens": 3,
        "loragen": {
            "mode": "compiled", "task_id": "t", "recipe_id": "r", "saved_prompt_tokens": 7
        },
    }  # fmt: skip
    assert out[3:] == [DONE]


async def test_usage_is_added_nowhere_else() -> None:
    tricky = [delta('"usage":{"x":1}'), {**delta("a"), "usage": None}, delta("[DONE]")]
    out = await relayed(*(event(chunk) for chunk in tricky), DONE)
    assert [payload(part) for part in out[:-1]] == tricky


@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
async def test_any_text_passes_however_the_network_cuts_it(text: str, cuts: list[int]) -> None:
    stream = event(delta(text)) + event(delta("\u2028\x85\u2029")) + DONE
    borders = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    parts = [stream[a:b] for a, b in pairwise(borders)]
    assert b"".join(await relayed(*parts)) == stream


async def test_comments_and_carriage_returns_of_a_worker_do_not_matter() -> None:
    out = await relayed(b": ping\r\n\r\n", event(delta("a")).replace(b"\n", b"\r\n"), DONE)
    assert out == [event(delta("a")), DONE]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ((httpx.ReadError("gone"),), "worker_unavailable"),
        ((httpx.RemoteProtocolError("cut"),), "worker_unavailable"),
        ((httpx.ReadTimeout("slow"),), "deadline_exceeded"),
        ((b'data: {"error":{"message":"secret","code":500}}\n\n', DONE), "worker_unavailable"),
        ((b'data: {"usage":{broken\n\n',), "worker_unavailable"),
        ((b'data: {"choices"',), "worker_unavailable"),
        ((), "worker_unavailable"),
    ],
    ids=["lost", "cut", "slow", "error event", "unreadable", "half an event", "clean end"],
)
async def test_a_stream_that_breaks_ends_with_an_error_and_no_done(
    end: tuple[Any, ...], code: str
) -> None:
    out = await relayed(event(delta("a")), *end)
    assert out[0] == event(delta("a"))
    assert len(out) == 2
    error = payload(out[1])["error"]
    assert error["code"] == code
    assert error["type"] == "server_error"
    assert "secret" not in error["message"]


async def test_latency_is_measured_once_per_answer() -> None:
    def counts() -> list[float]:
        labels = {"model": "demo", "mode": "compiled"}
        names = ("time_to_first_token", "inter_token_latency", "e2e_request_latency")
        found = [
            REGISTRY.get_sample_value(f"loragen_{name}_seconds_count", labels) for name in names
        ]
        return [value or 0 for value in found]

    before = counts()
    await relayed(event(delta("a")), event(delta("b")), event(delta("c")), DONE)
    assert [after - b for after, b in zip(counts(), before, strict=True)] == [1, 2, 1]
    await relayed(event(delta("a")))
    assert [after - b for after, b in zip(counts(), before, strict=True)] == [2, 2, 1]


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"a":'])
def test_what_is_no_answer_is_a_lost_worker(content: bytes) -> None:
    with pytest.raises(WorkerUnavailable):
        complete(httpx.Response(200, content=content), COMPILED, request_id=REQUEST_ID)


def test_a_whole_answer_keeps_its_fields() -> None:
    answer = {"id": ID, "choices": [], "usage": {"prompt_tokens": 3}, "new_field": [1]}
    out = complete(httpx.Response(200, json=answer), COMPILED, request_id=REQUEST_ID)
    assert out["usage"].pop("loragen") == COMPILED.usage()
    assert out == answer


def misdirected() -> float:
    value = REGISTRY.get_sample_value("loragen_misdirected_replies_total", {"source": "worker"})
    return value or 0.0


@pytest.mark.parametrize("other", [{"id": "chatcmpl-9f86d081"}, {"id": None}, {}])
def test_an_answer_to_another_request_is_not_passed_on(other: dict[str, Any]) -> None:
    before = misdirected()
    answer = httpx.Response(200, json={**other, "choices": [], "usage": {"prompt_tokens": 3}})
    with pytest.raises(WorkerUnavailable, match="another request"):
        complete(answer, COMPILED, request_id=REQUEST_ID)
    assert misdirected() == before + 1


async def test_no_event_of_another_request_is_passed_on() -> None:
    before = misdirected()
    foreign = {**delta("secret of another tenant"), "id": "chatcmpl-9f86d081"}
    out = await relayed(event(delta("a")), event(foreign), event(delta("b")), DONE)
    assert out[0] == event(delta("a"))
    assert [payload(part)["error"]["code"] for part in out[1:]] == ["worker_unavailable"]
    assert misdirected() == before + 1


def vllm(status: int, message: str, param: str | None = None) -> httpx.Response:
    error = {"message": message, "type": "BadRequestError", "param": param, "code": status}
    return httpx.Response(status, json={"error": error})


@pytest.mark.parametrize(
    ("response", "status", "code"),
    [
        (vllm(400, "temperature must be non-negative", "temperature"), 400, "invalid_request"),
        (vllm(422, "bad"), 400, "invalid_request"),
        (vllm(400, "This model's maximum context length is 9"), 400, "context_length_exceeded"),
        (vllm(404, "no such model"), 503, "worker_unavailable"),
        (vllm(401, "Unauthorized"), 503, "worker_unavailable"),
        (vllm(500, "boom"), 503, "worker_unavailable"),
        (vllm(429, "busy"), 503, "overloaded"),
        (httpx.Response(400, content=b"<html>"), 400, "invalid_request"),
        (httpx.Response(400, json={"error": "text"}), 400, "invalid_request"),
        (httpx.Response(400, json=[1]), 400, "invalid_request"),
        (vllm(409, "conflict"), 503, "worker_unavailable"),
    ],
)
def test_a_refusal_becomes_one_of_ours_with_a_word_as_code(
    response: httpx.Response, status: int, code: str
) -> None:
    error = refusal(response)
    assert isinstance(error, LoragenError)
    assert (error.status, error.code) == (status, code)
    assert error.message


@pytest.mark.parametrize("error", [RecipeInvalid("m"), RecipeMismatch("m")])
def test_a_refused_recipe_is_between_us_and_the_worker(error: LoragenError) -> None:
    response = httpx.Response(error.status, json=error.body())
    assert isinstance(refusal(response, has_recipe=True), RecipeMismatch)
    assert not isinstance(refusal(response), RecipeMismatch)


def test_a_refusal_keeps_message_and_param_of_the_worker() -> None:
    error = refusal(vllm(400, "temperature must be non-negative", "temperature"))
    assert (error.message, error.param) == ("temperature must be non-negative", "temperature")
