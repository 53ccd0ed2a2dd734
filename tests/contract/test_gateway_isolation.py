"""What another tenant has looks in every answer exactly as what nobody has."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.api_page import openapi
from tests.fakes.admin import admin_api
from tests.fakes.gateway import MODEL, Gateway, gateway, redis_shared
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

QUESTION = [{"role": "user", "content": "hi"}]
NAME = "ada"
CALLS: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("get", "/v1/tasks"): [{"params": {"after": "{id}"}}],
    ("get", "/v1/tasks/{task_id}"): [{"in": "task_id"}],
    ("delete", "/v1/tasks/{task_id}"): [{"in": "task_id"}],
    ("post", "/v1/tasks/{task_id}/refine"): [{"in": "task_id", "json": {}}],
    ("get", "/v1/tasks/by-name/{name}"): [{"in": "name"}],
    ("delete", "/v1/tasks/by-name/{name}"): [{"in": "name"}],
    ("get", "/v1/tasks/by-name/{name}/versions"): [{"in": "name"}],
    ("post", "/v1/tasks/by-name/{name}/rollback"): [{"in": "name", "json": {"version": 1}}],
    **{
        ("post", f"/v1/{path}"): [
            {"json": {"model": MODEL, "task_id": word, **body}}
            if form == "body"
            else {"json": {"model": f"{MODEL}:{word}", **body}}
            if form == "model"
            else {"json": {"model": MODEL, **body}, "headers": {"x-task-id": word}}
            for form in ("body", "model", "header")
            for word in ("{id}", "{name}")
        ]
        for path, body in (
            ("chat/completions", {"messages": QUESTION}),
            ("completions", {"prompt": "hi"}),
            ("responses", {"input": "hi"}),
        )
    },
}
"""Every call that means a task: how it says which one."""
BY_NAME_BUT_MAKING = {("put", "/v1/tasks/by-name/{name}"), ("get", "/v1/models/{name}")}
"""One makes what is not there; names of edge models are everybody's."""
VOLATILE = {"date", "x-request-id"}


@dataclass
class Two:
    """A gateway with two tenants, of which the first owns a task by name."""

    gate: Gateway
    owner: httpx.Client
    other: httpx.Client
    task_id: str


@pytest.fixture(scope="module")
def two(valkey: Valkey) -> Iterator[Two]:
    namespace = "isolation"
    with (
        gateway(redis_shared(valkey.url, namespace), namespace, server={"auth": "keys"}) as running,
        admin_api(valkey.url, namespace) as admin,
        httpx.Client(base_url=running.server.url, timeout=20) as owner,
        httpx.Client(base_url=running.server.url, timeout=20) as other,
    ):
        for tenant, client in (("acme", owner), ("globex", other)):
            admin.create_tenant(tenant, limits={"requests_per_minute": 1_000_000})
            client.headers["authorization"] = f"Bearer {admin.create_key(tenant)['key']}"
        task = {"model": MODEL, "system_prompt": "You are Ada.", "name": NAME}
        made = owner.post("/v1/tasks", json=task)
        assert made.status_code == 201, made.text
        yield Two(running, owner, other, made.json()["id"])


def ask(client: httpx.Client, case: tuple[str, str], form: dict[str, Any], word: str) -> Any:
    """Make a call that means a task by this id or name."""
    method, path = case
    for place in ("{task_id}", "{name}"):
        path = path.replace(place, word)

    def filled(value: Any) -> Any:
        match value:
            case dict():
                return {key: filled(each) for key, each in value.items()}
            case str():
                return value.replace("{id}", word).replace("{name}", word)
        return value

    fields = {key: filled(value) for key, value in form.items() if key != "in"}
    return client.request(method, path, **fields)


def is_by_name(case: tuple[str, str], form: dict[str, Any]) -> bool:
    return form.get("in") == "name" or "{name}" in str(form)


def seen(reply: httpx.Response, word: str) -> tuple[int, str, dict[str, str]]:
    """Return all that a client sees of an answer, but for what it said itself."""
    headers = {
        key: "a count" if key.startswith("x-ratelimit") else value
        for key, value in reply.headers.items()
        if key not in VOLATILE
    }
    return reply.status_code, reply.text.replace(word, "WORD"), headers


FORMS = [(case, form) for case, forms in CALLS.items() for form in forms]


def test_every_call_that_means_a_task_is_among_these() -> None:
    document = openapi()

    def fields_of(schema: dict[str, Any]) -> set[str]:
        found = set(schema.get("properties", ()))
        for part in (schema, *schema.get("anyOf", ())):
            if "$ref" in part:
                name = part["$ref"].rpartition("/")[2]
                found |= set(document["components"]["schemas"][name].get("properties", ()))
        return found

    meaning = set()
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            words = {each["name"] for each in call.get("parameters", ())}
            content = call.get("requestBody", {}).get("content", {})
            for body in content.values():
                words |= fields_of(body["schema"])
            if words & {"task_id", "x-task-id", "after"} or "{name}" in path:
                meaning.add((method, path))
    assert meaning == set(CALLS) | BY_NAME_BUT_MAKING


@pytest.mark.parametrize(("case", "form"), FORMS)
def test_another_tenants_task_looks_like_none(
    two: Two, case: tuple[str, str], form: dict[str, Any]
) -> None:
    word = NAME if is_by_name(case, form) else two.task_id

    @settings(max_examples=8)
    @given(unknown=_unknown(word))
    def check(unknown: str) -> None:
        of_another = ask(two.other, case, form, word)
        of_nobody = ask(two.other, case, form, unknown)
        assert of_nobody.status_code == 404
        assert seen(of_another, word) == seen(of_nobody, unknown)

    check()
    if case[0] != "delete":  # so that there was something to see
        assert ask(two.owner, case, form, word).status_code != 404


def _unknown(word: str) -> st.SearchStrategy[str]:
    """Return ids or names nobody has, as long as the one somebody has."""
    start = "task_" if word.startswith("task_") else ""
    size = len(word) - len(start)
    rest = st.text("jqxz234567", min_size=size, max_size=size)  # which no error's words hold
    return rest.map(lambda text: start + text).filter(lambda text: text != word)
