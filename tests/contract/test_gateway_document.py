"""The OpenAPI document says how every call fails, and failures are as it says."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from server.entrance import OPEN_PATHS
from server.shared import Shared
from tests.fakes.admin import AdminApi, admin_api
from tests.fakes.gateway import MODEL, Gateway, gateway, redis_shared
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
UNKNOWN = "task_" + "a" * 26
EVERYWHERE = {"400", "405", "413", "500", "503"}
OF_TENANTS = EVERYWHERE | {"401", "404", "409", "429", "504"}
Calls = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
def document(gate: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = gate.http.get("/openapi.json").json()
    return found


def calls_of(document: dict[str, Any]) -> Calls:
    """Return what the document says of each path and method."""
    return {
        (method.upper(), path): call
        for path, calls in document["paths"].items()
        for method, call in calls.items()
    }


def check(reply: httpx.Response, document: dict[str, Any], method: str, template: str) -> None:
    """Fail if the document does not say that this call can be answered so."""
    said = calls_of(document)[method, template]["responses"].get(str(reply.status_code))
    assert said is not None, f"{method} {template} says nothing of {reply.status_code}"
    if "$ref" in said:
        said = document["components"]["responses"][said["$ref"].rpartition("/")[2]]
    kind = reply.headers["content-type"].partition(";")[0]
    schema = said["content"][kind]["schema"]
    Draft202012Validator({**schema, "components": document["components"]}).validate(reply.json())
    for name, header in said.get("headers", {}).items():
        assert name in reply.headers or not header.get("required"), name


def test_every_call_says_how_it_fails(document: dict[str, Any]) -> None:
    for (_, path), call in calls_of(document).items():
        statuses = set(call["responses"])
        assert statuses >= (EVERYWHERE if path in OPEN_PATHS else OF_TENANTS), path
        assert "422" not in statuses


def test_failures_have_one_shape(document: dict[str, Any]) -> None:
    for failure in document["components"]["responses"].values():
        assert failure["content"]["application/json"]["schema"] == {
            "$ref": "#/components/schemas/Error"
        }
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])


@pytest.mark.parametrize(
    ("method", "path", "template", "body", "status"),
    [
        ("POST", "/v1/chat/completions", None, CHAT, 200),
        ("POST", "/v1/chat/completions", None, {}, 400),
        ("POST", "/v1/chat/completions", None, {**CHAT, "task_id": UNKNOWN}, 404),
        ("POST", "/v1/chat/completions", None, {**CHAT, "user": "x" * (3 << 20)}, 413),
        ("POST", "/v1/tasks", None, {"model": MODEL, "system_prompt": "You are Ada."}, 201),
        ("POST", "/v1/tasks", None, {"model": "nobody", "system_prompt": "hi"}, 404),
        ("GET", f"/v1/tasks/{UNKNOWN}", "/v1/tasks/{task_id}", None, 404),
        ("GET", "/v1/models/nobody", "/v1/models/{name}", None, 404),
        ("GET", "/v1/tasks?limit=many", "/v1/tasks", None, 400),
        ("PUT", "/v1/tasks/by-name/A", "/v1/tasks/by-name/{name}", {}, 400),
        ("GET", "/ready", None, None, 200),
    ],
)
def test_an_answer_is_as_the_document_says(
    gate: Gateway,
    document: dict[str, Any],
    method: str,
    path: str,
    template: str | None,
    body: Any,
    status: int,
) -> None:
    reply = gate.http.request(method, path, json=body)
    assert reply.status_code == status
    check(reply, document, method, template or path)


def test_a_method_that_is_not_there_is_as_the_document_says(
    gate: Gateway, document: dict[str, Any]
) -> None:
    error = Draft202012Validator(document["components"]["schemas"]["Error"])
    paths: dict[str, list[str]] = {}
    for method, path in sorted(calls_of(document)):
        paths.setdefault(path, []).append(method)
    for path, methods in paths.items():
        for method in ("PATCH", "OPTIONS", "TRACE", "QUERY"):
            reply = gate.http.request(method, path.format(name="ada", task_id=UNKNOWN))
            assert reply.status_code == 405
            assert reply.headers["allow"] == ", ".join(methods)
            error.validate(reply.json())


def test_without_workers_it_is_as_the_document_says(own_gate: Gateway) -> None:
    gate = own_gate
    document = gate.http.get("/openapi.json").json()
    gate.worker_server.stop()
    reply = gate.http.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == 503
    check(reply, document, "POST", "/v1/chat/completions")


@pytest.fixture
def admin(valkey: Valkey, namespace: str) -> Iterator[AdminApi]:
    with admin_api(valkey.url, namespace) as running:
        yield running


def test_keys_and_limits_are_as_the_document_says(
    admin: AdminApi, valkey: Valkey, namespace: str
) -> None:
    shared: Shared = redis_shared(valkey.url, namespace)
    with gateway(shared, namespace, server={"auth": "keys"}) as gate:
        admin.create_tenant(limits={"requests_per_minute": 1})
        key = admin.create_key()["key"]
        refused = gate.http.get("/v1/models")
        gate.http.headers["authorization"] = f"Bearer {key}"
        document = gate.http.get("/openapi.json").json()
        limited = gate.http.get("/v1/models")
    assert [refused.status_code, limited.status_code] == [401, 429]
    for reply in (refused, limited):
        check(reply, document, "GET", "/v1/models")
    for (_, path), call in calls_of(document).items():
        assert call.get("security") == (None if path in OPEN_PATHS else [{"key": []}]), path


def test_where_no_key_is_needed_the_document_says_so(document: dict[str, Any]) -> None:
    call = calls_of(document)["GET", "/v1/models"]
    assert {} in call["security"]
