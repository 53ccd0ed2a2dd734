"""Two gateways over one Redis and two workers: together they are one server, whoever dies.

Real processes wherever something is killed or told to end.
"""

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.fake_worker import FakeWorker
from tests.fakes.gateway import MODEL, Gateway, expected_recipe, gateway, redis_shared
from tests.fakes.gateway_process import GatewayProcess, config_of, gateway_processes
from tests.fakes.generator_service import generator_service
from tests.fakes.live import LiveServer, live, wait_until
from tests.fakes.load import Load, Outcome, Question, summary
from tests.fakes.stub_generator import StubGenerator
from tests.fakes.valkey import Valkey

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

PROMPT = "You are Ada."
CLIENTS = 12


@pytest.fixture
def two(valkey: Valkey, namespace: str) -> Iterator[tuple[Gateway, Gateway]]:
    """Two gateways in this process, each with a worker of its own."""
    with (
        gateway(redis_shared(valkey.url, namespace), namespace) as one,
        gateway(redis_shared(valkey.url, namespace), namespace) as other,
    ):
        yield one, other


def compiles(two: tuple[Gateway, Gateway]) -> int:
    return sum(each.generator.calls.total() for each in two)


async def test_two_hundred_first_requests_cost_one_compile(two: tuple[Gateway, Gateway]) -> None:
    for each in two:
        each.generator.is_held = True
    body = {"model": MODEL, "system_prompt": PROMPT}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=100, limits=limits) as client:
        asked = [
            asyncio.create_task(client.post(two[number % 2].server.url + "/v1/tasks", json=body))
            for number in range(200)
        ]
        async with asyncio.timeout(30):
            while compiles(two) == 0:  # noqa: ASYNC110 - the event is in another thread
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        for each in two:
            each.generator.is_held = False
        replies = await asyncio.gather(*asked)
    assert {reply.status_code for reply in replies} <= {200, 201}
    assert {reply.json()["recipe"]["id"] for reply in replies} == {expected_recipe(PROMPT).id}
    assert compiles(two) == 1


def test_a_deleted_task_is_gone_everywhere_at_once(two: tuple[Gateway, Gateway]) -> None:
    one, other = two
    task_id = one.create(PROMPT)["id"]
    for each in two:
        assert each.ask("hi", task_id=task_id).headers["x-loragen-mode"] == "compiled"
    assert one.http.delete(f"/v1/tasks/{task_id}").status_code == 200
    deleted = time.monotonic()
    wait_until(lambda: other.ask("hi", task_id=task_id).status_code == 404, seconds=2)
    assert time.monotonic() - deleted < 2
    assert one.ask("hi", task_id=task_id).status_code == 404


def test_deletes_under_load_bring_nothing_back(two: tuple[Gateway, Gateway]) -> None:
    one, other = two
    for number in range(20):
        task_id = one.create(f"You are number {number}.", wait=False)["id"]
        other.ask("hi", task_id=task_id)
        deleting, asking = two if number % 2 else (other, one)
        deleting.http.delete(f"/v1/tasks/{task_id}")
        wait_until(partial(is_gone, asking, task_id), seconds=2)
        assert is_gone(deleting, task_id)
    assert one.http.get("/v1/tasks").json()["data"] == []


def is_gone(gate: Gateway, task_id: str) -> bool:
    return gate.ask("hi", task_id=task_id).status_code == 404


@dataclass
class Cluster:
    """Two gateway processes, two workers, one generator."""

    gateways: list[GatewayProcess]
    workers: list[FakeWorker]
    servers: list[LiveServer]
    generator: StubGenerator

    def create(self, prompt: str) -> str:
        """Register a prompt and return the task's id."""
        body = {"model": MODEL, "system_prompt": prompt}
        reply = self.gateways[0].http.post("/v1/tasks", json=body)
        assert reply.status_code == 201, reply.text
        return str(reply.json()["id"])

    def wait_for_workers(self, count: int) -> None:
        """Wait until every gateway knows of so many workers that they are well."""
        line = f'loragen_healthy_workers{{model="{MODEL}"}} {count}.0'
        for each in self.gateways:
            wait_until(partial(_says, each, line), seconds=30)

    def questions(self, tasks: int) -> list[Question]:
        """Return questions to so many tasks, streamed and not."""
        asked = []
        for number in range(tasks):
            prompt = f"You are number {number}."
            right = f"[recipe {expected_recipe(prompt).id}] [system none] question {number}"
            body = {
                "model": MODEL,
                "task_id": self.create(prompt),
                "messages": [{"role": "user", "content": f"question {number}"}],
            }
            asked += [
                Question({**body, "stream": stream}, right.__eq__) for stream in (False, True)
            ]
        return asked


def _says(gate: GatewayProcess, line: str) -> bool:
    return line in gate.http.get("/metrics").text.splitlines()


@pytest.fixture(scope="module")
def cluster(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose every part can be killed; a test starts again what it ends."""
    folder: Path = tmp_path_factory.mktemp("cluster")
    workers = [FakeWorker(pause_seconds=0.01) for _ in range(2)]
    generator = StubGenerator()
    with ExitStack() as stack:
        servers = [stack.enter_context(live(worker.app)) for worker in workers]
        service = stack.enter_context(live(generator_service(generator)))
        config = config_of(
            [server.url for server in servers],
            namespace="cluster",
            generator_url=service.url,
            drain_delay_seconds=0.2,
            drain_timeout_seconds=5.0,
        )
        gateways = stack.enter_context(gateway_processes(folder, config, valkey.url, count=2))
        yield Cluster(gateways, workers, servers, generator)


def test_under_load_every_part_is_killed_and_drained_and_no_answer_breaks(
    cluster: Cluster,
) -> None:
    urls = [each.url for each in cluster.gateways]
    load = Load(urls, cluster.questions(tasks=6), clients=CLIENTS)
    steady(load)
    kill_worker(cluster, load)
    drain_worker(cluster, load)
    drain_gateway(cluster, load)
    kill_gateway(cluster, load)
    outcomes = load.end()
    killed = cluster.gateways[1].url
    assert_no_answer_broke(outcomes, killed=killed)
    kinds = summary(outcomes)
    assert kinds["refused"] == 0  # another worker was always there
    assert kinds["error event"] <= CLIENTS  # the streams of the killed worker


def test_when_the_compiling_gateway_is_killed_another_takes_over(cluster: Cluster) -> None:
    one, other = cluster.gateways
    cluster.generator.is_held = True
    body = {"model": MODEL, "system_prompt": PROMPT}
    one.http.post("/v1/tasks", json={**body, "wait": False})
    wait_until(lambda: cluster.generator.calls[PROMPT] == 1)
    other.http.post("/v1/tasks", json={**body, "wait": False})
    one.process.kill()
    one.process.wait(10)
    wait_until(lambda: cluster.generator.calls[PROMPT] == 2, seconds=15)
    cluster.generator.is_held = False
    task = other.http.post("/v1/tasks", json=body).json()
    assert task["recipe"]["id"] == expected_recipe(PROMPT).id
    assert cluster.generator.calls[PROMPT] == 2
    one.start()
    one.wait_ready()


def steady(load: Load) -> None:
    """Wait until answers have come for a while."""
    before = load.count("whole")
    wait_until(lambda: load.count("whole") > before + 30, seconds=30)


def kill_worker(cluster: Cluster, load: Load) -> None:
    cluster.servers[0].kill()
    cluster.wait_for_workers(1)
    steady(load)
    cluster.servers[0].start()
    cluster.wait_for_workers(2)
    seen = len(cluster.workers[0].seen)
    wait_until(lambda: len(cluster.workers[0].seen) > seen + 5)  # it is used again
    steady(load)


def drain_worker(cluster: Cluster, load: Load) -> None:
    worker = cluster.workers[1]
    broken = load.count("error event") + load.count("refused")
    worker.is_draining = True
    steady(load)
    seen = len(worker.seen)
    cluster.servers[1].stop()
    steady(load)
    assert len(worker.seen) == seen
    worker.is_draining = False
    cluster.servers[1].start()
    cluster.wait_for_workers(2)
    wait_until(lambda: len(worker.seen) > seen + 5)
    assert load.count("error event") + load.count("refused") == broken


def drain_gateway(cluster: Cluster, load: Load) -> None:
    leaving = cluster.gateways[0]
    leaving.signal(signal.SIGTERM)
    assert leaving.process.wait(20) == 0
    steady(load)
    leaving.start()
    leaving.wait_ready()
    steady(load)


def kill_gateway(cluster: Cluster, load: Load) -> None:
    victim = cluster.gateways[1]
    victim.process.kill()
    victim.process.wait(10)
    steady(load)
    victim.start()
    victim.wait_ready()
    steady(load)


def assert_no_answer_broke(outcomes: list[Outcome], *, killed: str) -> None:
    """Check that nothing is malformed, and that only a killed gateway broke off what it sent."""
    wrong: list[Any] = [
        each
        for each in outcomes
        if each.kind == "malformed" or (each.kind == "cut" and each.gateway != killed)
    ]
    assert wrong == []
