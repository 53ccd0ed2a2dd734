"""Two gateways and two real workers under load, each killed and told to end in turn."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.stack import MODEL, Stack, wait_until
from tests.fakes.gateway_process import GatewayProcess
from tests.fakes.load import Load, Question, summary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

Example = dict[str, str]
CLIENTS = 6
RESTART_SECONDS = 180
COMPILES = "loragen_compile_seconds_count"


@dataclass
class Cluster:
    """The stack with two workers, and a second gateway beside it."""

    stack: Stack
    beside: GatewayProcess

    @property
    def urls(self) -> list[str]:
        return [self.stack.url, self.beside.url]

    def compiles(self) -> float:
        """Return how many compiles both gateways have had done."""
        texts = [httpx.get(url + "/metrics").text for url in self.urls]
        lines = [line for text in texts for line in text.splitlines() if line.startswith(COMPILES)]
        return sum(float(line.split()[-1]) for line in lines)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder: Path = tmp_path_factory.mktemp("cluster")
    stack = Stack(folder, workers=2)
    beside: GatewayProcess | None = None
    try:
        stack.wait_ready()
        generator = {"url": f"http://127.0.0.1:{stack.config['generator']['port']}"}
        names = ("master_secret", "worker_secret", "generator_secret")
        secrets = {f"LORAGEN_{name.upper()}": stack.secret(name) for name in names}
        environment = {**secrets, "LORAGEN_REDIS_URL": str(stack.run()["redis_url"])}
        beside = GatewayProcess(folder, {**stack.config, "generator": generator}, environment)
        beside.wait_ready()
        yield Cluster(stack, beside)
    finally:
        if beside is not None:
            beside.close()
        if stack.process.poll() is None:
            stack.interrupt()


async def test_two_hundred_first_requests_cost_one_compile(cluster: Cluster) -> None:
    before = cluster.compiles()
    body = {"model": MODEL, "system_prompt": "Your name is Mona. You work for Initech in Oslo."}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        replies = await asyncio.gather(
            *(client.post(cluster.urls[n % 2] + "/v1/tasks", json=body) for n in range(200))
        )
    assert {reply.status_code for reply in replies} <= {200, 201}
    assert len({reply.json()["recipe"]["id"] for reply in replies}) == 1
    assert cluster.compiles() == before + 1


def test_a_deleted_task_is_gone_in_both_within_two_seconds(cluster: Cluster) -> None:
    task_id = cluster.stack.create("Your name is Otto.")["id"]
    body = {"model": MODEL, "task_id": task_id, "messages": [{"role": "user", "content": "hi"}]}

    def status(url: str) -> int:
        return httpx.post(url + "/v1/chat/completions", json=body, timeout=60).status_code

    assert [status(url) for url in cluster.urls] == [200, 200]
    assert httpx.delete(f"{cluster.beside.url}/v1/tasks/{task_id}").status_code == 200
    deleted = time.monotonic()
    while {status(url) for url in cluster.urls} != {404}:
        assert time.monotonic() - deleted < 2


def test_under_load_every_part_is_killed_and_drained_and_no_answer_breaks(
    cluster: Cluster, examples: list[Example]
) -> None:
    load = Load(cluster.urls, questions(cluster, examples), clients=CLIENTS)
    steady(load)
    cluster.stack.kill(f"worker {MODEL}-2")
    steady(load)
    drain_gateway(cluster, load)
    kill_gateway(cluster, load)
    drain_worker(cluster, load)
    outcomes = load.end()
    wrong = [
        each
        for each in outcomes
        if each.kind == "malformed"
        or (each.kind == "cut" and each.gateway != cluster.beside.url)  # the one that was killed
    ]
    assert wrong == []
    assert summary(outcomes)["error event"] <= CLIENTS  # the streams of the killed worker


def questions(cluster: Cluster, examples: list[Example]) -> list[Question]:
    asked = []
    for example in examples:
        body = {
            "model": MODEL,
            "task_id": cluster.stack.create(example["system_prompt"])["id"],
            "messages": [{"role": "user", "content": example["question"]}],
            "temperature": 0,
            "max_tokens": 32,
        }
        right = example["answer"].__eq__
        asked += [Question({**body, "stream": stream}, right) for stream in (False, True)]
    return asked


def steady(load: Load) -> None:
    """Wait until answers have come for a while."""
    before = load.count("whole")
    wait_until(lambda: load.count("whole") > before + 20, 60)


def drain_gateway(cluster: Cluster, load: Load) -> None:
    cluster.beside.signal(signal.SIGTERM)
    assert cluster.beside.process.wait(20) == 0
    steady(load)
    cluster.beside.start()
    cluster.beside.wait_ready()
    steady(load)


def kill_gateway(cluster: Cluster, load: Load) -> None:
    cluster.beside.process.kill()
    cluster.beside.process.wait(10)
    steady(load)
    cluster.beside.start()
    cluster.beside.wait_ready()
    steady(load)


def drain_worker(cluster: Cluster, load: Load) -> None:
    """End a worker with SIGTERM once the killed one is back; the launcher starts it again."""

    def healthy() -> float:
        return cluster.stack.metric("loragen_healthy_workers", model=MODEL)

    wait_until(lambda: healthy() == 2, RESTART_SECONDS)
    broken = load.count("error event")
    os.kill(cluster.stack.run()["pids"][f"worker {MODEL}"], signal.SIGTERM)
    wait_until(lambda: healthy() == 1, 30)
    wait_until(lambda: f"worker {MODEL}: ended with exit code 0" in cluster.stack.printed(), 60)
    steady(load)
    assert load.count("error event") == broken
