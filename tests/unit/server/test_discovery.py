"""Discovery: a name stands for the workers behind it, and a silent name server takes none away."""

import asyncio

import httpx
import pytest
from prometheus_client import REGISTRY

from config.edge_model import EdgeModelSettings
from config.settings import Settings
from loragen import metrics
from loragen.errors import WorkerUnavailable
from loragen.wire import WorkerInfo
from server.crew import Crew, Limits
from server.discovery import Discovery, resolve_addresses
from server.dispatch import Dispatcher
from server.health import Health
from tests.fakes.fake_worker import POOL_ID, TEMPLATE_HASH

SERVICE = "http://workers.test:8001"
NEXT = "http://next-workers.test:8001"


class Names:
    """A name server that lists what it is told."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.next_hosts: tuple[str, ...] = ()
        self.silent = False

    async def __call__(self, url: str) -> tuple[str, ...]:
        hosts = {SERVICE: self.hosts, NEXT: self.next_hosts}[url]
        if self.silent or not hosts:
            raise OSError("no answer")
        return tuple(f"http://{host}" for host in hosts)


async def answer(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/loragen":
        info = WorkerInfo(
            edge_model="demo", pool_id=POOL_ID, template_hash=TEMPLATE_HASH, backend="gate",
            max_model_len=100,
        )  # fmt: skip
        return httpx.Response(200, json=info.model_dump())
    return httpx.Response(200, json={"from": request.url.host})


class Serving(Dispatcher):
    """A dispatcher whose workers are found by name, and watched."""

    def __init__(self, names: Names) -> None:
        limits = Limits(max_outstanding=64, max_waiting=0, max_wait_seconds=5)
        crews = {"demo": Crew("demo", [], limits)}
        client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        super().__init__(crews, client, patience_seconds=5)
        self.watch = Health(
            crews,
            client,
            interval_seconds=0.001,
            discovery=Discovery({"demo": [SERVICE, NEXT]}, names),
        )


async def ask(dispatching: Dispatcher) -> str:
    async with dispatching.send("demo", "/v1/completions", {}) as response:
        await response.aread()
        host: str = response.json()["from"]
        return host


async def until(serves: Dispatcher, host: str) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                if await ask(serves) == host:
                    return
            except WorkerUnavailable:
                pass
            await asyncio.sleep(0)


async def shown(value: float | None, metric: str, **labels: str) -> None:
    """Return once a metric has a value; None: no such series."""
    async with asyncio.timeout(5):
        while True:
            if REGISTRY.get_sample_value(metric, labels) == value:
                return
            await asyncio.sleep(0)


async def test_workers_behind_a_name_serve_and_follow_it() -> None:
    names = Names("a")
    serving = Serving(names)
    await serving.watch.probe()
    assert await ask(serving) == "a"
    probing = asyncio.create_task(serving.watch.probe_forever())
    names.hosts = ("b",)
    await until(serving, "b")
    assert {await ask(serving) for _ in range(20)} == {"b"}
    await shown(1, "loragen_healthy_workers", model="demo")
    await shown(1, "loragen_worker_up", model="demo", worker="http://b")
    await shown(None, "loragen_worker_up", model="demo", worker="http://a")
    probing.cancel()
    await asyncio.gather(probing, return_exceptions=True)


async def test_probing_that_ended_by_a_surprise_goes_on_with_every_worker() -> None:
    names = Names("a")
    serving = Serving(names)
    for _ in range(2):
        probing = asyncio.create_task(serving.watch.probe_forever())
        await shown(1, "loragen_worker_up", model="demo", worker="http://a")
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
        metrics.WORKER_UP.remove("demo", "http://a")


async def test_a_model_that_never_had_a_worker_is_in_the_metrics() -> None:
    names = Names()
    names.silent = True
    probing = asyncio.create_task(Serving(names).watch.probe_forever())
    await shown(0, "loragen_healthy_workers", model="demo")
    probing.cancel()
    await asyncio.gather(probing, return_exceptions=True)


async def test_a_silent_name_server_takes_no_worker_away() -> None:
    names = Names("a")
    serving = Serving(names)
    await serving.watch.probe()
    names.silent = True
    await serving.watch.probe()
    assert await ask(serving) == "a"


async def test_workers_behind_a_second_name_serve_beside_them_for_as_long_as_they_are_there() -> (
    None
):
    names = Names("a")
    serving = Serving(names)
    await serving.watch.probe()
    assert {await ask(serving) for _ in range(20)} == {"a"}
    names.next_hosts = ("b",)
    await serving.watch.probe()
    assert {await ask(serving) for _ in range(40)} == {"a", "b"}
    names.hosts = ()  # as its Deployment has no pod any more: who is gone fails its probes
    await serving.watch.probe()
    assert {await ask(serving) for _ in range(40)} == {"a", "b"}


async def test_without_an_address_no_worker_is_there() -> None:
    names = Names()
    names.silent = True
    serving = Serving(names)
    await serving.watch.probe()
    assert serving.missing() == ["demo"]


async def test_a_worker_that_left_finishes_what_it_answers_and_leaves_no_series() -> None:
    def gauge() -> float | None:
        return REGISTRY.get_sample_value(
            "loragen_worker_requests_inflight", {"worker": "http://leaving"}
        )

    names = Names("leaving")
    serving = Serving(names)
    await serving.watch.probe()
    async with serving.send("demo", "/v1/completions", {}) as response:
        names.hosts = ("staying",)
        await serving.watch.probe()
        assert gauge() == 1
        await response.aread()
        assert response.json() == {"from": "leaving"}
    assert gauge() is None
    assert await ask(serving) == "staying"


async def test_an_address_takes_the_place_of_the_host_name() -> None:
    assert "http://127.0.0.1:8001" in await resolve_addresses("http://localhost:8001/")
    assert await resolve_addresses("http://127.0.0.1:8001") == ("http://127.0.0.1:8001",)
    with pytest.raises(OSError, match=r".+"):
        await resolve_addresses("http://nothing.invalid:8001")


def test_a_model_has_one_way_to_its_workers() -> None:
    with pytest.raises(ValueError, match="not both"):
        Settings(
            edge_models=[
                EdgeModelSettings(
                    name="demo", model="x", worker_service=SERVICE, worker_urls=[SERVICE]
                )
            ]
        )
