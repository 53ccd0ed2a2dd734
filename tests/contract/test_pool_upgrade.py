"""A pool is upgraded while two gateways answer: nobody waits, nobody gets another's answer.

Real processes and a real Redis; the workers are fakes that refuse a recipe of another pool.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from config.cli import cli
from tests.fakes.fake_worker import POOL_ID, FakeWorker
from tests.fakes.gateway import MODEL
from tests.fakes.gateway_process import GatewayProcess, config_of, gateway_processes
from tests.fakes.generator_service import generator_service
from tests.fakes.live import LiveServer, live, wait_until
from tests.fakes.load import Load, Question
from tests.fakes.stub_generator import StubGenerator, recipe_of
from tests.fakes.valkey import Valkey

pytestmark = [pytest.mark.redis, pytest.mark.timeout(180)]

NEW_POOL = "00" * 32
SECRET = "admin-secret-of-tests"
TASKS = 24
HEADERS = {"authorization": f"Bearer {SECRET}"}


@dataclass
class Cluster:
    """Two gateways, two workers of the old pool, one of the new, a generator for both."""

    gateways: list[GatewayProcess]
    workers: list[FakeWorker]
    servers: list[LiveServer]
    generator: StubGenerator

    def prompt(self, number: int) -> str:
        return f"You are number {number}."

    def create_all(self) -> list[str]:
        """Register all prompts and return the ids of the tasks."""
        ids = []
        for number in range(TASKS):
            body = {"model": MODEL, "system_prompt": self.prompt(number)}
            reply = self.gateways[number % 2].http.post("/v1/tasks", json=body)
            assert reply.status_code == 201, reply.text
            ids.append(str(reply.json()["id"]))
        return ids

    def questions(self, ids: list[str]) -> list[Question]:
        """Return questions to all tasks; an answer is right under either pool's recipe."""
        asked = []
        for number, task_id in enumerate(ids):
            right = {self.answer(number, pool_id) for pool_id in (POOL_ID, NEW_POOL)}
            body = self.question(number, task_id)
            asked += [
                Question({**body, "stream": stream}, right.__contains__) for stream in (False, True)
            ]
        return asked

    def question(self, number: int, task_id: str) -> dict[str, Any]:
        content = f"question {number}"
        messages = [{"role": "user", "content": content}]
        return {"model": MODEL, "task_id": task_id, "messages": messages}

    def answer(self, number: int, pool_id: str) -> str:
        recipe = recipe_of(self.prompt(number), pool_id=pool_id)
        return f"[recipe {recipe.id}] [system none] question {number}"

    def served_from(self, ids: list[str], *, first: int = 0) -> set[str]:
        """Return the pools from which both gateways answer tasks; every answer is right."""
        pools = set()
        for number, task_id in list(enumerate(ids))[first:]:
            for gateway in self.gateways:
                body = self.question(number, task_id)
                reply = gateway.http.post("/v1/chat/completions", json=body)
                text = reply.json()["choices"][0]["message"]["content"]
                known = {self.answer(number, pool_id): pool_id for pool_id in (POOL_ID, NEW_POOL)}
                pools.add(known[text])
        return pools

    def admin(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, gateway: int = 0
    ) -> httpx.Response:
        url = f"http://127.0.0.1:{self.gateways[gateway].admin_port}/admin/pools{path}"
        if method == "POST":
            body = body or {}
        return httpx.request(method, url, json=body, headers=HEADERS, timeout=30)

    def change(self, what: str, *, gateway: int = 0, **body: Any) -> dict[str, Any]:
        reply = self.admin("POST", f"/{MODEL}/{what}", body, gateway=gateway)
        assert reply.status_code == 200, reply.text
        changed: dict[str, Any] = reply.json()
        return changed

    def ready_share(self, gateway: int = 0) -> float:
        progress = self.admin("GET", f"/{MODEL}", gateway=gateway).json()["progress"]
        return 0.0 if progress is None else float(progress["ready_share"])

    @property
    def refused(self) -> int:
        """How many recipes of another pool came to any worker."""
        return sum(worker.refused for worker in self.workers)


@pytest.fixture
def cluster(valkey: Valkey, namespace: str, tmp_path: Path) -> Iterator[Cluster]:
    workers = [FakeWorker(), FakeWorker(), FakeWorker(pool_id=NEW_POOL)]
    generator = StubGenerator()
    generator.more_pools = (NEW_POOL,)
    with ExitStack() as stack:
        servers = [stack.enter_context(live(worker.app)) for worker in workers]
        service = stack.enter_context(live(generator_service(generator)))
        config = config_of(
            [server.url for server in servers],
            namespace=namespace,
            generator_url=service.url,
            measure=False,
        )
        config["upgrades"] = {"compiles_per_second": 20.0}
        environment = {"LORAGEN_ADMIN_SECRET": SECRET}
        started = gateway_processes(tmp_path, config, valkey.url, count=2, environment=environment)
        yield Cluster(stack.enter_context(started), workers, servers, generator)


def test_upgrade_and_rollback_under_load_fail_no_request_and_mix_no_answer(
    cluster: Cluster,
) -> None:
    ids = cluster.create_all()
    load = Load([each.url for each in cluster.gateways], cluster.questions(ids), clients=6)
    state = cluster.change("upgrade", pool_id=NEW_POOL)
    assert (state["serving"], state["coming"]) == (POOL_ID, NEW_POOL)
    assert state["workers"] == {NEW_POOL: 1, POOL_ID: 2}
    wait_until(lambda: cluster.ready_share(1) == 1.0, seconds=60)
    assert cluster.served_from(ids) == {POOL_ID}
    state = cluster.change("switch", gateway=1)
    assert (state["serving"], state["previous"]) == (NEW_POOL, POOL_ID)
    within_two_seconds(cluster, ids, NEW_POOL)
    state = cluster.change("rollback")
    assert (state["serving"], state["previous"], state["coming"]) == (POOL_ID, None, None)
    within_two_seconds(cluster, ids, POOL_ID)
    cluster.change("upgrade")
    wait_until(lambda: cluster.ready_share() == 1.0, seconds=60)
    cluster.change("switch")
    within_two_seconds(cluster, ids, NEW_POOL)
    for server in cluster.servers[:2]:
        server.stop()  # the old workers leave
    before = load.count("whole")
    wait_until(lambda: load.count("whole") > before + 50, seconds=30)
    assert cluster.served_from(ids) == {NEW_POOL}
    outcomes = load.end()
    assert [each for each in outcomes if each.kind != "whole"] == []
    assert cluster.refused == 0
    assert set(cluster.generator.calls.values()) == {2}  # once for each pool


def within_two_seconds(cluster: Cluster, ids: list[str], pool_id: str) -> None:
    """Check that two seconds later nothing is served from another pool any more."""
    time.sleep(2)
    assert cluster.served_from(ids) == {pool_id}


def test_when_the_gateway_that_compiles_is_killed_the_other_goes_on(cluster: Cluster) -> None:
    ids = cluster.create_all()
    cluster.generator.is_held = True
    cluster.change("upgrade", pool_id=NEW_POOL)
    wait_until(lambda: max(cluster.generator.calls.values()) == 2)
    (leader,) = (each for each in cluster.gateways if inflight(each) > 0)
    other = 1 - cluster.gateways.index(leader)
    leader.process.kill()
    leader.process.wait(10)
    cluster.generator.is_held = False
    wait_until(lambda: cluster.ready_share(other) == 1.0, seconds=60)
    cluster.change("switch", gateway=other)
    leader.start()
    leader.wait_ready()
    wait_until(lambda: cluster.served_from(ids) == {NEW_POOL}, seconds=10)
    assert max(cluster.generator.calls.values()) <= 3  # again only what had no end
    assert cluster.refused == 0


def inflight(gateway: GatewayProcess) -> float:
    lines = gateway.http.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("loragen_compile_infl")))


def test_a_switch_waits_for_the_requests_that_count_unless_it_is_forced(cluster: Cluster) -> None:
    ids = cluster.create_all()
    for _ in range(5):
        cluster.gateways[0].http.post("/v1/chat/completions", json=cluster.question(3, ids[3]))
    time.sleep(1.5)  # until it is written down
    cluster.generator.is_held = True
    cluster.change("upgrade", pool_id=NEW_POOL)
    wait_until(lambda: cluster.generator.calls[cluster.prompt(3)] == 2)  # the busiest first
    reply = cluster.admin("POST", f"/{MODEL}/switch")
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (409, "conflict", "force")
    cluster.change("switch", force=True)
    time.sleep(1)
    assert cluster.served_from(ids, first=10) == {POOL_ID}  # as they are not ready
    cluster.generator.is_held = False
    wait_until(lambda: cluster.served_from(ids) == {NEW_POOL}, seconds=30)


def test_what_an_upgrade_has_reached_does_not_count_for_the_next(cluster: Cluster) -> None:
    cluster.create_all()
    cluster.change("upgrade", pool_id=NEW_POOL)
    wait_until(lambda: cluster.ready_share() == 1.0, seconds=30)
    cluster.change("rollback")
    assert cluster.change("upgrade", pool_id=NEW_POOL)["progress"] is None


def test_what_cannot_be_done_is_said(cluster: Cluster) -> None:
    for what, body in (
        ("switch", {}),
        ("rollback", {}),
        ("upgrade", {}),  # which of the two serves?
        ("upgrade", {"pool_id": "11" * 32}),  # nobody holds it
    ):
        reply = cluster.admin("POST", f"/{MODEL}/{what}", body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "conflict"), what
    assert cluster.admin("POST", "/other/upgrade").status_code == 404
    assert cluster.admin("POST", f"/{MODEL}/upgrade", {"pool_id": "x"}).status_code == 400
    cluster.change("upgrade", pool_id=NEW_POOL)
    for body in ({"pool_id": POOL_ID}, {"pool_id": "11" * 32}):
        assert cluster.admin("POST", f"/{MODEL}/upgrade", body).status_code == 409
    wait_until(lambda: cluster.ready_share() == 1.0)
    cluster.change("switch")
    for server in cluster.servers[:2]:
        server.stop()
    wait_until(lambda: POOL_ID not in cluster.admin("GET", f"/{MODEL}").json()["workers"])
    assert cluster.admin("POST", f"/{MODEL}/rollback").status_code == 409
    assert cluster.change("rollback", force=True)["serving"] == POOL_ID


def test_the_command_does_the_same(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.create_all()
    monkeypatch.setenv("LORAGEN_ADMIN_SECRET", SECRET)
    config = tmp_path / "empty.yaml"
    config.write_text(f"state_dir: {tmp_path}\n")
    url = f"http://127.0.0.1:{cluster.gateways[0].admin_port}"

    def run(*args: str) -> list[str]:
        result = CliRunner().invoke(cli, ["pools", *args, "--url", url, "--config", str(config)])
        assert result.exit_code == 0, result.output
        return result.output.splitlines()

    assert [line.split("\t")[2:] for line in run("list")] == [
        ["-", "1 workers"],
        ["-", "2 workers"],
    ]
    run("upgrade", MODEL, "--pool", NEW_POOL)
    wait_until(lambda: any("100.0% of the requests ready" in line for line in run("list")))
    assert f"{MODEL}\t{NEW_POOL}\tserving" in run("switch", MODEL)[0]
    assert f"{MODEL}\t{POOL_ID}\tserving" in run("rollback", MODEL)[0]
    refused = CliRunner().invoke(
        cli, ["pools", "rollback", MODEL, "--url", url, "--config", str(config)]
    )
    assert refused.exit_code == 1
