"""A model that gates do not cover: its worker materialises recipes, behind the gateway too."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import torch
import yaml
from prometheus_client import REGISTRY
from pydantic import SecretStr

from loragen.method.edge import EdgeModel
from loragen.recipe import Recipe
from server.app import build_app
from server.transport import worker_client
from tests.contract.worker_contract import WorkerContract, WorkerUnderTest
from tests.fakes.gateway import MODEL, settings
from tests.fakes.live import live, wait_until
from tests.fakes.memory_store import MemoryStore
from tests.fakes.shared_state import shared_state
from tests.fakes.stub_generator import StubGenerator, reply_of
from tests.fakes.tiny import RANK, TinyEdge
from tests.fakes.worker_process import MESSAGES, SECRET, Worker, start_worker

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

LINEARS = ("q", "o", "up", "down")
SLOTS, TASKS, TOKENS = 2, 6, 12


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEdge:
    return TinyEdge.make(tmp_path_factory.mktemp("tiny"), linears=LINEARS)


@pytest.fixture(scope="module")
def process(tiny: TinyEdge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    model = {
        "name": MODEL,
        "model": str(tiny.model),
        "generator": str(tiny.generator),
        "max_model_len": 256,
        "max_num_seqs": 8,
        "adapter_slots": SLOTS,
        "kv_cache_gib": 0.125,
    }
    config = tmp_path_factory.mktemp("worker") / "config.yaml"
    config.write_text(yaml.safe_dump({"edge_models": [model]}))
    worker = start_worker(MODEL, config)
    try:
        worker.wait_ready()
        yield worker
    finally:
        worker.end()


@pytest.fixture(scope="module")
def worker(process: Worker, tiny: TinyEdge) -> WorkerUnderTest:
    return WorkerUnderTest(process.client.url, SECRET, tiny.recipe(1))


class TestMaterialisingWorker(WorkerContract):
    """Runs the contract."""

    backend = "materialise"


def test_the_log_names_the_backend(process: Worker) -> None:
    assert "mixed by the materialise backend (auto is configured)" in process.log.read_text()


@dataclass(frozen=True)
class Gate:
    """A gateway with one task for each of TASKS recipes, and who compiles them."""

    http: httpx.Client
    tasks: list[str]

    def answer(self, task: str | None) -> str:
        """Return the answer to MESSAGES, the same as `WorkerClient.chat` asks for."""
        body = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": TOKENS}
        fields = {"task_id": task} if task else {}
        reply = self.http.post("/v1/chat/completions", json={**body, **fields, "ignore_eos": True})
        assert reply.status_code == 200, reply.text
        assert reply.headers["x-loragen-mode"] == ("compiled" if task else "base")
        content: str = reply.json()["choices"][0]["message"]["content"]
        return content


@pytest.fixture(scope="module")
def recipes(tiny: TinyEdge) -> list[Recipe]:
    return [tiny.recipe(seed) for seed in range(TASKS)]


@pytest.fixture(scope="module")
def gate(process: Worker, recipes: list[Recipe]) -> Iterator[Gate]:
    told = settings([process.client.url]).model_copy(update={"worker_secret": SecretStr(SECRET)})
    generator = StubGenerator()
    app = build_app(
        told,
        shared=shared_state(MemoryStore()),
        generator=generator,
        workers=worker_client(told),
    )
    with ExitStack() as stack:
        url = stack.enter_context(live(app)).url
        http = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        wait_until(lambda: http.get("/ready").status_code == 200)
        tasks = []
        for number, recipe in enumerate(recipes):
            generator.reply = reply_of(recipe)
            body = {"model": MODEL, "system_prompt": f"You are number {number}."}
            tasks.append(http.post("/v1/tasks", json=body).json()["id"])
        yield Gate(http, tasks)


def test_the_gateway_says_how_recipes_are_mixed(gate: Gate) -> None:
    assert gate.http.get("/ready").json()["backends"] == {MODEL: ["materialise"]}

    def workers(backend: str) -> float | None:
        labels = {"model": MODEL, "backend": backend}
        return REGISTRY.get_sample_value("loragen_backend_workers", labels)

    wait_until(lambda: (workers("materialise"), workers("gate")) == (1, 0))


def test_more_tasks_than_slots_and_none_at_once_are_answered_exactly(
    gate: Gate, process: Worker, tiny: TinyEdge, recipes: list[Recipe]
) -> None:
    told: dict[str | None, Recipe | None] = {None: None}
    told.update(zip(gate.tasks, recipes, strict=True))
    alone: dict[str | None, Any] = {
        task: process.client.chat(recipe, max_tokens=TOKENS).choices[0]
        for task, recipe in told.items()
    }
    expected = reference_answers(tiny, list(told.values()))
    assert [choice.token_ids for choice in alone.values()] == expected
    assert len(set(map(tuple, expected))) == TASKS + 1
    asked = [*told, *told, None, None] * 3
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(gate.answer, asked))
    assert answers == [alone[task].message.content for task in asked]


def reference_answers(tiny: TinyEdge, recipes: list[Recipe | None]) -> list[list[int]]:
    """Return what Hugging Face's code answers, each row with its gates."""
    edge = EdgeModel.load(tiny.model, tiny.pool)
    edge.model.config.eos_token_id = None  # as with ignore_eos
    spec = tiny.pool.spec
    gates_BLMR = torch.zeros(len(recipes), spec.layers, len(spec.linears), spec.columns)
    for row, recipe in enumerate(recipes):
        if recipe is not None:
            gates_BLMR[row] = torch.tensor(recipe.expand(linears=len(spec.linears), rank=RANK))
    prompt = tiny.tokens(MESSAGES)
    return edge.generate([prompt] * len(recipes), gates_BLMR, max_tokens=TOKENS)
