"""Tasks as lines of JSON: out of one installation, into another, none of them twice."""

import json
from typing import Any

import httpx
import pytest

from loragen.errors import StoreUnavailable
from loragen.redis_store import RedisStore
from tests.fakes.gateway import MODEL, Gateway, expected_recipe, gateway, redis_store
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

LINES = {"content-type": "application/x-ndjson"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def send(gate: Gateway, content: str | bytes, **headers: str) -> list[dict[str, Any]]:
    reply = gate.http.post("/v1/tasks/import", content=content, headers={**LINES, **headers})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in reply.text.splitlines()]


def line(prompt: str, **fields: Any) -> str:
    return json.dumps({"model": MODEL, "system_prompt": prompt} | fields)


def state(gate: Gateway) -> dict[str, Any]:
    """Return all that clients see of tasks, names and versions, but not of compiling."""
    tasks = gate.http.get("/v1/tasks", params={"limit": 100}).json()["data"]
    names = {task["name"] for task in tasks if task["name"]} | {"ada", "bob"}
    kept = ("id", "name", "model", "created_at", "prompt_tokens", "policy", "min_fidelity")
    return {
        "tasks": [{key: task[key] for key in kept} for task in tasks],
        "names": {
            name: gate.http.get(f"/v1/tasks/by-name/{name}/versions").json()["data"]
            for name in sorted(names)
        },
    }


def test_an_empty_installation_has_everything_again(gate: Gateway, valkey: Valkey) -> None:
    one = gate.create("One. 🦊\n\u2028 ünï", name="ada", min_fidelity=0.5)["id"]
    gate.create("Alone.", policy={"fallback": "none"}, tools=[TOOL])
    for name, prompt in (("ada", "Two."), ("bob", "Two."), ("ada", "Three.")):
        body = {"model": MODEL, "system_prompt": prompt}
        gate.http.put(f"/v1/tasks/by-name/{name}", json=body)
    gate.http.post("/v1/tasks/by-name/ada/rollback", json={"version": 1})
    before = state(gate)
    reply = gate.http.get("/v1/tasks/export")
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    assert len(reply.content.split(b"\n")) == 5
    exported = json.loads(reply.content.split(b"\n")[0])
    assert set(exported) <= {
        "id", "model", "system_prompt", "tools", "policy", "min_fidelity", "created_at", "names"
    }  # fmt: skip

    for key in valkey.client.scan_iter(f"{gate.namespace}:*"):
        valkey.client.delete(key)
    assert gate.http.get("/v1/tasks").json()["data"] == []
    *results, summary = send(gate, reply.content)
    assert summary == {"object": "task.import", "created": 4, "existing": 0, "failed": 0}
    assert [result["line"] for result in results] == [1, 2, 3, 4]
    assert {result["id"] for result in results} == {task["id"] for task in before["tasks"]}
    assert state(gate) == before
    assert gate.http.get("/v1/tasks/export").content == reply.content
    answer = gate.ask("hi", model=f"{MODEL}:ada")
    assert answer.headers["x-loragen-task"] == one
    wait_until(
        lambda: {task["status"] for task in gate.http.get("/v1/tasks").json()["data"]} == {"ready"}
    )
    recipe = expected_recipe("One. 🦊\n\u2028 ünï").id
    assert gate.ask("hi", model=f"{MODEL}:ada").headers["x-loragen-recipe"] == recipe

    *_, summary = send(gate, reply.content)
    assert summary == {"object": "task.import", "created": 0, "existing": 4, "failed": 0}
    assert state(gate) == before


def test_more_tasks_than_a_page_are_exported_and_imported(gate: Gateway) -> None:
    content = "\n".join(line(f"Prompt {number}.", created_at=number) for number in range(105))
    *results, summary = send(gate, content)
    assert summary["created"] == len(results) == 105
    exported = gate.http.get("/v1/tasks/export").text.splitlines()
    assert [json.loads(each)["created_at"] for each in exported] == list(range(105))
    wait_until(lambda: gate.generator.calls.total() == 105)


def test_no_tasks_are_an_empty_file_and_an_empty_file_is_no_task(gate: Gateway) -> None:
    assert gate.http.get("/v1/tasks/export").content == b""
    for content in ("", "\n\r\n  \n"):
        assert send(gate, content) == [
            {"object": "task.import", "created": 0, "existing": 0, "failed": 0}
        ]


BAD: dict[str, tuple[str | bytes, str, str | None]] = {
    "no json": ("{", "invalid_request", None),
    "no object": ("[1]", "invalid_request", None),
    "not utf-8": (b'{"model": "\xff"}', "invalid_request", None),
    "bottomless": ('{"a":' * 5_000, "invalid_request", None),
    "unknown field": (line("x", text="y"), "invalid_request", "text"),
    "no prompt": (json.dumps({"model": MODEL}), "invalid_request", "system_prompt"),
    "no text": (line("a\x00b"), "invalid_request", "system_prompt"),
    "too large": (line("x" * 300_000), "invalid_request", "system_prompt"),
    "unknown model": (line("x", model="no"), "model_not_found", "model"),
    "no name": (line("x", names=[{"name": "A"}]), "invalid_request", "names.0.name"),
    "waiting": (line("x", wait=True), "invalid_request", "wait"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_line_is_named_and_loses_nothing_of_the_others(gate: Gateway, kind: str) -> None:
    bad, code, param = BAD[kind]
    middle = bad if isinstance(bad, bytes) else bad.encode()
    before, failed, after, summary = send(
        gate, b"\n".join([line("Before.").encode(), middle, line("After.").encode()])
    )
    assert (before["status"], after["status"]) == ("created", "created")
    assert failed["line"] == 2
    assert (failed["error"]["code"], failed["error"]["param"]) == (code, param)
    assert failed["error"]["message"].startswith("line 2: ")
    assert summary == {"object": "task.import", "created": 2, "existing": 0, "failed": 1}


def test_what_is_here_already_is_not_changed_by_an_import(gate: Gateway) -> None:
    task_id = gate.create("One.", name="ada")["id"]
    named = [{"name": "ada", "version": 1, "created_at": 5, "current": True}]
    other, settings, summary = send(
        gate,
        "\n".join([line("Two.", names=named), line("One.", policy={"fallback": "error"})]),
    )
    assert other["status"] == "created"
    assert (other["error"]["code"], other["error"]["param"]) == ("conflict", "names")
    assert (settings["error"]["code"], settings["error"]["param"]) == ("conflict", "policy")
    assert summary == {"object": "task.import", "created": 0, "existing": 0, "failed": 2}
    assert gate.http.get("/v1/tasks/by-name/ada").json()["id"] == task_id


def test_an_id_of_another_installation_is_said_beside_the_one_here(gate: Gateway) -> None:
    result, _ = send(gate, line("One.", id="task_" + "a" * 26))
    assert result["exported_id"] == "task_" + "a" * 26
    assert result["id"] == gate.create("One.")["id"]


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
def test_a_body_that_is_not_called_lines_is_told_so(gate: Gateway, kind: str) -> None:
    reply = gate.http.post("/v1/tasks/import", content=line("One."), headers={"content-type": kind})
    assert reply.status_code == 400
    assert "application/x-ndjson" in reply.json()["error"]["message"]
    assert send(gate, line("One."), **{"content-type": "application/jsonl; charset=utf-8"})


def test_imports_have_a_limit_of_their_own(valkey: Valkey, namespace: str) -> None:
    limits = {"max_body_bytes": 2_000, "max_import_bytes": 4_000}
    with gateway(redis_store(valkey.url, namespace), namespace, server=limits) as gate:
        content = line("x" * 3_000)
        assert send(gate, content)[-1]["created"] == 1
        reply = gate.http.post("/v1/tasks/import", content=content * 2, headers=LINES)
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
        assert "4000" in reply.json()["error"]["message"]


def test_an_export_that_breaks_off_does_not_look_complete(
    gate: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.create("One.")

    async def away(self: RedisStore, tenant: str, task_id: str) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(RedisStore, "get", away)
    with pytest.raises(httpx.RemoteProtocolError):
        gate.http.get("/v1/tasks/export")
