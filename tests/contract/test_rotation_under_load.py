"""Both secrets are rotated to the end, gateway by gateway, under load: nothing is lost or wrong."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from config.ports import free_port
from loragen.seal import Seal
from tests.fakes.fake_worker import FakeWorker
from tests.fakes.gateway import MODEL, WORKER_KEY, expected_recipe
from tests.fakes.gateway_process import GatewayProcess, config_of
from tests.fakes.generator_service import generator_service
from tests.fakes.live import live, wait_until
from tests.fakes.load import Load, Question, summary
from tests.fakes.stub_generator import StubGenerator
from tests.fakes.valkey import Valkey

pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(600)]

OLD, NEW, SEAL_OLD, SEAL_NEW = (f"{byte:02x}" * 32 for byte in (1, 2, 3, 4))
STEPS = (
    (OLD, SEAL_OLD),
    (f"{OLD},{NEW}", f"{SEAL_OLD},{SEAL_NEW}"),
    (f"{NEW},{OLD}", f"{SEAL_NEW},{SEAL_OLD}"),
    (NEW, SEAL_NEW),
)
ADMIN_SECRET = "admin-secret-of-tests"
CLIENTS = 8
NAMESPACE = "rotated"


def environment(step: tuple[str, str], redis_url: str) -> dict[str, str]:
    return {
        "LORAGEN_MASTER_SECRET": step[0],
        "LORAGEN_ENCRYPTION_KEY": step[1],
        "LORAGEN_WORKER_SECRET": WORKER_KEY,
        "LORAGEN_GENERATOR_SECRET": "generator-key",
        "LORAGEN_ADMIN_SECRET": ADMIN_SECRET,
        "LORAGEN_REDIS_URL": redis_url,
    }


@dataclass
class Writer:
    """A client that registers prompts, new ones and ones it knows, and keeps every id."""

    urls: list[str]
    ids: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        number = 0
        with httpx.Client(timeout=60) as client:
            while not self.ending.is_set():
                for prompt in (f"You are writer {number}.", f"You are writer {number // 2}."):
                    for url in self.urls:
                        self.register(client, url, prompt)
                number += 1
                self.ending.wait(0.1)

    def register(self, client: httpx.Client, url: str, prompt: str) -> None:
        try:
            body = {"model": MODEL, "system_prompt": prompt}
            reply = client.post(f"{url}/v1/tasks", json=body)
        except httpx.TransportError:
            return  # that gateway is being restarted
        if reply.status_code == 503:
            return
        if reply.status_code not in (200, 201) or (
            self.ids.setdefault(prompt, reply.json()["id"]) != reply.json()["id"]
        ):
            self.wrong.append(f"{prompt}: {reply.status_code} {reply.text}")


@pytest.fixture
def parts(valkey: Valkey, tmp_path: Path) -> Iterator[tuple[list[GatewayProcess], list[int]]]:
    """Two gateways with an admin port each, two workers and a generator."""
    with ExitStack() as stack:
        workers = [stack.enter_context(live(FakeWorker(pause_seconds=0.01).app)) for _ in range(2)]
        service = stack.enter_context(live(generator_service(StubGenerator())))
        started, ports = [], [free_port(), free_port()]
        for port in ports:
            config = config_of(
                [worker.url for worker in workers],
                namespace=NAMESPACE,
                generator_url=service.url,
                admin_port=port,
                drain_delay_seconds=0.2,
                drain_timeout_seconds=5.0,
            )
            process = GatewayProcess(tmp_path, config, environment(STEPS[0], valkey.url))
            stack.callback(process.close)
            started.append(process)
        for each in started:
            each.wait_ready()
        yield started, ports


def renewal(port: int) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {ADMIN_SECRET}"}
    shown = httpx.get(f"http://127.0.0.1:{port}/admin/secrets", headers=headers, timeout=10)
    state: dict[str, Any] = shown.json()["renewal"]
    return state


def is_renewed(port: int) -> bool:
    state = renewal(port)
    assert state["unreadable"] == 0
    return bool(state["status"] == "done")


def steady(load: Load) -> None:
    """Wait until answers have come for a while."""
    before = load.count("whole")
    wait_until(lambda: load.count("whole") > before + 30, seconds=60)


def test_a_whole_rotation_loses_nothing_and_answers_nothing_wrong(
    parts: tuple[list[GatewayProcess], list[int]], valkey: Valkey
) -> None:
    gateways, ports = parts
    urls = [each.url for each in gateways]
    tasks: dict[str, str] = {}
    questions = []
    for number in range(12):
        prompt = f"You are number {number}."
        reply = gateways[number % 2].http.post(
            "/v1/tasks",
            json={"model": MODEL, "system_prompt": prompt, "name": f"n{number}"},
        )
        tasks[prompt] = reply.json()["id"]
        right = f"[recipe {expected_recipe(prompt).id}] [system none] question {number}"
        for word in (tasks[prompt], f"n{number}"):
            body = {
                "model": MODEL,
                "task_id": word,
                "messages": [{"role": "user", "content": f"question {number}"}],
                "stream": number % 2 == 0,
            }
            questions.append(Question(body, right.__eq__))
    writer = Writer(urls)
    writing = threading.Thread(target=writer.run, daemon=True)
    load = Load(urls, questions, clients=CLIENTS)
    writing.start()
    steady(load)

    for step in STEPS[1:]:
        if step is STEPS[-1]:
            for port in ports:
                wait_until(partial(is_renewed, port), seconds=60)
        for each in gateways:
            each.signal(signal.SIGTERM)
            assert each.process.wait(30) == 0
            each.start(environment(step, valkey.url))
            each.wait_ready()
            steady(load)

    writer.ending.set()
    writing.join(60)
    outcomes = load.end()
    kinds = summary(outcomes)
    assert kinds["malformed"] == kinds["cut"] == kinds["refused"] == 0, [
        each for each in outcomes if each.kind in ("malformed", "cut", "refused")
    ][:3]
    assert kinds["error event"] == 0
    assert writer.wrong == []
    assert len(writer.ids) > 10
    for prompt, task_id in {**tasks, **writer.ids}.items():
        for each in gateways:  # which hold the new versions only
            body = {"model": MODEL, "system_prompt": prompt}
            reply = each.http.post("/v1/tasks", json=body)
            assert (reply.status_code, reply.json()["id"]) == (200, task_id)
    head = Seal((bytes.fromhex(SEAL_NEW),)).head
    keys: list[Any] = list(valkey.client.scan_iter(f"{NAMESPACE}:task:*"))
    assert len(keys) == len(tasks) + len(writer.ids)
    client: Any = valkey.client
    assert all(client.hget(key, "prompt").startswith(head) for key in keys)
