"""`/v1/tasks` through the wire: register once, find again, delete for good."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from loragen.errors import GeneratorUnavailable, PromptTooLong
from tests.fakes.fake_worker import POOL_ID
from tests.fakes.gateway import MODEL, Gateway, expected_recipe, gateway, redis_store, tenant_keys
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

PROMPT = "You are Ada. Answer in verse. 🦊 ünïcode\r\n\ttabs"


def error_of(reply: Any) -> tuple[int, str, str | None]:
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return reply.status_code, error["code"], error["param"]


def test_a_new_prompt_is_compiled_and_described(gate: Gateway) -> None:
    reply = gate.http.post("/v1/tasks", json={"model": MODEL, "system_prompt": PROMPT})
    assert reply.status_code == 201
    recipe = expected_recipe(PROMPT)
    task = reply.json()
    created_at = task.pop("created_at")
    assert isinstance(created_at, int)
    assert task == {
        "id": tenant_keys().task_ids(edge_model=MODEL, prompt=PROMPT)[0],
        "object": "task",
        "name": None,
        "model": MODEL,
        "status": "ready",
        "fallback_reason": None,
        "prompt_tokens": len(PROMPT.split()) + 2,
        "policy": {"fallback": "prompt", "refine": "auto", "shadow": "allow"},
        "min_fidelity": 0.8,
        "recipe": {"id": recipe.id, "pool_id": POOL_ID, "bytes": len(recipe.data)},
        "fidelity": None,
        "agreement": None,
        "measured": False,
        "doubt": None,
        "measures": [],
        "refine": None,
        "compile_seconds": 0.01,
        "cached": False,
    }


def test_the_same_prompt_again_is_the_same_task_and_no_compile(gate: Gateway) -> None:
    first = gate.create(PROMPT)
    before = gate.metric("loragen_compile_seconds_count")
    reply = gate.http.post("/v1/tasks", json={"model": MODEL, "system_prompt": PROMPT})
    assert reply.status_code == 200
    assert reply.json() == {**first, "cached": True}
    assert gate.metric("loragen_compile_seconds_count") == before
    assert gate.generator.calls.total() == 1


def test_prompts_that_differ_in_one_character_are_two_tasks(gate: Gateway) -> None:
    assert gate.create(PROMPT)["id"] != gate.create(PROMPT + " ")["id"]


def test_many_who_register_one_prompt_at_once_get_one_task_and_one_compile(gate: Gateway) -> None:
    with ThreadPoolExecutor(20) as pool:
        tasks = list(pool.map(lambda _: gate.create(PROMPT), range(20)))
    assert len({task["id"] for task in tasks}) == 1
    assert {task["status"] for task in tasks} == {"ready"}
    assert gate.generator.calls.total() == 1


def test_a_task_can_be_awaited_elsewhere(gate: Gateway) -> None:
    gate.generator.is_held = True
    reply = gate.http.post(
        "/v1/tasks", json={"model": MODEL, "system_prompt": PROMPT, "wait": False}
    )
    assert reply.status_code == 202
    task = reply.json()
    assert (task["status"], task["recipe"]) == ("compiling", None)
    path = f"/v1/tasks/{task['id']}"
    assert gate.http.get(path).json()["status"] == "compiling"
    gate.generator.is_held = False
    wait_until(lambda: gate.http.get(path).json()["status"] == "ready")


def test_a_task_is_read_listed_and_deleted(gate: Gateway) -> None:
    task = gate.create(PROMPT, name="ada")
    shown = {key: value for key, value in task.items() if key != "cached"}
    path = f"/v1/tasks/{task['id']}"
    assert gate.http.get(path).json() == shown
    page = gate.http.get("/v1/tasks").json()
    assert page == {
        "object": "list", "data": [shown], "first_id": task["id"], "last_id": task["id"],
        "has_more": False,
    }  # fmt: skip
    assert PROMPT not in gate.http.get("/v1/tasks").text
    assert gate.http.delete(path).json() == {
        "id": task["id"], "object": "task.deleted", "deleted": True
    }  # fmt: skip
    for reply in (gate.http.get(path), gate.http.delete(path), gate.ask("x", task_id=task["id"])):
        assert error_of(reply) == (404, "task_not_found", "task_id")
    assert gate.http.get("/v1/tasks").json()["data"] == []
    assert gate.create(PROMPT, name="ada")["cached"] is False


def test_a_page_has_its_limit_and_says_if_there_is_more(gate: Gateway) -> None:
    made = [gate.create(f"Prompt {number}.")["id"] for number in range(5)]
    page = gate.http.get("/v1/tasks", params={"limit": 3}).json()
    assert (len(page["data"]), page["has_more"]) == (3, True)
    for task_id in made[:2]:
        gate.http.delete(f"/v1/tasks/{task_id}")
    page = gate.http.get("/v1/tasks", params={"limit": 3}).json()
    assert {task["id"] for task in page["data"]} == set(made[2:])
    assert page["has_more"] is False


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_follow_one_another_while_their_tasks_are_deleted(gate: Gateway, order: str) -> None:
    made = {gate.create(f"Prompt {number}.")["id"] for number in range(5)}
    seen: list[str] = []
    page: dict[str, Any] = {"has_more": True, "last_id": None}
    while page["has_more"]:
        after = {"after": page["last_id"]} if seen else {}
        page = gate.http.get("/v1/tasks", params={"limit": 2, "order": order, **after}).json()
        found = [task["id"] for task in page["data"]]
        assert (page["first_id"], page["last_id"]) == (found[0], found[-1])
        seen += found
        for task_id in found:
            gate.http.delete(f"/v1/tasks/{task_id}")
    assert len(seen) == 5
    assert set(seen) == made
    page = gate.http.get("/v1/tasks").json()
    assert page == {
        "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("limit=", "limit"),
     ("order=up", "order"), ("after=", "after"), ("before=x", "before")],
)  # fmt: skip
def test_a_page_that_cannot_be_is_refused(gate: Gateway, query: str, param: str) -> None:
    assert error_of(gate.http.get(f"/v1/tasks?{query}")) == (400, "invalid_request", param)


def test_a_page_behind_an_unknown_task_is_not_found(gate: Gateway) -> None:
    reply = gate.http.get("/v1/tasks", params={"after": "task_" + "a" * 26})
    assert error_of(reply) == (404, "task_not_found", "after")


def test_a_name_belongs_to_one_task(gate: Gateway) -> None:
    task = gate.create("One.", name="ada")
    reply = gate.http.post(
        "/v1/tasks", json={"model": MODEL, "system_prompt": "Two.", "name": "ada"}
    )
    assert error_of(reply) == (409, "conflict", "name")
    assert task["id"] in reply.json()["error"]["message"]
    assert [found["id"] for found in gate.http.get("/v1/tasks").json()["data"]] == [task["id"]]


@pytest.mark.parametrize(
    ("field", "value"),
    [("policy", {"fallback": "error"}), ("min_fidelity", 0.5)],
)
def test_a_known_prompt_with_other_settings_is_a_conflict(
    gate: Gateway, field: str, value: Any
) -> None:
    gate.create(PROMPT, name="ada")
    body = {"model": MODEL, "system_prompt": PROMPT, field: value}
    assert error_of(gate.http.post("/v1/tasks", json=body)) == (409, "conflict", field)


def test_a_known_prompt_with_the_same_settings_is_found(gate: Gateway) -> None:
    settings: dict[str, Any] = {"name": "ada", "policy": {"fallback": "none"}, "min_fidelity": 0.5}
    first = gate.create(PROMPT, **settings)
    assert gate.create(PROMPT, **settings) == {**first, "cached": True}
    assert gate.create(PROMPT) == {**first, "cached": True}


def test_without_the_generator_a_new_prompt_falls_back_and_recovers(gate: Gateway) -> None:
    old = gate.create("Old prompt.")
    gate.generator.error = GeneratorUnavailable("gone")
    task = gate.create(PROMPT)
    assert (task["status"], task["fallback_reason"]) == ("fallback", "generator_unavailable")
    reply = gate.ask("hi", task_id=task["id"])
    assert reply.headers["x-loragen-mode"] == "prompt"
    assert reply.headers["x-loragen-fallback-reason"] == "generator_unavailable"
    assert gate.ask("hi", task_id=old["id"]).headers["x-loragen-mode"] == "compiled"
    gate.generator.error = None
    wait_until(lambda: gate.ask("hi", task_id=task["id"]).headers["x-loragen-mode"] == "compiled")
    shown = gate.http.get(f"/v1/tasks/{task['id']}").json()
    assert (shown["status"], shown["fallback_reason"]) == ("ready", None)


def test_registering_again_tries_a_failed_compile_again(gate: Gateway) -> None:
    gate.generator.error = GeneratorUnavailable("gone")
    gate.create(PROMPT)
    gate.generator.error = None
    again = gate.create(PROMPT)
    assert (again["status"], again["cached"]) == ("ready", True)


def test_a_prompt_only_the_edge_model_can_read_is_kept_and_served(gate: Gateway) -> None:
    gate.generator.error = PromptTooLong("too long")
    task = gate.create(PROMPT)
    assert (task["status"], task["fallback_reason"]) == ("fallback", "prompt_too_long")
    assert gate.ask("hi", task_id=task["id"]).headers["x-loragen-mode"] == "prompt"


def test_a_prompt_nobody_can_read_is_refused_and_not_kept(gate: Gateway) -> None:
    gate.generator.error = PromptTooLong("too long")
    body = {"model": MODEL, "system_prompt": "word " * 300}
    reply = gate.http.post("/v1/tasks", json=body)
    assert error_of(reply) == (400, "context_length_exceeded", "system_prompt")
    assert gate.http.get("/v1/tasks").json()["data"] == []


def test_a_known_task_that_nobody_can_read_any_more_is_refused_and_kept(gate: Gateway) -> None:
    gate.generator.error = PromptTooLong("too long")
    body = {"model": MODEL, "system_prompt": "word " * 100}
    task_id = gate.http.post("/v1/tasks", json=body).json()["id"]
    gate.worker.max_model_len = 50  # as after a restart with another setting
    wait_until(lambda: gate.http.post("/v1/tasks", json=body).status_code == 400)
    assert [each["id"] for each in gate.http.get("/v1/tasks").json()["data"]] == [task_id]


def test_a_model_without_generator_serves_prompts_it_can_read(
    valkey: Valkey, namespace: str
) -> None:
    store = redis_store(valkey.url, namespace)
    with gateway(store, namespace, has_generator=False) as gate:
        task = gate.create(PROMPT)
        assert (task["status"], task["fallback_reason"]) == ("fallback", "no_generator")
        reply = gate.ask("hi", task_id=task["id"])
        assert reply.headers["x-loragen-fallback-reason"] == "no_generator"
        body = {"model": MODEL, "system_prompt": "word " * 300}
        refused = gate.http.post("/v1/tasks", json=body)
        assert error_of(refused) == (400, "context_length_exceeded", "system_prompt")


def test_policies_without_fallback_are_kept(gate: Gateway) -> None:
    gate.generator.error = GeneratorUnavailable("gone")
    strict = gate.create("Strict.", policy={"fallback": "error"})
    assert strict["status"] == "failed"
    reply = gate.ask("hi", task_id=strict["id"])
    assert error_of(reply) == (503, "unavailable", "task_id")
    assert int(reply.headers["retry-after"]) >= 1
    loose = gate.create("Loose.", policy={"fallback": "none"})
    reply = gate.ask("hi", task_id=loose["id"])
    assert reply.headers["x-loragen-mode"] == "base"
    assert reply.headers["x-loragen-task"] == loose["id"]
    assert "[system none]" in reply.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"model": "nobody", "system_prompt": "x"}, 404, "model_not_found", "model"),
        ({"model": "", "system_prompt": "x"}, 404, "model_not_found", "model"),
        ({"model": MODEL + ":x", "system_prompt": "x"}, 404, "model_not_found", "model"),
        ({"model": MODEL, "system_prompt": "  "}, 400, "invalid_request", "system_prompt"),
        ({"model": MODEL, "system_prompt": {}}, 400, "invalid_request", "system_prompt"),
        ({"model": MODEL, "system_prompt": "x" * 300_000}, 400, "invalid_request", "system_prompt"),
        ({"model": MODEL, "system_prompt": "x", "tools": {}}, 400, "invalid_request", "tools"),
        ({"model": MODEL, "system_prompt": "x", "name": "A"}, 400, "invalid_request", "name"),
    ],
)
def test_a_bad_task_is_refused(
    gate: Gateway, body: dict[str, Any], status: int, code: str, param: str
) -> None:
    assert error_of(gate.http.post("/v1/tasks", json=body)) == (status, code, param)
    assert gate.http.get("/v1/tasks").json()["data"] == []


@pytest.mark.parametrize(
    "task_id", ["nobody", "task_" + "a" * 26, "a%00b", "%F0%9F%A6%8A", "x" * 999]
)
def test_no_such_task_is_not_found(gate: Gateway, task_id: str) -> None:
    assert error_of(gate.http.get(f"/v1/tasks/{task_id}")) == (404, "task_not_found", "task_id")
    assert error_of(gate.http.delete(f"/v1/tasks/{task_id}")) == (404, "task_not_found", "task_id")
