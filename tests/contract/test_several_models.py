"""Two edge models behind one gateway, one of them without a generator."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from config.edge_model import EdgeModelSettings
from server.app import build_app
from server.transport import worker_client
from tests.fakes.fake_worker import FakeWorker
from tests.fakes.gateway import MODEL, redis_store, settings
from tests.fakes.live import live, wait_until
from tests.fakes.shared_state import shared_state
from tests.fakes.stub_generator import StubGenerator
from tests.fakes.valkey import Valkey

PLAIN = "org/plain"
PROMPT = "You are a pirate."


@pytest.fixture
def client(valkey: Valkey, namespace: str) -> Iterator[httpx.Client]:
    """A client of a gateway over both."""
    with ExitStack() as stack:
        urls = [stack.enter_context(live(FakeWorker(name).app)).url for name in (MODEL, PLAIN)]
        one = settings([urls[0]], namespace=namespace)
        plain = EdgeModelSettings.model_validate(
            {"name": PLAIN, "model": "plain", "worker_urls": [urls[1]]}
        )
        both = one.model_copy(update={"edge_models": (*one.edge_models, plain)})
        app = build_app(
            both,
            shared=shared_state(redis_store(valkey.url, namespace)),
            generator=StubGenerator(),
            workers=worker_client(both),
        )
        server = stack.enter_context(live(app))
        http = stack.enter_context(httpx.Client(base_url=server.url, timeout=20))
        wait_until(lambda: http.get("/ready").status_code == 200)
        yield http


def create(client: httpx.Client, model: str) -> dict[str, Any]:
    task: dict[str, Any] = client.post(
        "/v1/tasks", json={"model": model, "system_prompt": PROMPT}
    ).json()
    return task


def ask(client: httpx.Client, model: str, task_id: str) -> httpx.Response:
    body = {"model": model, "task_id": task_id, "messages": [{"role": "user", "content": "hi"}]}
    return client.post("/v1/chat/completions", json=body)


def answered(model: str, mode: str) -> float:
    labels = {"model": model, "mode": mode}
    return REGISTRY.get_sample_value("loragen_e2e_request_latency_seconds_count", labels) or 0.0


def test_both_are_listed(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == [MODEL, PLAIN]


def test_one_prompt_is_compiled_for_one_and_stays_in_context_for_the_other(
    client: httpx.Client,
) -> None:
    compiled, kept = create(client, MODEL), create(client, PLAIN)
    assert compiled["id"] != kept["id"]
    assert (compiled["status"], compiled["fallback_reason"]) == ("ready", None)
    assert (kept["status"], kept["fallback_reason"]) == ("fallback", "no_generator")
    before = answered(MODEL, "compiled"), answered(PLAIN, "prompt")
    by_recipe = ask(client, MODEL, compiled["id"])
    in_context = ask(client, PLAIN, kept["id"])
    assert by_recipe.json()["usage"]["loragen"]["mode"] == "compiled"
    assert in_context.json()["usage"]["loragen"]["mode"] == "prompt"
    assert in_context.headers["x-loragen-fallback-reason"] == "no_generator"
    assert f"[system {PROMPT}]" in in_context.json()["choices"][0]["message"]["content"]
    after = answered(MODEL, "compiled"), answered(PLAIN, "prompt")
    assert after == (before[0] + 1, before[1] + 1)


def test_a_task_is_of_one_model(client: httpx.Client) -> None:
    reply = ask(client, PLAIN, create(client, MODEL)["id"])
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model")
