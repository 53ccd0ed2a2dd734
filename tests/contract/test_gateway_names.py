"""`/v1/tasks/by-name`: edit a prompt under the same name, see what was, go back to it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from loragen.errors import GeneratorUnavailable, PromptTooLong
from tests.fakes.gateway import MODEL, Gateway, expected_recipe, gateway, redis_store
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

PATH = "/v1/tasks/by-name/ada"


def put(gate: Gateway, prompt: str, path: str = PATH, **fields: Any) -> Any:
    return gate.http.put(path, json={"model": MODEL, "system_prompt": prompt, **fields})


def error_of(reply: Any) -> tuple[int, str, str | None]:
    error = reply.json()["error"]
    return reply.status_code, error["code"], error["param"]


def prompt_behind(gate: Gateway, *prompts: str, name: str = "ada") -> str:
    """Return which of the prompts the name serves, compiled or in context."""
    reply = gate.ask("hi", model=f"{MODEL}:{name}")
    assert reply.status_code == 200, reply.text
    text = reply.json()["choices"][0]["message"]["content"]
    signs = {prompt: (expected_recipe(prompt).id, f"[system {prompt}]") for prompt in prompts}
    (found,) = [prompt for prompt, sign in signs.items() if any(each in text for each in sign)]
    return found


def numbers(gate: Gateway) -> list[int]:
    return [version["version"] for version in gate.http.get(f"{PATH}/versions").json()["data"]]


def test_a_prompt_is_edited_under_its_name(gate: Gateway) -> None:
    first = put(gate, "One.")
    assert first.status_code == 201
    task = first.json()
    assert (task["name"], task["version"], task["cached"]) == ("ada", 1, False)
    assert task["status"] == "ready"
    assert prompt_behind(gate, "One.", "Two.") == "One."
    second = put(gate, "Two.")
    assert (second.status_code, second.json()["version"]) == (201, 2)
    assert prompt_behind(gate, "One.", "Two.") == "Two."
    assert gate.ask("hi", task_id=task["id"]).headers["x-loragen-task"] == task["id"]
    assert gate.http.get(f"/v1/tasks/{task['id']}").json()["name"] is None
    shown = {key: value for key, value in second.json().items() if key != "cached"}
    assert gate.http.get(PATH).json() == shown
    assert gate.http.get(f"/v1/tasks/{shown['id']}").json() == {
        key: value for key, value in shown.items() if key != "version"
    }
    models = gate.http.get("/v1/models", params={"tasks": "true"}).json()["data"]
    assert [model["id"] for model in models] == [MODEL, f"{MODEL}:ada"]


def test_the_same_prompt_again_is_no_version(gate: Gateway) -> None:
    put(gate, "One.")
    again = put(gate, "One.")
    assert again.status_code == 200
    assert (again.json()["version"], again.json()["cached"]) == (1, True)
    assert gate.generator.calls.total() == 1


def test_a_registered_prompt_gets_a_name_and_a_second_one(gate: Gateway) -> None:
    task = gate.create("One.", name="ada")
    assert (task["name"], gate.http.get(PATH).json()["version"]) == ("ada", 1)
    again = gate.create("One.", name="bob")
    assert (again["cached"], again["name"]) == (True, "bob")
    assert prompt_behind(gate, "One.", name="bob") == "One."
    reply = put(gate, "Two.")
    assert (reply.status_code, reply.json()["version"]) == (201, 2)
    refused = gate.http.post(
        "/v1/tasks", json={"model": MODEL, "system_prompt": "Three.", "name": "ada"}
    )
    assert error_of(refused) == (409, "conflict", "name")
    assert f"PUT {PATH}" in refused.json()["error"]["message"]
    assert len(gate.http.get("/v1/tasks").json()["data"]) == 2


def test_versions_are_listed_newest_first_and_can_be_gone_back_to(gate: Gateway) -> None:
    made = [put(gate, prompt).json()["id"] for prompt in ("One.", "Two.")]
    back = gate.http.post(f"{PATH}/rollback")
    assert back.status_code == 201
    assert (back.json()["id"], back.json()["version"], back.json()["name"]) == (made[0], 3, "ada")
    assert prompt_behind(gate, "One.", "Two.") == "One."
    page = gate.http.get(f"{PATH}/versions").json()
    assert (page["object"], page["has_more"]) == ("list", False)
    shown = [(each["version"], each["task_id"], each["current"]) for each in page["data"]]
    assert shown == [(3, made[0], True), (2, made[1], False), (1, made[0], False)]
    assert all(isinstance(each["created_at"], int) for each in page["data"])
    assert gate.http.post(f"{PATH}/rollback", json={"version": 1}).status_code == 200
    assert gate.http.post(f"{PATH}/rollback", json={"version": 2}).json()["version"] == 4
    assert gate.generator.calls.total() == 2
    assert error_of(gate.http.post(f"{PATH}/rollback", json={"version": 9})) == (
        404, "not_found", "version"
    )  # fmt: skip


def test_until_the_edit_can_answer_the_name_serves_what_it_did(gate: Gateway) -> None:
    put(gate, "One.")
    gate.generator.is_held = True
    reply = put(gate, "Two.", wait=False)
    assert reply.status_code == 202
    assert (reply.json()["status"], reply.json()["version"]) == ("compiling", None)
    assert prompt_behind(gate, "One.", "Two.") == "One."
    assert gate.http.get(PATH).json()["version"] == 1
    gate.generator.is_held = False
    wait_until(lambda: gate.http.get(PATH).json()["version"] == 2)
    assert prompt_behind(gate, "One.", "Two.") == "Two."


def test_a_new_name_is_there_at_once(gate: Gateway) -> None:
    gate.generator.is_held = True
    reply = put(gate, "One.", wait=False)
    assert (reply.status_code, reply.json()["version"]) == (202, 1)
    gate.generator.is_held = False
    assert prompt_behind(gate, "One.") == "One."


def test_an_edit_without_waiting_does_not_undo_a_later_one(gate: Gateway) -> None:
    put(gate, "One.")
    gate.generator.is_held = True
    put(gate, "Two.", wait=False)
    wait_until(lambda: gate.generator.calls["Two."] == 1)
    assert gate.http.post(f"{PATH}/rollback", json={"version": 1}).status_code == 200
    gate.generator.is_held = False
    wait_until(
        lambda: [t["status"] for t in gate.http.get("/v1/tasks").json()["data"]] == ["ready"] * 2
    )
    assert put(gate, "Three.").json()["version"] == 2
    assert numbers(gate) == [2, 1]


def test_an_edit_that_was_overtaken_while_it_waited_is_told_so(gate: Gateway) -> None:
    put(gate, "One.")
    gate.create("Three.")
    gate.generator.is_held = True
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(put, gate, "Two.")
        wait_until(lambda: gate.generator.calls["Two."] == 1)
        assert put(gate, "Three.").json()["version"] == 2
        gate.generator.is_held = False
        assert error_of(slow.result()) == (409, "conflict", "name")
    assert prompt_behind(gate, "One.", "Two.", "Three.") == "Three."
    assert numbers(gate) == [2, 1]


def test_an_edit_in_one_gateway_is_served_by_another(gate: Gateway, valkey: Valkey) -> None:
    with gateway(redis_store(valkey.url, gate.namespace), gate.namespace) as other:
        for prompt in ("One.", "Two."):
            put(gate, prompt)
            assert prompt_behind(other, "One.", "Two.") == prompt
        gate.http.delete(PATH)
        assert error_of(other.ask("hi", model=f"{MODEL}:ada"))[0] == 404


def test_without_the_generator_a_name_moves_to_a_prompt_in_context(gate: Gateway) -> None:
    put(gate, "One.")
    gate.generator.error = GeneratorUnavailable("gone")
    reply = put(gate, "Two.")
    assert (reply.status_code, reply.json()["status"]) == (201, "fallback")
    assert prompt_behind(gate, "One.", "Two.") == "Two."


@pytest.mark.parametrize("wait", [True, False])
def test_a_name_does_not_move_to_a_task_that_cannot_answer(gate: Gateway, wait: bool) -> None:
    put(gate, "One.")
    gate.generator.error = GeneratorUnavailable("gone")
    reply = put(gate, "Two.", policy={"fallback": "error"}, wait=wait)
    if wait:
        assert error_of(reply) == (503, "unavailable", None)
        assert "retry-after" in reply.headers
    wait_until(lambda: gate.metric("loragen_compile_inflight") == 0)
    assert prompt_behind(gate, "One.", "Two.") == "One."
    gate.generator.error = None
    again = put(gate, "Two.", policy={"fallback": "error"})
    assert (again.status_code, again.json()["version"]) == (201, 2)


def test_a_prompt_nobody_can_read_leaves_the_name_as_it_was(gate: Gateway) -> None:
    put(gate, "One.")
    gate.generator.error = PromptTooLong("too long")
    reply = put(gate, "word " * 300)
    assert error_of(reply) == (400, "context_length_exceeded", "system_prompt")
    gate.generator.error = None
    assert prompt_behind(gate, "One.") == "One."
    assert len(gate.http.get("/v1/tasks").json()["data"]) == 1


def test_a_name_whose_task_is_deleted_is_not_found_until_it_gets_another(gate: Gateway) -> None:
    put(gate, "One.")
    task_id = put(gate, "Two.").json()["id"]
    gate.http.delete(f"/v1/tasks/{task_id}")
    assert error_of(gate.ask("hi", model=f"{MODEL}:ada")) == (404, "task_not_found", "task_id")
    assert error_of(gate.http.get(PATH)) == (404, "task_not_found", "name")
    assert numbers(gate) == [1]
    assert gate.http.get("/v1/models", params={"tasks": "true"}).json()["data"][1:] == []
    assert gate.http.post(f"{PATH}/rollback").json()["version"] == 3
    assert prompt_behind(gate, "One.", "Two.") == "One."


def test_a_deleted_name_leaves_its_tasks(gate: Gateway) -> None:
    task_id = put(gate, "One.").json()["id"]
    reply = gate.http.delete(PATH)
    assert reply.json() == {"name": "ada", "object": "task.name.deleted", "deleted": True}
    assert error_of(gate.ask("hi", model=f"{MODEL}:ada")) == (404, "task_not_found", "task_id")
    assert gate.ask("hi", task_id=task_id).status_code == 200
    assert gate.http.get(f"/v1/tasks/{task_id}").json()["name"] is None
    assert put(gate, "One.").json()["version"] == 1


@pytest.mark.parametrize("path", ["", "/versions"])
def test_a_name_that_nobody_gave_is_not_found(gate: Gateway, path: str) -> None:
    assert error_of(gate.http.get(PATH + path)) == (404, "task_not_found", "name")
    assert error_of(gate.http.delete(PATH)) == (404, "task_not_found", "name")
    assert error_of(gate.http.post(f"{PATH}/rollback")) == (404, "task_not_found", "name")


@pytest.mark.parametrize("name", ["A", "-a", "a" * 64, "a%20b", "task_" + "a" * 26, "ünï"])
def test_a_name_that_cannot_be_one_is_refused(gate: Gateway, name: str) -> None:
    path = f"/v1/tasks/by-name/{name}"
    assert error_of(put(gate, "One.", path)) == (400, "invalid_request", "name")
    assert error_of(gate.http.get(path)) == (400, "invalid_request", "name")
    assert gate.http.get("/v1/tasks").json()["data"] == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": "ada"}, "name"),
        ({"system_prompt": " "}, "system_prompt"),
        ({"policy": {"fallback": "x"}}, "policy.fallback"),
        ({"wait": "perhaps"}, "wait"),
    ],
)
def test_a_bad_edit_names_its_field(gate: Gateway, fields: dict[str, Any], param: str) -> None:
    body = {"model": MODEL, "system_prompt": "One.", **fields}
    assert error_of(gate.http.put(PATH, json=body)) == (400, "invalid_request", param)
    assert error_of(gate.http.post(f"{PATH}/rollback", json={"version": 0}))[2] == "version"


def test_an_edit_with_other_settings_of_a_known_prompt_is_a_conflict(gate: Gateway) -> None:
    gate.create("One.")
    reply = put(gate, "One.", policy={"fallback": "none"})
    assert error_of(reply) == (409, "conflict", "policy")
    assert gate.http.get(PATH).status_code == 404
