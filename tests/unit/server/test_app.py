"""The gateway refuses to start half configured or open to the network."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from inspect import iscoroutinefunction
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from config.ports import free_port
from config.settings import ServerSettings, Settings
from loragen.errors import ConfigError
from loragen.task import TaskRecord
from server import renewal
from server.__main__ import _refuse_open_network
from server.app import build_app, create_app
from server.exposition import serve_metrics
from tests.contract.store_contract import task_of
from tests.fakes.fake_worker import FakeWorker
from tests.fakes.gateway import MASTER_SECRET, settings
from tests.fakes.memory_store import MemoryStore
from tests.fakes.shared_state import shared_state
from tests.fakes.stub_generator import StubGenerator


def changed(**fields: Any) -> Settings:
    whole = settings(["http://127.0.0.1:1"]).model_copy(
        update={"redis_url": Settings(redis_url="redis://127.0.0.1:1").redis_url}
    )
    return whole.model_copy(update=fields)


def test_a_full_configuration_makes_an_application_without_touching_the_network() -> None:
    assert create_app(changed()).title == "LoRA-Gen Server"


def test_no_request_waits_for_a_thread() -> None:
    # A plain function is called in one, by a hand-over that costs more than most handlers.
    secret = Settings(admin_secret="s" * 16).admin_secret
    app = create_app(changed(admin_secret=secret, server=ServerSettings(admin_port=1)))
    routes = [
        route
        for each in (app, app.state.admin)
        for route in each.routes
        if isinstance(route, APIRoute)
    ]
    assert len(routes) > 20
    for route in routes:
        parts = [route.dependant, *route.dependant.dependencies]
        assert all(iscoroutinefunction(part.call) for part in parts), route.path


def test_metrics_with_a_port_of_their_own_are_there_and_not_on_the_api_port() -> None:
    port = free_port()
    app = create_app(changed(server=ServerSettings(metrics_port=port)))
    assert TestClient(app).get("/metrics").status_code == 404
    serve_metrics("127.0.0.1", port)
    assert "loragen_store_up" in httpx.get(f"http://127.0.0.1:{port}/metrics").text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"edge_models": ()}, "edge_models"),
        ({"redis_url": None}, "LORAGEN_REDIS_URL"),
        ({"master_secret": None}, "LORAGEN_MASTER_SECRET"),
    ],
)
def test_what_is_missing_is_named(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        create_app(changed(**fields))


async def test_it_ends_although_a_client_swallows_a_cancellation() -> None:
    class Deaf(MemoryStore):
        has_swallowed = False

        async def ping(self) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if self.has_swallowed:
                    raise
                self.has_swallowed = True

    app = build_app(
        settings(["http://worker"]),
        shared=shared_state(Deaf()),
        generator=StubGenerator(),
        workers=httpx.AsyncClient(transport=httpx.ASGITransport(FakeWorker().app)),
    )
    async with asyncio.timeout(10), app.router.lifespan_context(app):
        await asyncio.sleep(0)


async def test_a_renewal_outlives_what_it_did_not_expect_and_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(MemoryStore):
        has_failed = False

        async def records(self, tenant: str, task_ids: Sequence[str]) -> dict[str, TaskRecord]:
            if not self.has_failed and task_ids == [task_of(1).id]:
                self.has_failed = True
                raise KeyError("what nobody expected")
            return await super().records(tenant, task_ids)

    monkeypatch.setattr(renewal, "_RETRY_SECONDS", 0.0)
    store = Odd()
    for number in range(2):
        await store.create(task_of(number))
    app = build_app(
        settings(["http://worker"], master_secret=f"{MASTER_SECRET},{'1e' * 32}"),
        shared=shared_state(store),
        generator=StubGenerator(),
        workers=httpx.AsyncClient(transport=httpx.ASGITransport(FakeWorker().app)),
    )
    async with asyncio.timeout(10), app.router.lifespan_context(app):
        while app.state.renewal.state.status != "done":  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    assert (store.has_failed, app.state.renewal.state.tasks) == (True, 2)
    assert [record.message for record in caplog.records].count("renewal failed") == 1


@pytest.mark.parametrize("secret", ["short", "ab" * 16, "zz" * 32])
def test_a_weak_master_secret_is_refused_without_showing_it(secret: str) -> None:
    weak = Settings(master_secret=secret).master_secret
    with pytest.raises(ConfigError, match="master_secret") as caught:
        create_app(changed(master_secret=weak))
    assert secret not in str(caught.value)


@pytest.mark.parametrize("secret", [None, "", "short"])
def test_an_admin_port_needs_a_secret_worth_the_name(secret: str | None) -> None:
    weak = Settings(admin_secret=secret).admin_secret
    with pytest.raises(ConfigError, match="admin_secret"):
        create_app(changed(server=ServerSettings(admin_port=1), admin_secret=weak))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_the_open_tenant_may_listen_on_this_machine(host: str) -> None:
    _refuse_open_network(changed(server=ServerSettings(host=host)))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.evil"])
def test_the_open_tenant_may_not_listen_elsewhere(host: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        _refuse_open_network(changed(server=ServerSettings(host=host)))


def test_the_open_tenant_listens_elsewhere_only_where_the_switch_says_so() -> None:
    _refuse_open_network(changed(server=ServerSettings(host="0.0.0.0", allow_open_network=True)))


def test_where_keys_are_asked_for_it_listens_wherever_it_is_told() -> None:
    _refuse_open_network(changed(server=ServerSettings(host="0.0.0.0", auth="keys")))


def test_a_process_that_refuses_to_start_says_why_and_exits_with_2() -> None:
    environment = {"LORAGEN_MASTER_SECRET": MASTER_SECRET, "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "server"], env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip() == "server: edge_models: configure at least one"
    assert MASTER_SECRET not in done.stdout + done.stderr
