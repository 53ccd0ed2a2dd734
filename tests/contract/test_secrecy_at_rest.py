"""A planted prompt, tool, probe, message, recipe and key show where they belong and nowhere else.

With an encryption key Redis is not among those places, nor its files.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from loragen.errors import GeneratorUnavailable
from server.shared import Shared
from tests.fakes.gateway import MODEL, Gateway, expected_recipe, gateway, settings
from tests.fakes.live import wait_until
from tests.fakes.stub_generator import recipe_of
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

ENCRYPTION_KEY = "e7" * 32
PROMPT, TOOL, PROBE, MESSAGE, EDITED = (
    f"CANARY-{word}-58d0" for word in ("prompt", "tool", "probe", "message", "edited")
)
REFINED = recipe_of(f"refined {PROMPT} 1")
"""What the stub generator makes of the first refine."""
TEXTS = (PROMPT, TOOL, PROBE, MESSAGE, EDITED)


def tools() -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "clock", "description": TOOL}}]


def recipes() -> list[bytes]:
    """Return the recipes that are made without tools, as bytes and as text."""
    made = [*(expected_recipe(prompt) for prompt in (PROMPT, EDITED)), REFINED]
    return [part for recipe in made for part in (recipe.data, recipe.text.encode())]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    """A Redis whose files can be read: every write is in one, and nothing is compressed."""
    running = Valkey(tmp_path)
    for name, value in (
        ("aof-use-rdb-preamble", "no"),
        ("rdbcompression", "no"),
        ("appendfsync", "always"),
        ("appendonly", "yes"),
    ):
        running.client.config_set(name, value)
    wait_until(lambda: running.client.info("persistence")["aof_rewrite_in_progress"] == 0)
    yield running
    running.kill()


def drive(gate: Gateway) -> list[str]:
    """Use every way that text comes in by; return what the gateway says but in answers."""
    said = []

    def call(method: str, path: str, **fields: Any) -> Any:
        reply = gate.http.request(method, path, **fields)
        said.extend([reply.text, str(reply.headers)])
        return reply

    task = {"model": MODEL, "system_prompt": PROMPT}
    probes = [{"input": f"{PROBE} {number}", "output": PROBE} for number in range(8)]
    made = call("POST", "/v1/tasks", json={**task, "name": "ada", "probes": probes})
    assert made.status_code == 201, made.text
    task_id = made.json()["id"]
    call("POST", "/v1/tasks", json={**task, "tools": tools()})
    call("PUT", "/v1/tasks/by-name/ada", json={**task, "system_prompt": EDITED})
    call("POST", f"/v1/tasks/{task_id}/refine", json={"probes": probes})
    wait_until(
        lambda: gate.http.get(f"/v1/tasks/{task_id}").json()["refine"]["status"] != "running"
    )
    for path in ("", "/by-name/ada", "/by-name/ada/versions", f"/{task_id}"):
        assert call("GET", f"/v1/tasks{path}").status_code == 200
    call("GET", "/v1/models?tasks=true")
    user = {"role": "user", "content": MESSAGE}
    system = {"role": "system", "content": f"{PROMPT} {PROMPT}"}
    served = gate.ask(MESSAGE, task_id=task_id)
    assert served.headers["x-loragen-recipe"] == REFINED.id
    bodies: list[dict[str, Any]] = [
        {"model": MODEL, "task_id": task_id, "messages": [user]},
        {"model": MODEL, "task_id": task_id, "messages": [user], "stream": True},
        {"model": MODEL, "messages": [system, user]},  # seen
        {"model": MODEL, "messages": [system, user]},  # and seen again: an implicit task
        {"model": MODEL, "messages": [system, user], "system_prompt": "compile"},
    ]
    for body in bodies:
        assert gate.http.post("/v1/chat/completions", json=body).status_code == 200
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("/v1/tasks", {**task, "system_prompt": [PROMPT]}),
        ("/v1/tasks", {**task, "model": "unknown"}),
        ("/v1/tasks", {**task, "min_fidelity": 0.1}),
        ("/v1/tasks", {**task, "system_prompt": PROMPT * 20_000}),
        ("/v1/tasks", {**task, "tools": [{"type": TOOL}]}),
        ("/v1/tasks", {**task, "tools": [tools()[0], tools()[0]]}),
        ("/v1/tasks", {**task, "probes": [{"input": [PROBE]}]}),
        (f"/v1/tasks/{task_id}/refine", {"probes": [{"input": PROBE}]}),
        ("/v1/chat/completions", {"model": MODEL, "messages": [system, {"role": MESSAGE}]}),
        ("/v1/chat/completions", {"model": MODEL, "messages": [{**user, "content": [MESSAGE]}]}),
        ("/v1/completions", {"model": MODEL, "task_id": "task_x", "prompt": MESSAGE}),
        ("/v1/responses", {"model": "unknown", "instructions": PROMPT, "input": MESSAGE}),
    ]
    for path, body in wrong:
        assert call("POST", path, json=body).status_code >= 400
    call("POST", "/v1/tasks", content=json.dumps(task)[:-2])
    gate.generator.error = GeneratorUnavailable("away")
    call("POST", "/v1/tasks", json={**task, "system_prompt": f"{PROMPT} again"})
    gate.generator.error = None
    gate.worker.fail_status = 500
    failed = gate.ask(MESSAGE, task_id=task_id)
    assert failed.status_code >= 500
    gate.worker.fail_status = None
    return [*said, failed.text, gate.http.get("/metrics").text]


@pytest.mark.parametrize("is_sealed", [True, False])
def test_what_is_secret_is_told_by_nothing(
    logged: io.StringIO, server: Valkey, namespace: str, tmp_path: Path, is_sealed: bool
) -> None:
    told = settings(
        [], namespace=namespace, redis_url=server.url, auto={"min_prompt_tokens": 0}
    ).model_copy(
        update={"encryption_key": SecretStr(ENCRYPTION_KEY) if is_sealed else None},
    )
    with gateway(Shared.connect(told), namespace, auto={"min_prompt_tokens": 0}) as gate:
        said = drive(gate)
        names = [bytes(key) for key in server.client.scan_iter("*")]
        values = list(server.contents(namespace))
        server.client.save()
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(names) > 10
    assert "loragen_requests_total" in said[-1]

    texts = [text.encode() for text in TEXTS]
    everywhere = [*(each.encode() for each in said), logged.getvalue().encode(), *names]
    for secret in [*texts, *recipes(), ENCRYPTION_KEY.encode()]:
        assert not [each for each in everywhere if secret in each]

    stored = [*values, *files]
    found = {secret for secret in [*texts, *recipes()] if any(secret in each for each in stored)}
    if is_sealed:
        assert found == set()
    else:  # so they would have been found; messages are kept nowhere
        assert {*texts} - found == {MESSAGE.encode()}
        assert {expected_recipe(EDITED).data, REFINED.data} <= found
        for text in texts[:3]:
            assert any(text in each for each in files)
