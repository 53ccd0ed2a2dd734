"""Dispatch: the less busy of two, another only before the first byte, and health both ways."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from loragen.errors import (
    DeadlineExceeded,
    EdgeModelNotFound,
    InvalidRequest,
    RecipeMismatch,
    WorkerUnavailable,
)
from loragen.wire import MAX_HEADER_CHARS, RECIPE_FIELD, RECIPE_HEADER, WorkerInfo
from server.crew import Crew, Limits
from server.dispatch import Dispatcher, Trail
from server.health import Health
from tests.fakes.fake_worker import POOL_ID, TEMPLATE_HASH
from tests.fakes.stub_generator import recipe_of

Answer = httpx.Response | Exception

OTHER_POOL = "00" * 32

LIMITS = Limits(max_outstanding=64, max_waiting=0, max_wait_seconds=5)


def info(model: str = "demo") -> WorkerInfo:
    return WorkerInfo(
        edge_model=model, pool_id=POOL_ID, template_hash=TEMPLATE_HASH, backend="gate",
        max_model_len=100,
    )  # fmt: skip


@dataclass
class Network:
    """Workers by host; each answers, or fails, as told."""

    hosts: tuple[str, ...] = ("a", "b")
    limits: Limits = LIMITS
    patience: float = 5.0
    health: dict[str, Callable[[], Answer]] = field(default_factory=dict)
    answers: dict[str, Callable[[], Answer]] = field(default_factory=dict)
    serves: dict[str, str] = field(default_factory=dict)
    pools: dict[str, str] = field(default_factory=dict)
    hits: Counter[str] = field(default_factory=Counter)
    requests: list[httpx.Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.crew = Crew("demo", [f"http://{host}" for host in self.hosts], self.limits)
        client = httpx.AsyncClient(transport=httpx.MockTransport(self._handle))
        self.dispatcher = Dispatcher({"demo": self.crew}, client, patience_seconds=self.patience)
        self.watch = Health({"demo": self.crew}, client, interval_seconds=0.001)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        host, path = request.url.host, request.url.path
        if path == "/health":
            answer = self.health.get(host, lambda: httpx.Response(200))()
        elif path == "/loragen":
            told = info(self.serves.get(host, "demo")).model_dump()
            answer = httpx.Response(200, json=told | {"pool_id": self.pools.get(host, POOL_ID)})
        else:
            self.hits[host] += 1
            self.requests.append(request)
            answer = self.answers.get(host, lambda: httpx.Response(200, json={"from": host}))()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def send(self, **options: Any) -> httpx.Response:
        async with self.dispatcher.send("demo", "/v1/completions", {"x": 1}, **options) as response:
            await response.aread()
            return response

    async def stream(self) -> list[bytes]:
        async with self.dispatcher.send("demo", "/v1/completions", {"stream": True}) as response:
            return [part async for part in response.aiter_bytes()]


def fails(error: Exception) -> Callable[[], Answer]:
    return lambda: error


def says(status: int) -> Callable[[], Answer]:
    return lambda: httpx.Response(status)


@pytest.fixture
async def network() -> Network:
    network = Network()
    await network.watch.probe()
    return network


async def test_the_less_busy_of_two_workers_is_chosen(network: Network) -> None:
    async with network.dispatcher.send("demo", "/v1/completions", {}) as first:
        busy = first.request.url.host
        for _ in range(10):
            assert (await network.send()).request.url.host != busy


async def test_with_many_workers_the_busiest_of_all_is_never_chosen() -> None:
    network = Network(hosts=("a", "b", "c", "d"))
    await network.watch.probe()
    async with network.dispatcher.send("demo", "/v1/completions", {}) as first:
        busy = first.request.url.host
        network.hits.clear()
        for _ in range(60):
            await network.send()
        assert network.hits[busy] == 0
        assert set(network.hits) == {"a", "b", "c", "d"} - {busy}


async def test_outstanding_requests_are_counted_down_however_they_end(network: Network) -> None:
    def inflight() -> list[float | None]:
        name = "loragen_worker_requests_inflight"
        return [REGISTRY.get_sample_value(name, {"worker": f"http://{host}"}) for host in "ab"]

    network.answers["a"] = fails(httpx.ReadTimeout("slow"))
    network.answers["b"] = fails(httpx.ConnectError("gone"))
    for _ in range(4):
        with pytest.raises((DeadlineExceeded, WorkerUnavailable)):
            await network.send()
        await network.watch.probe()
    assert inflight() == [0, 0]
    assert [worker.outstanding for worker in network.crew.workers] == [0, 0]


@pytest.mark.parametrize(
    "loss",
    [
        fails(httpx.ConnectError("refused")),
        fails(httpx.ConnectTimeout("slow")),
        fails(httpx.ReadError("reset")),
        fails(httpx.RemoteProtocolError("hung up")),
        says(502),
        says(503),
        says(504),
    ],
)
async def test_a_worker_that_is_gone_is_left_for_another(
    network: Network, loss: Callable[[], Answer]
) -> None:
    network.answers["a"] = loss
    for _ in range(5):
        assert (await network.send()).json() == {"from": "b"}
    assert network.hits["a"] <= 1
    del network.answers["a"]
    await network.watch.probe()
    hosts = {(await network.send()).request.url.host for _ in range(40)}
    assert hosts == {"a", "b"}


async def test_without_any_worker_left_it_says_so_and_when_to_come_back(network: Network) -> None:
    for host in "ab":
        network.answers[host] = network.health[host] = fails(httpx.ConnectError("refused"))
    with pytest.raises(WorkerUnavailable) as caught:
        await network.send()
    assert caught.value.retry_after is not None
    assert network.dispatcher.missing() == ["demo"]
    with pytest.raises(WorkerUnavailable):
        network.dispatcher.info("demo")


async def test_all_unreached_workers_are_tried() -> None:
    network = Network(hosts=("a", "b", "c", "d"))
    await network.watch.probe()
    for host in "abc":
        network.answers[host] = fails(httpx.ConnectError("refused"))
    for _ in range(5):
        assert (await network.send()).json() == {"from": "d"}


async def test_a_request_that_kills_its_worker_takes_two_with_it_at_most() -> None:
    network = Network(hosts=("a", "b", "c", "d"))
    await network.watch.probe()
    for host in "abcd":
        network.answers[host] = fails(httpx.ReadError("reset"))
    with pytest.raises(WorkerUnavailable):
        await network.send()
    assert network.hits.total() == 2
    assert network.dispatcher.missing() == []


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 429, 500])
async def test_an_answer_that_is_about_the_request_is_final(network: Network, status: int) -> None:
    for host in "ab":
        network.answers[host] = says(status)
    assert (await network.send()).status_code == status
    assert network.hits.total() == 1
    assert all(worker.info is not None for worker in network.crew.workers)


async def test_a_slow_answer_is_not_asked_for_twice(network: Network) -> None:
    for host in "ab":
        network.answers[host] = fails(httpx.ReadTimeout("slow"))
    with pytest.raises(DeadlineExceeded):
        await network.send()
    assert network.hits.total() == 1


async def test_after_the_first_byte_nothing_is_tried_again(network: Network) -> None:
    with pytest.raises(WorkerUnavailable):
        async with network.dispatcher.send("demo", "/v1/completions", {}):
            raise httpx.ReadError("reset")
    assert network.hits.total() == 1


class Body(httpx.AsyncByteStream):
    """A body that breaks after its parts, or holds until released."""

    def __init__(self, *parts: bytes, error: Exception | None = None) -> None:
        self.release = asyncio.Event()
        self.closed = False
        self._parts = parts
        self._error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part
        if self._error is not None:
            raise self._error
        await self.release.wait()

    async def aclose(self) -> None:
        self.closed = True


def streams(body: Body) -> Callable[[], Answer]:
    return lambda: httpx.Response(200, stream=body)


async def test_a_stream_lost_before_its_first_token_is_begun_again_on_another_worker(
    network: Network,
) -> None:
    broken, whole = Body(error=httpx.ReadError("reset")), Body(b"one", b"two")
    whole.release.set()
    network.answers = {"a": streams(broken), "b": streams(whole)}
    network.crew.workers[1].outstanding = 1  # so that the broken one is chosen first
    assert await network.stream() == [b"one", b"two"]
    assert network.hits == {"a": 1, "b": 1}
    assert broken.closed
    assert whole.closed


async def test_a_stream_lost_after_its_first_token_is_lost() -> None:
    network = Network(hosts=("a",))
    await network.watch.probe()
    network.answers["a"] = streams(Body(b"one", error=httpx.ReadError("reset")))
    with pytest.raises(WorkerUnavailable):
        await network.stream()
    assert network.crew.healthy == []


async def test_a_stream_that_takes_long_to_begin_is_passed_on() -> None:
    network = Network(hosts=("a",), patience=0.01)
    await network.watch.probe()
    body = Body()
    network.answers["a"] = streams(body)
    async with network.dispatcher.send("demo", "/v1/completions", {"stream": True}) as answer:
        assert answer.status_code == 200
        assert not body.closed
    assert body.closed


async def test_an_unknown_model_is_not_found(network: Network) -> None:
    with pytest.raises(EdgeModelNotFound) as caught:
        network.dispatcher.info("nobody")
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    "illness",
    [
        says(500),
        says(503),
        fails(httpx.ConnectError("refused")),
        fails(httpx.ReadTimeout("slow")),
        fails(RuntimeError("surprise")),
    ],
)
async def test_an_ill_worker_is_noticed_and_its_return_too(
    network: Network, illness: Callable[[], Answer]
) -> None:
    watching = asyncio.create_task(network.watch.probe_forever())

    async def until(healthy: int) -> None:
        async with asyncio.timeout(5):
            while len(network.crew.healthy) != healthy:  # noqa: ASYNC110
                await asyncio.sleep(0)

    try:
        await until(2)
        network.health["a"] = illness
        await until(1)
        assert network.dispatcher.missing() == []
        del network.health["a"]
        await until(2)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_worker_of_another_model_is_not_used(network: Network) -> None:
    network.serves["a"] = "other"
    await network.watch.probe()
    for _ in range(5):
        assert (await network.send()).json() == {"from": "b"}


async def test_a_recipe_goes_in_the_header_and_a_large_one_in_the_body(network: Network) -> None:
    small, large = recipe_of("small"), recipe_of("large", experts=1_000)
    for recipe in (small, large, None):
        await network.send(recipe=recipe)
    in_header, in_body, without = network.requests
    assert in_header.headers[RECIPE_HEADER] == small.text
    assert RECIPE_FIELD.encode() not in in_header.content
    assert RECIPE_HEADER not in in_body.headers
    assert len(large.text) > MAX_HEADER_CHARS
    assert large.text.encode() in in_body.content
    assert RECIPE_HEADER not in without.headers
    assert RECIPE_FIELD.encode() not in without.content


async def test_a_worker_that_holds_another_pool_by_now_is_asked_and_another_answers(
    network: Network,
) -> None:
    network.pools["a"], network.answers["a"] = OTHER_POOL, says(409)
    for _ in range(20):
        assert (await network.send(recipe=recipe_of("x"))).json() == {"from": "b"}
    assert network.hits["a"] <= 1  # its pool is known from then on
    assert network.crew.pools == tuple(sorted((OTHER_POOL, POOL_ID)))
    assert len(network.crew.healthy) == 2


async def test_where_no_worker_takes_a_recipe_the_caller_is_told_what_is_wrong(
    network: Network,
) -> None:
    for host in "ab":
        network.answers[host] = says(409)  # though both say that it is the pool they hold
    with pytest.raises(RecipeMismatch):
        await network.send(recipe=recipe_of("x"))
    assert network.hits == {"a": 1, "b": 1}
    with pytest.raises(RecipeMismatch):
        await network.send(recipe=recipe_of("x", pool_id=OTHER_POOL))
    assert network.hits == {"a": 1, "b": 1}


async def test_a_worker_that_refuses_a_recipe_and_says_nothing_more_is_ill(
    network: Network,
) -> None:
    network.answers["a"] = says(409)
    network.pools["a"] = "no pool id"
    while network.hits["a"] == 0:
        assert (await network.send(recipe=recipe_of("x"))).json() == {"from": "b"}
    assert [worker.url for worker in network.crew.healthy] == ["http://b"]


async def test_one_request_loses_two_workers_at_most_with_a_recipe_and_without(
    network: Network,
) -> None:
    network.pools["b"] = OTHER_POOL
    await network.watch.probe()
    trail = Trail()
    for host in "ab":
        network.answers[host] = fails(httpx.ReadError("gone"))
    with pytest.raises(RecipeMismatch):
        await network.send(recipe=recipe_of("x"), trail=trail)
    await network.watch.probe()
    with pytest.raises(WorkerUnavailable, match="two workers were lost"):
        await network.send(trail=trail)
    assert network.hits.total() == 2


async def test_tokens_are_counted_by_a_worker(network: Network) -> None:
    for host in "ab":
        network.answers[host] = lambda: httpx.Response(200, json={"count": 12})
    assert await network.dispatcher.count_tokens("demo", []) == 12


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"count":null}'])
async def test_a_count_that_is_none_is_a_lost_worker(network: Network, content: bytes) -> None:
    for host in "ab":
        network.answers[host] = lambda: httpx.Response(200, content=content)
    with pytest.raises(WorkerUnavailable):
        await network.dispatcher.count_tokens("demo", [])


async def test_messages_that_the_template_refuses_are_the_clients_mistake(
    network: Network,
) -> None:
    for host in "ab":
        network.answers[host] = lambda: httpx.Response(
            400, json={"error": {"message": "System role not supported", "code": 400}}
        )
    with pytest.raises(InvalidRequest, match="System role"):
        await network.dispatcher.count_tokens("demo", [])


@pytest.fixture(autouse=True)
def _same_choices_every_run() -> None:
    random.seed(0)
