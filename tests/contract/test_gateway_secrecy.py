"""Prompts, messages, recipes and secrets are in no log line, whatever happens."""

import io
import json

import pytest

from loragen.api_key import ApiKey
from loragen.errors import GeneratorUnavailable, LoragenError
from loragen.recipe import Recipe
from loragen.redis_store import RedisStore
from tests.fakes.admin import ADMIN_SECRET, admin_api
from tests.fakes.gateway import MASTER_SECRET, MODEL, Gateway, gateway, redis_shared
from tests.fakes.live import wait_until
from tests.fakes.stub_generator import recipe_of
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

CANARY = "CANARY-7f3a"
PROMPT = f"You are {CANARY}."


def shapes(recipe: Recipe) -> tuple[str, ...]:
    """Return how a recipe would look in a line of JSON: its text, or its bytes."""
    return recipe.text, recipe.data.hex(), json.dumps(str(recipe.data))[1:-1]


def test_a_full_run_logs_neither_prompts_nor_recipes_nor_secrets(
    logged: io.StringIO, own_gate: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = own_gate
    question = f"question {CANARY}"
    body = {"model": MODEL, "messages": [{"role": "user", "content": question}]}

    gate.http.post("/v1/chat/completions", content=f'{{"model": "{CANARY}')
    gate.http.post("/v1/tasks", json={"model": MODEL, "system_prompt": [CANARY]})
    gate.http.post("/v1/chat/completions", json=body, headers={"x-lora-recipe": CANARY})
    gate.http.post("/v1/responses", json={"model": MODEL, "input": question, "stream": True})
    gate.http.post("/v1/responses", json={"model": MODEL, "input": [CANARY], CANARY: 1})
    gate.http.put("/v1/tasks/by-name/ada", json={"model": MODEL, "system_prompt": f"{PROMPT}!"})
    lines = gate.http.get("/v1/tasks/export").text + f'{{"model": "{CANARY}\n{{"{CANARY}": 1}}'
    imported = {"content-type": "application/x-ndjson"}
    gate.http.post("/v1/tasks/import", content=lines, headers=imported)
    gate.http.post("/v1/chat/completions", json=body, headers={"x-request-id": f"{CANARY} x"})
    gate.generator.error = GeneratorUnavailable(CANARY)
    task_id = gate.create(PROMPT)["id"]
    gate.ask(question, task_id=task_id)
    gate.generator.error = None
    wait_until(lambda: gate.create(PROMPT)["status"] == "ready")
    gate.ask(question, task_id=task_id)
    probes = [{"input": f"{CANARY} {number}", "output": CANARY} for number in range(8)]
    refine = f"/v1/tasks/{task_id}/refine"
    gate.http.post(refine, json={"probes": [*probes, probes[0]]})
    for error in (LoragenError(CANARY), None):
        gate.generator.refine_error = error
        assert gate.http.post(refine, json={"probes": probes}).status_code == 202
        wait_until(
            lambda: gate.http.get(f"/v1/tasks/{task_id}").json()["refine"]["status"] != "running"
        )
    start = gate.generator.refines[-1].start
    assert start is not None
    refined = recipe_of(f"refined {PROMPT} 2")  # the first refine fails
    served = gate.ask(question, task_id=task_id, stream=True)
    assert served.headers["x-loragen-recipe"] == refined.id
    gate.worker.error_after = 1
    gate.ask(question, task_id=task_id, stream=True)
    gate.worker.error_after, gate.worker.die_after = None, 1
    gate.ask(question, task_id=task_id, stream=True)
    gate.worker.die_after, gate.worker.fail_status = None, 500
    gate.ask(question, task_id=task_id)
    gate.worker.fail_status = None
    gate.worker.pool_id = "00" * 32
    gate.ask(question, task_id=task_id)

    async def broken(self: RedisStore, tenant: str, task_id: str) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(RedisStore, "get", broken)
    assert gate.http.get(f"/v1/tasks/{task_id}").status_code == 500

    text = logged.getvalue()
    assert "a bug of ours" in text  # so the log was listened to, with tracebacks
    assert task_id in text
    recipes = (*shapes(Recipe.from_text(start)), *shapes(refined))
    secrets = (CANARY, *recipes, MASTER_SECRET, str(gate.worker.key))
    assert [line for line in text.splitlines() if any(secret in line for secret in secrets)] == []


def test_an_api_key_is_in_no_log_no_metric_no_answer_and_nowhere_in_redis(
    logged: io.StringIO, valkey: Valkey, namespace: str
) -> None:
    forged = ApiKey.make()
    with admin_api(valkey.url, namespace) as admin:
        admin.create_tenant(limits={"requests_per_minute": 8})  # so that some are refused
        key = ApiKey.try_parse(admin.create_key()["key"])
        assert key is not None
        said = [admin.http.get(path).text for path in ("/admin/tenants/acme/keys", "/admin/x")]
    with gateway(redis_shared(valkey.url, namespace), namespace, server={"auth": "keys"}) as gate:
        for shown in (key.text, key.text, key.text, forged.text, f"{key.text}x"):
            gate.http.headers["authorization"] = f"Bearer {shown}"
            task = {"model": MODEL, "system_prompt": PROMPT}
            said.append(gate.http.post("/v1/tasks", json=task).text)
            for reply in (gate.ask("hi"), gate.ask("hi", stream=True), gate.http.get("/nowhere")):
                said += [reply.text, str(reply.headers)]
        said.append(gate.http.get("/metrics").text)
        stored = list(valkey.contents(namespace))
    assert any(key.id.encode() in each for each in stored)  # so Redis was looked through
    everything = [logged.getvalue(), *said, *(str(each) for each in stored)]
    assert any("rate_limit_exceeded" in each for each in said)
    secrets = (key.text, forged.text, key.text.rpartition("_")[2], ADMIN_SECRET)
    for secret in secrets:
        assert not [each for each in everything if secret in each]
