"""Input that is made to harm: bombs, odd characters, forged headers and paths."""

import copy
import gzip
import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest

from loragen.errors import InvalidRequest
from loragen.task import Policy
from server.http_errors import explain_validation
from tests.fakes.admin import AdminApi, admin_api
from tests.fakes.gateway import MODEL, Gateway
from tests.fakes.raw_client import answer_to, error_in
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "find", "parameters": {"type": "object"}},
}
PROBES = [{"input": f"probe {number}", "output": "yes"} for number in range(8)]
TASK: dict[str, Any] = {
    "model": MODEL,
    "system_prompt": "You are Ada.",
    "tools": [{**TOOL, "function": {**TOOL["function"], "description": "Finds."}}],
    "policy": Policy().model_dump(),
    "probes": PROBES,
}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "name": "eve", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": "ho", "tool_calls": []},
            {"role": "tool", "tool_call_id": "1", "content": "x"},
        ],
        "tools": [TOOL],
        "stop": ["x"],
        "user": "eve",
        "metadata": {"a": "b"},
    },
    "/v1/completions": {"model": MODEL, "prompt": ["hi"], "stop": "x", "user": "eve"},
    "/v1/responses": {
        "model": MODEL,
        "instructions": "Be brief.",
        "input": [{"type": "message", "role": "user", "content": "hi"}],
        "tools": [{"type": "function", "name": "find", "description": "Finds."}],
        "metadata": {"a": "b"},
    },
    "/v1/tasks": {**TASK, "name": "ada"},
}
POSTS = [*BODIES, "/v1/tasks/by-name/ada/rollback", "/v1/tasks/task_x/refine", "/v1/tasks/import"]
ODD_TEXTS = {
    "NUL": "a\x00b",
    "half a pair": "a\ud800b",
    "swapped pair": "\udc00\ud800",
    "escape": "\x1b[31mred\x1b[0m",
    "line ends": "a\r\nx-injected: yes\r\n\r\n",
    "right to left": "\u202eabc",
    "line separator": "a\u2028b\u2029c\u0085d",
    "byte order mark": "\ufeffabc",
    "delete": "\x7f\x9f",
    "beyond the first plane": "\U0001f4a9" * 3,
    "not a character": "\uffff\U0010ffff",
    "a thousand marks": "e" + "\u0301" * 1_000,
    "template": "{{ 7 * 7 }}{% raise_exception('x') %}<|im_end|>",
    "wildcards": "*?[a-z]:*",
    "path": "../../etc/passwd",
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where texts are in a body."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def put(body: dict[str, Any], place: tuple[Any, ...], text: str) -> dict[str, Any]:
    """Return the body with a text at a place."""
    changed: Any = copy.deepcopy(body)
    inner = changed
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = text
    return dict(changed)


def check(reply: httpx.Response) -> None:
    """Fail if an answer is neither good nor an error of the client's in the one shape."""
    assert "x-injected" not in reply.headers
    assert reply.status_code < 500, reply.text
    if reply.status_code >= 400:
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def post(gate: Gateway, path: str, content: bytes, **headers: str) -> httpx.Response:
    kind = "application/x-ndjson" if path.endswith("/import") else "application/json"
    return gate.http.post(path, content=content, headers={"content-type": kind, **headers})


def bombs() -> dict[str, bytes]:
    deep = 100_000
    start = b'{"model":"demo","messages":'
    return {
        "lists in lists": start + b"[" * deep + b"]" * deep + b"}",
        "objects in objects": start + b'{"a":' * deep + b"1" + b"}" * deep + b"}",
        "a list that does not end": b"[" * deep,
        "a key of a megabyte": b'{"' + b"k" * (1 << 20) + b'":1}',
        "many fields": json.dumps({f"f{number}": 1 for number in range(100_000)}).encode(),
        "many messages": json.dumps({"model": MODEL, "messages": HI * 20_000}).encode(),
        "an integer of a million digits": b'{"model":"demo","seed":' + b"9" * 1_000_000 + b"}",
        "more than a double": b'{"model":"demo","messages":[],"temperature":1e400}',
        "less than a double": b'{"model":"demo","messages":[],"temperature":-1e400}',
        "an exponent without end": b'{"seed":1e' + b"9" * 100_000 + b"}",
        "NaN": b'{"model":"demo","messages":[],"top_p":NaN}',
        "one key again and again": b"{" + b'"model":"demo",' * 50_000 + b'"model":"x"}',
        "a text of two megabytes": json.dumps({"model": "m" * (2_000_000)}).encode(),
        "blanks": b" " * 2_000_000,
        "not UTF-8": b'{"model":"\xff\xfe"}',
        "UTF-16": json.dumps({"model": MODEL}).encode("utf-16"),
    }


BOMBS = bombs()


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_everywhere_and_the_server_lives(gate: Gateway, bomb: str) -> None:
    for path in POSTS:
        reply = post(gate, path, BOMBS[bomb])
        check(reply)
        if not path.endswith("/import"):  # whose lines fail one by one
            assert reply.status_code in (400, 404, 413), path
    assert gate.http.get("/health").status_code == 200


@pytest.mark.parametrize("line", [b"\n", b"1\n", b"{}\n"])
def test_an_import_of_lines_without_end_is_a_413(gate: Gateway, line: bytes) -> None:
    reply = post(gate, "/v1/tasks/import", line * 200_000)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")


WRONG_LISTS = {
    "/v1/chat/completions": ("messages", "tools", "stop", "stop_token_ids"),
    "/v1/completions": ("prompt", "stop"),
    "/v1/responses": ("input", "tools"),
    "/v1/tasks": ("tools", "probes"),
    "/v1/tasks/by-name/ada": ("tools", "probes"),
}


@pytest.mark.parametrize(
    ("path", "field"), [(path, field) for path, fields in WRONG_LISTS.items() for field in fields]
)
def test_of_a_list_of_nothing_right_one_error_says_enough(
    gate: Gateway, path: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained = []

    def explain(errors: Sequence[Any]) -> InvalidRequest:
        explained.append(len(errors))
        return explain_validation(errors)

    monkeypatch.setattr("server.http_errors.explain_validation", explain)
    body = {**BODIES.get(path, TASK), field: [None] * 10_000}
    reply = gate.http.request("PUT" if "by-name" in path else "POST", path, json=body)
    assert reply.status_code == 400
    assert len(explained) == 1
    assert explained[0] < 10


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, gzip", "x"])
def test_a_compressed_body_is_refused_unread(gate: Gateway, path: str, encoding: str) -> None:
    packed = gzip.compress(b" " * (64 << 20))
    reply = post(gate, path, packed, **{"content-encoding": encoding})
    assert reply.status_code == 400
    assert "content-encoding" in reply.json()["error"]["message"]


def test_a_body_that_says_it_is_not_compressed_is_read(gate: Gateway) -> None:
    body = json.dumps({"model": MODEL, "messages": HI}).encode()
    headers = {"content-encoding": "Identity"}
    assert post(gate, "/v1/chat/completions", body, **headers).status_code == 200


@pytest.mark.parametrize("odd", ODD_TEXTS)
@pytest.mark.parametrize("path", BODIES)
def test_odd_characters_are_carried_on_or_refused(gate: Gateway, path: str, odd: str) -> None:
    for place in places(BODIES[path]):
        body = put(BODIES[path], place, ODD_TEXTS[odd])
        check(post(gate, path, json.dumps(body).encode()))
    if "pair" in odd:  # not Unicode, so nowhere carried on
        assert not gate.worker.seen


@pytest.mark.parametrize("odd", [odd for odd in ODD_TEXTS if "pair" not in odd])
def test_odd_characters_are_kept_as_they_are(gate: Gateway, odd: str) -> None:
    text = ODD_TEXTS[odd]
    asked = [{"role": "user", "content": text}]
    body = {"model": MODEL, "messages": asked, "system_prompt": "keep"}
    reply = gate.http.post("/v1/chat/completions", json=body)
    assert reply.json()["choices"][0]["message"]["content"].endswith(text)
    if odd != "NUL":
        gate.create(text)
        (line,) = gate.http.get("/v1/tasks/export").content.splitlines()
        assert json.loads(line)["system_prompt"] == text


@pytest.mark.parametrize("path", BODIES)
def test_odd_names_of_fields_are_refused(gate: Gateway, path: str) -> None:
    for odd in ODD_TEXTS.values():
        reply = post(gate, path, json.dumps({**BODIES[path], odd: 1}).encode())
        check(reply)
        assert reply.status_code == 400


PATHS = (
    "/v1/tasks/{}", "/v1/tasks/{}/refine", "/v1/tasks/by-name/{}", "/v1/tasks/by-name/{}/versions",
    "/v1/tasks/by-name/{}/rollback", "/v1/models/{}", "/{}",
)  # fmt: skip
PATH_PARTS = (
    "..", "../..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "../../etc/passwd", "....//", "..%5c..",
    "%00", "a%00b", "%0d%0ax-injected:%20yes", "%ff%fe", "%ed%a0%80", "%", "%zz", "*", "%2a", "?",
    "a:b", "task_*", "~root", "ada%20", "ADA", "a" * 8_000, "%F0%9F%92%A9", ";id", "'or'1'='1",
)  # fmt: skip


@pytest.mark.parametrize("template", PATHS)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_no_path_leads_out(gate: Gateway, template: str, method: str) -> None:
    task = gate.create("You are Ada.", name="ada")
    for part in PATH_PARTS:
        # Raw, for clients tidy paths up.
        line = f"{method} {template.format(part)} HTTP/1.1\r\n"
        head = "host: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        answer = answer_to(gate.server, (line + head).encode())
        assert b"x-injected" not in answer.partition(b"\r\n\r\n")[0].lower()
        assert error_in(answer)[0] in (400, 404, 405), (part, answer)
    assert gate.http.get(f"/v1/tasks/{task['id']}").status_code == 200
    assert gate.http.get("/v1/tasks/by-name/ada").status_code == 200


@pytest.mark.parametrize("name", ["../x", "a/b", "a\r\nx: y", "a\x00", "A", "", "é", "a" * 64])
def test_odd_names_of_tasks_are_refused(gate: Gateway, name: str) -> None:
    reply = post(gate, "/v1/tasks", json.dumps({**TASK, "name": name}).encode())
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "name"
    assert gate.http.get("/v1/tasks").json()["data"] == []


FORGED = (
    b"x-request-id: a\rx-injected: yes", b"x-request-id: a\nx-injected: yes",
    b"x-request-id: a\x00b", b"x-task-id: a\rb", b"x-task-id: a\r\n x-injected: yes",
    b"x-task-id: \xff\xfe", b"x-request-id : a", b": a", b"x-task-id",
    b"authorization: Bearer \x01",
    b"content-length: 0", b"content-length: -1", b"content-length: 1e9",
    b"content-length: 99999999999999999999",
    b"transfer-encoding: chunked", b"transfer-encoding: chunked, identity",
)  # fmt: skip


@pytest.mark.parametrize("header", FORGED)
def test_a_forged_header_injects_nothing(gate: Gateway, header: bytes) -> None:
    body = json.dumps({"model": MODEL, "messages": HI}).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"connection: close\r\ncontent-length: %d\r\n%s\r\n\r\n" % (len(body), header)
    )
    answer = answer_to(gate.server, head + body)
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b"x-injected" not in head.lower()
    assert head.count(b"HTTP/1.1") == 1
    if not head.startswith(b"HTTP/1.1 200"):
        assert error_in(answer)[0] in (400, 404)
    assert b"HTTP/1.1" not in rest  # nothing of the body was taken for a request


def test_a_smuggled_request_is_not_answered(gate: Gateway) -> None:
    inner = b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n"
    sent = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n"
        b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n%s"
        % (len(inner) + 5, inner)
    )
    answer = answer_to(gate.server, sent)
    assert b'"version"' not in answer


@pytest.fixture
def admin(valkey: Valkey, namespace: str) -> Iterator[AdminApi]:
    with admin_api(valkey.url, namespace) as running:
        yield running


@pytest.mark.parametrize("odd", ODD_TEXTS)
def test_odd_tenants_are_refused(admin: AdminApi, odd: str) -> None:
    body = json.dumps({"id": ODD_TEXTS[odd]}).encode()
    reply = admin.http.post(
        "/admin/tenants", content=body, headers={"content-type": "application/json"}
    )
    assert reply.status_code == 400
    assert admin.http.get("/admin/tenants").json()["data"] == []


def test_no_path_of_an_admin_leads_out(admin: AdminApi) -> None:
    admin.create_tenant("acme")
    for part in PATH_PARTS:
        for method in ("GET", "DELETE", "PATCH"):
            url = f"{admin.url}/admin/tenants/{part}"
            reply = admin.http.request(method, url, json={} if method == "PATCH" else None)
            assert reply.status_code in (200, 400, 404, 405)
    assert admin.http.get("/admin/tenants/acme").status_code == 200


def test_admin_bodies_have_their_bombs_refused(admin: AdminApi) -> None:
    for content in BOMBS.values():
        for path in ("/admin/tenants", "/admin/tenants/acme/keys"):
            reply = admin.http.post(
                path, content=content, headers={"content-type": "application/json"}
            )
            check(reply)
            assert reply.status_code in (400, 404, 413)
