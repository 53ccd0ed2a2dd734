"""Every failure is an OpenAI error: bad input is the client's 4xx, never our 500."""

import http.client
import json
from typing import Any

import openai
import pytest

from tests.fakes.gateway import MODEL, Gateway

pytestmark = pytest.mark.redis

QUESTION = [{"role": "user", "content": "hi"}]
CHAT: dict[str, Any] = {"model": MODEL, "messages": QUESTION}
UNKNOWN = "task_" + "a" * 26
JSON = {"content-type": "application/json"}


def post(gate: Gateway, content: bytes, path: str = "chat/completions", **headers: str) -> Any:
    return gate.http.post(f"/v1/{path}", content=content, headers={**JSON, **headers})


def error_of(reply: Any) -> tuple[int, str, str | None]:
    assert reply.headers["x-request-id"]
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"] == (
        "server_error" if reply.status_code >= 500 else "invalid_request_error"
    )
    return reply.status_code, error["code"], error["param"]


@pytest.mark.parametrize(
    ("content", "says"),
    {
        "empty": (b"", "needs a JSON body"),
        "half": (b'{"model": ', "not valid JSON"),
        "not utf-8": (b'{"model": "\xff"}', "cannot be read"),
        "a list": (b"[1]", "must be a JSON object"),
        "a text": (b'"hello"', "must be a JSON object"),
        "null": (b"null", "JSON"),
        "bottomless": (b"[" * 100_000, "cannot be read"),
        "bottomless object": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "cannot be read"),
        "astronomic": (b'{"seed": 1' + b"0" * 5_000 + b"}", "cannot be read"),
    }.values(),
)
def test_what_is_no_json_object_is_a_400(gate: Gateway, content: bytes, says: str) -> None:
    reply = post(gate, content)
    assert error_of(reply)[:2] == (400, "invalid_request")
    assert says in reply.json()["error"]["message"]


@pytest.mark.parametrize("depth", [70, 250, 900])
def test_deep_values_are_a_400(gate: Gateway, depth: int) -> None:
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    content = json.dumps(CHAT)[:-1].encode() + b',"response_format":' + deep + b"}"
    assert error_of(post(gate, content))[:2] == (400, "invalid_request")
    assert gate.worker.seen == []


@pytest.mark.parametrize(
    "field",
    [
        b'"temperature": NaN',
        b'"temperature": 1e999',
        b'"logit_bias": {"1": -Infinity}',
        b'"seed": 123456789012345678901234567890',
        b'"metadata": {"k": "\\ud800"}',
        b'"\\ud800": 1',
        b'"task_id": "\\udfff"',
        b'"response_format": {"type": "\\ud800"}',
        b'"user": 5',
        b'"n": 0',
        b'"stream_options": {"include_usage": true}',
    ],
)
def test_values_that_cannot_be_carried_on_are_a_400(gate: Gateway, field: bytes) -> None:
    content = json.dumps(CHAT)[:-1].encode() + b"," + field + b"}"
    assert error_of(post(gate, content))[:2] == (400, "invalid_request")
    assert gate.worker.seen == []


@pytest.mark.parametrize("path", ["tasks", "chat/completions", "completions"])
def test_half_a_surrogate_pair_is_a_400_everywhere(gate: Gateway, path: str) -> None:
    bodies = {
        "tasks": b'{"model":"demo","system_prompt":"a \\ud83d"}',
        "chat/completions": b'{"model":"demo","messages":[{"role":"user","content":"\\ud83d"}]}',
        "completions": b'{"model":"demo","prompt":"\\ud83d"}',
    }
    reply = post(gate, bodies[path], path)
    assert error_of(reply)[:2] == (400, "invalid_request")
    assert "surrogate" in reply.json()["error"]["message"]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_called_json_is_told_so(gate: Gateway, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    reply = gate.http.post("/v1/chat/completions", content=json.dumps(CHAT), headers=headers)
    assert error_of(reply)[:2] == (400, "invalid_request")
    assert "application/json" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": "nobody"}, 404, "model_not_found", "model"),
        ({"model": "nobody:ada"}, 404, "model_not_found", "model"),
        ({"model": f"{MODEL}:"}, 400, "invalid_request", "model"),
        ({"model": ":ada"}, 400, "invalid_request", "model"),
        ({"model": f"{MODEL}:ada"}, 404, "task_not_found", "task_id"),
        ({"task_id": UNKNOWN}, 404, "task_not_found", "task_id"),
        ({"task_id": ""}, 400, "invalid_request", "task_id"),
        ({"task_id": 5}, 400, "invalid_request", "task_id"),
        ({"model": f"{MODEL}:ada", "task_id": UNKNOWN}, 400, "invalid_request", "task_id"),
        ({"prompt_logprobs": 1}, 400, "invalid_request", "prompt_logprobs"),
        ({"loragen_recipe": "x"}, 400, "invalid_request", "loragen_recipe"),
        ({"cache_salt": "x"}, 400, "invalid_request", "cache_salt"),
        ({"no_such": 1}, 400, "invalid_request", "no_such"),
        ({"max_tokens": 10**9}, 400, "context_length_exceeded", "messages"),
        ({"temperature": -1}, 400, "invalid_request", None),
    ],
)
def test_a_bad_field_is_named(
    gate: Gateway, fields: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    reply = gate.http.post("/v1/chat/completions", json={**CHAT, **fields})
    assert error_of(reply) == (status, code, param)


def test_headers_that_name_different_tasks_are_a_400(gate: Gateway) -> None:
    task_id = gate.create("You are Ada.")["id"]
    for given in ([task_id, UNKNOWN], [task_id, ""]):
        headers = [("X-Task-Id", value) for value in given]
        reply = gate.http.post("/v1/chat/completions", json=CHAT, headers=headers)
        assert error_of(reply) == (400, "invalid_request", "task_id")
    headers = [("X-Task-Id", task_id)] * 2
    assert gate.http.post("/v1/chat/completions", json=CHAT, headers=headers).status_code == 200


@pytest.mark.parametrize("header", ["ada bob", "\xe9\xff", "x" * 5_000, "task_é"])
def test_a_header_that_names_no_task_is_a_404(gate: Gateway, header: str) -> None:
    headers = [(b"X-Task-Id", header.encode("latin-1"))]
    reply = gate.http.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert error_of(reply) == (404, "task_not_found", "task_id")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/tasks", "/v1/models", "/nowhere"])
def test_a_recipe_in_a_request_is_refused_wherever_it_comes(gate: Gateway, path: str) -> None:
    reply = gate.http.post(path, json=CHAT, headers={"X-LoRA-Recipe": "Zm9yZ2Vk"})
    assert error_of(reply) == (400, "invalid_request", None)
    assert "x-lora-recipe" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nowhere", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("POST", "/v1/models", 405, "invalid_request"),
        ("PUT", "/v1/tasks", 405, "invalid_request"),
        ("GET", "/v1/chat/completions", 405, "invalid_request"),
        ("OPTIONS", "/v1/chat/completions", 405, "invalid_request"),
        ("PATCH", "/v1/tasks", 405, "invalid_request"),
        ("DELETE", "/v1/tasks/a/b", 404, "not_found"),
    ],
)
def test_unknown_paths_and_methods_are_told_apart(
    gate: Gateway, method: str, path: str, status: int, code: str
) -> None:
    reply = gate.http.request(method, path)
    assert error_of(reply) == (status, code, None)
    assert path in reply.json()["error"]["message"]
    assert ("allow" in reply.headers) == (status == 405)


def test_a_head_request_gets_no_body(gate: Gateway) -> None:
    reply = gate.http.head("/v1/models")
    assert reply.status_code == 405
    assert reply.content == b""


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_too_large_is_a_413(gate: Gateway, announced: bool) -> None:
    content = b"x" * (3 << 20)
    body: Any = content if announced else iter([content[: 1 << 20]] * 3)
    reply = gate.http.post("/v1/chat/completions", content=body, headers=JSON)
    assert error_of(reply) == (413, "request_too_large", None)


@pytest.mark.parametrize("given", ["my-id.1", "x" * 128])
def test_a_request_id_is_kept(gate: Gateway, given: str) -> None:
    assert (
        gate.http.get("/health", headers={"x-request-id": given}).headers["x-request-id"] == given
    )


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a;b", '{"x":1}'])
def test_a_request_id_that_could_spoil_a_log_is_replaced(gate: Gateway, given: str) -> None:
    reply = gate.http.get("/health", headers={"x-request-id": given})
    assert len(reply.headers["x-request-id"]) == 32


def test_every_answer_has_exactly_one_request_id(gate: Gateway) -> None:
    for path in ("/health", "/nowhere", "/v1/models"):
        assert len(gate.http.get(path).headers.get_list("x-request-id")) == 1


def test_a_bug_is_a_500_that_tells_nothing_but_its_request_id(
    gate: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("internal detail")

    monkeypatch.setattr("server.generation.plan", broken)
    before = gate.metric(
        "loragen_requests_total", route="/v1/chat/completions", code="500", mode="none"
    )
    reply = gate.ask("hi")
    assert error_of(reply) == (500, "internal_error", None)
    assert "detail" not in reply.text
    after = gate.metric(
        "loragen_requests_total", route="/v1/chat/completions", code="500", mode="none"
    )
    assert after == before + 1


@pytest.mark.parametrize(("raw", "status"), [(b"not json", 503), (b"[]", 503), (b'{"a":', 503)])
def test_a_worker_that_talks_nonsense_is_a_503(gate: Gateway, raw: bytes, status: int) -> None:
    gate.worker.raw_answer = raw
    assert error_of(gate.ask("hi"))[:2] == (status, "worker_unavailable")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_to_another_request_is_given_to_nobody(gate: Gateway, stream: bool) -> None:
    before = gate.metric("loragen_misdirected_replies_total", source="worker")
    gate.worker.mixes_up = True
    reply = gate.ask("hi", stream=stream)
    assert "another request" in reply.text
    assert "[recipe none]" not in reply.text
    assert "worker_unavailable" in reply.text
    assert gate.metric("loragen_misdirected_replies_total", source="worker") == before + 1


def test_a_conflict_at_a_worker_without_a_recipe_is_a_503(gate: Gateway) -> None:
    gate.worker.fail_status = 409
    assert error_of(gate.ask("hi"))[:2] == (503, "worker_unavailable")


def test_a_worker_that_fails_on_a_request_serves_the_others(gate: Gateway) -> None:
    gate.worker.fail_status = 500
    assert error_of(gate.ask("hi"))[:2] == (503, "worker_unavailable")
    gate.worker.fail_status = None
    assert gate.ask("hi").status_code == 200


def test_the_official_client_raises_its_own_classes(gate: Gateway) -> None:
    create: Any = gate.client.chat.completions.create
    cases: list[tuple[type[openai.APIStatusError], dict[str, Any], str]] = [
        (openai.NotFoundError, {"model": "nobody"}, "model_not_found"),
        (openai.NotFoundError, {"model": f"{MODEL}:ada"}, "task_not_found"),
        (openai.BadRequestError, {"temperature": -1}, "invalid_request"),
        (openai.BadRequestError, {"extra_body": {"priority": 1}}, "invalid_request"),
        (openai.BadRequestError, {"max_tokens": 10**6}, "context_length_exceeded"),
    ]
    for kind, fields, code in cases:
        with pytest.raises(kind) as caught:
            create(**{**CHAT, **fields})
        assert caught.value.code == code
        assert caught.value.request_id
    gate.worker.fail_status = 500
    with pytest.raises(openai.InternalServerError) as failed:
        create(**CHAT)
    assert failed.value.status_code == 503


def test_a_client_that_stops_in_the_middle_of_its_body_harms_nobody(gate: Gateway) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gate.server.port, timeout=5)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", "1000")
    connection.endheaders(b'{"model": "demo"')
    connection.close()
    assert gate.ask("hi").status_code == 200
    assert len(gate.worker.seen) == 1
