"""No process logs what is secret, at the most talkative level; nor does Redis hold it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from loragen.recipe import Recipe
from loragen.seal import Seal
from loragen.secret_versions import parse_versions
from loragen.task_codec import place as place_of
from tests.e2e.stack import MODEL, Stack, wait_until
from tests.e2e.test_keys import loragen

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROMPT, TOOL, PROBE, MESSAGE = (
    f"CANARY-{word}-9c17" for word in ("prompt", "tool", "probe", "message")
)
ENCRYPTION_KEY = "e7" * 32


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own that logs all it can and seals what it stores."""
    folder: Path = tmp_path_factory.mktemp("secrecy")
    key = folder / "state" / "secrets" / "encryption_key"
    key.parent.mkdir(mode=0o700, parents=True)
    key.touch(mode=0o600)
    key.write_text(ENCRYPTION_KEY)
    running = Stack(folder, measure=True, logs={"level": "DEBUG"})
    try:
        running.wait_ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.interrupt()


def stored_recipes(stack: Stack) -> Iterator[tuple[str, str, bytes]]:
    """Yield tenant, place and value of each recipe in Redis, refined ones from their tasks."""
    client: Any = stack.redis()
    for name in (bytes(each).decode() for each in client.scan_iter("*:recipe:*")):
        yield name.split(":recipe:")[1].split(":")[0], name, client.get(name)
    for name in (bytes(each).decode() for each in client.scan_iter("*:task:*")):
        for field in ("refined", "spare_refined"):
            if (value := client.hget(name, field)) is not None:
                yield name.split(":task:")[1].split(":")[0], place_of(name, field), value


def recipes(stack: Stack) -> list[str]:
    """Return parts of each stored recipe's gates, in the text that workers are sent."""
    seal = Seal(parse_versions(ENCRYPTION_KEY, name="encryption_key"))
    texts: list[str] = []
    for tenant, place, value in stored_recipes(stack):
        assert seal.is_current(value), place
        texts.append(Recipe.decode(seal.open(tenant, place, value)).text)
    # Loggers that shorten show the beginning and the end; before the gates all recipes are alike.
    starts = [(len(text) * part // 8, text) for text in texts for part in (2, 4, 6)]
    return [*(text[start:][:24] for start, text in starts), *(text[-24:] for text in texts)]


def use(stack: Stack, key: str) -> None:
    """Let every process handle what is secret."""
    stack.http.headers["authorization"] = f"Bearer {key}"
    tools = [{"type": "function", "function": {"name": "clock", "description": TOOL}}]
    probes = [{"input": f"{PROBE} {number}"} for number in range(8)]
    task = stack.create(f"You are {PROMPT}.", probes=probes)
    stack.create(f"You are {PROMPT}.", tools=tools)
    refine = stack.http.post(f"/v1/tasks/{task['id']}/refine", json={"probes": probes})
    assert refine.status_code in (202, 409), refine.text
    wait_until(
        lambda: (
            (stack.http.get(f"/v1/tasks/{task['id']}").json()["refine"] or {}).get("status")
            not in (None, "running")
        ),
        300,
    )
    served = stack.create(f"Say {PROMPT} first.", min_fidelity=0)
    reply = stack.ask(MESSAGE, served["id"])
    assert reply.headers["x-loragen-mode"] == "compiled"
    for stream in (False, True):
        assert stack.ask(MESSAGE, task["id"], stream=stream).status_code == 200
    system = {"role": "system", "content": f"{PROMPT} as text."}
    user = {"role": "user", "content": MESSAGE}
    for _ in range(2):
        body = {"model": MODEL, "messages": [system, user], "max_tokens": 4}
        assert stack.http.post("/v1/chat/completions", json=body).status_code == 200
    headers = {"authorization": f"Bearer {stack.worker_secret}"}
    for wrong in (
        {"model": MODEL, "messages": [user], "loragen_recipe": MESSAGE},
        {"model": MODEL, "messages": [{"role": "wizard", "content": MESSAGE}]},
        {"model": "unknown", "messages": [user]},
    ):
        url = f"{stack.worker_url}/v1/chat/completions"
        assert httpx.post(url, json=wrong, headers=headers, timeout=60).status_code >= 400
    assert stack.http.post("/v1/tasks", json={"model": MODEL, "system_prompt": [PROMPT]}).is_error


def test_no_log_and_no_redis_value_holds_what_is_secret(talkative: Stack) -> None:
    key = loragen(talkative, "keys", "create", "--tenant", "acme")
    use(talkative, key)
    gates = recipes(talkative)
    assert any(place.endswith(" refined") for _, place, _ in stored_recipes(talkative))
    folder = talkative.state / "logs"
    logs = {
        path.name: path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()
    }
    assert {"server.log", "router_service.log", f"worker-{MODEL}.log", "redis.log"} <= set(logs)
    assert '"DEBUG"' in logs["server.log"]
    assert "PROMPTS ARE STORED AS THEY ARE" not in logs["server.log"]
    secrets = [
        *(PROMPT, TOOL, PROBE, MESSAGE, key, *gates),
        *(path.read_text().strip() for path in (talkative.state / "secrets").iterdir()),
    ]
    said = {**logs, "launcher": talkative.printed(), "metrics": talkative.http.get("/metrics").text}
    assert [
        (name, line)
        for name, text in said.items()
        for line in text.splitlines()
        if any(secret in line for secret in secrets)
    ] == []
    client: Any = talkative.redis()
    client.save()
    files = [path for path in (talkative.state / "redis").rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert not any(
            secret.encode() in path.read_bytes() for secret in (PROMPT, TOOL, PROBE, key)
        )
    values = [
        part
        for key in client.scan_iter("*:task:*")
        for pair in client.hgetall(key).items()
        for part in (key, *pair)
    ]
    assert values
    assert not [each for each in values if b"CANARY" in each]
