"""Limits of tenants at the gateway: who is refused, what is said, and that gateways share them."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from server.shared import Shared
from tests.fakes.admin import AdminApi, admin_api
from tests.fakes.gateway import MODEL, Gateway, gateway, redis_shared, settings
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

Limited = Callable[..., Gateway]
Held = Callable[[], tuple[int, int]]
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
WORDS = "one two three four five six seven eight"


@pytest.fixture
def admin(valkey: Valkey, namespace: str) -> Iterator[AdminApi]:
    """An admin API over an empty namespace."""
    with admin_api(valkey.url, namespace) as running:
        yield running


@pytest.fixture
def two(valkey: Valkey, namespace: str) -> Iterator[tuple[Gateway, Gateway]]:
    """Two gateways of the same namespace that ask for keys."""
    server = {"auth": "keys"}
    # A busy machine is not a lost Redis, without which nothing is counted.
    store = {"timeout_seconds": 30.0}
    told = settings([], namespace=namespace, redis_url=valkey.url, store=store)
    with (
        gateway(Shared.connect(told), namespace, server=server) as one,
        gateway(Shared.connect(told), namespace, server=server) as other,
    ):
        yield one, other


@pytest.fixture
def limited(admin: AdminApi, two: tuple[Gateway, Gateway]) -> Limited:
    """Make tenant acme with limits and return a gateway whose client, as the other's, is its."""

    def make(**limits: int) -> Gateway:
        admin.create_tenant(limits=limits)
        key = admin.create_key()["key"]
        for gate in two:
            gate.http.headers["authorization"] = f"Bearer {key}"
        return two[0]

    return make


@pytest.fixture
def held(valkey: Valkey, namespace: str) -> Held:
    """What Redis itself holds of tenant acme: requests that run, tokens of the last minute."""
    client: Any = valkey.client

    def read() -> tuple[int, int]:
        tokens = client.hvals(f"{namespace}:tokens:acme")
        return client.zcard(f"{namespace}:running:acme"), sum(map(int, tokens))

    return read


def error_of(reply: httpx.Response) -> tuple[int, str, str | None]:
    error = reply.json()["error"]
    return reply.status_code, error["code"], error["param"]


def tokens_left(gate: Gateway) -> int:
    return int(gate.http.get("/v1/models").headers["x-ratelimit-remaining-tokens"])


def usage_and_reservation(gate: Gateway) -> tuple[int, int]:
    """Ask as the first of the tenant; return the tokens it took, and what was reserved for it."""
    reply = gate.ask("hi", max_tokens=100)
    limit, left = (
        int(reply.headers[f"x-ratelimit-{what}-tokens"]) for what in ("limit", "remaining")
    )
    assert limit - left > 100
    return reply.json()["usage"]["total_tokens"], limit - left


def test_too_many_requests_are_a_429_that_says_when_and_which_limit(limited: Limited) -> None:
    gate = limited(requests_per_minute=2)
    before = gate.metric("loragen_limits_rejected_total", limit="requests")
    first = gate.ask("hi")
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert 59 < float(first.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 61
    assert "x-ratelimit-limit-tokens" not in first.headers
    assert gate.http.get("/v1/tasks/task_nobody").headers["x-ratelimit-remaining-requests"] == "0"
    refused = gate.ask("hi")
    assert error_of(refused) == (429, "rate_limit_exceeded", "requests")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert gate.metric("loragen_limits_rejected_total", limit="requests") == before + 1
    key = gate.http.headers["authorization"].removeprefix("Bearer ")
    client = openai.OpenAI(base_url=gate.server.url + "/v1", api_key=key, max_retries=0)
    with pytest.raises(openai.RateLimitError):
        client.models.list()
    assert gate.http.get("/health").status_code == 200


def test_a_tenant_without_limits_hears_nothing_of_them(limited: Limited) -> None:
    gate = limited()
    assert not [name for name in gate.ask("hi").headers if name.startswith("x-ratelimit")]


def test_a_changed_limit_is_in_force_within_two_seconds(limited: Limited, admin: AdminApi) -> None:
    gate = limited()
    assert gate.ask("hi").status_code == 200
    admin.http.patch("/admin/tenants/acme", json={"limits": {"requests_per_minute": 0}})
    wait_until(lambda: gate.ask("hi").status_code == 429, seconds=2)
    admin.http.patch("/admin/tenants/acme", json={"limits": {"requests_per_minute": None}})
    wait_until(lambda: gate.ask("hi").status_code == 200, seconds=2)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_costs_the_tokens_it_used(limited: Limited, stream: bool) -> None:
    gate = limited(tokens_per_minute=1_000)
    reply = gate.ask(WORDS, max_tokens=100, stream=stream)
    assert reply.status_code == 200
    assert int(reply.headers["x-ratelimit-remaining-tokens"]) < 900  # reserved while it runs
    whole = gate.ask(WORDS, max_tokens=100).json()["usage"]
    assert tokens_left(gate) == 1_000 - 2 * whole["total_tokens"]
    assert ('"usage"' in reply.text) is not stream


def test_a_stream_that_is_left_costs_what_passed(limited: Limited) -> None:
    gate = limited(tokens_per_minute=1_000)
    gate.worker.hold_after = 3
    body = {**CHAT, "stream": True, "max_tokens": 100}
    with gate.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = filter(None, reply.iter_lines())  # whose end would close the stream
        for _ in range(3):
            assert next(lines).startswith("data: {")
        reserved = 1_000 - tokens_left(gate)
        assert reserved > 100
    wait_until(lambda: tokens_left(gate) > 1_000 - reserved)
    assert tokens_left(gate) == 1_000 - (reserved - 100 + 3)  # the prompt, and what passed


def test_what_no_worker_answered_costs_no_tokens(limited: Limited) -> None:
    gate = limited(tokens_per_minute=1_000)
    gate.worker.fail_status = 500
    assert gate.ask(WORDS, max_tokens=100).status_code == 503
    assert tokens_left(gate) == 1_000


def test_tokens_that_are_not_left_are_refused(limited: Limited) -> None:
    gate = limited(tokens_per_minute=150)
    gate.worker.hold_after = 1
    body = {**CHAT, "stream": True, "max_tokens": 100}
    with gate.http.stream("POST", "/v1/chat/completions", json=body):
        refused = gate.ask("hi", max_tokens=100)
        assert error_of(refused) == (429, "rate_limit_exceeded", "tokens")
        assert 1 <= int(refused.headers["retry-after"]) <= 61
    never = gate.ask("hi", max_tokens=150)
    assert error_of(never) == (400, "invalid_request", "max_tokens")
    gate.worker.hold_after = None


def test_a_tenant_runs_as_many_at_once_as_it_may_and_a_place_is_free_at_once(
    limited: Limited, two: tuple[Gateway, Gateway]
) -> None:
    gate = limited(concurrent_requests=1)
    gate.worker.hold = True
    done: list[int] = []
    running = threading.Thread(target=lambda: done.append(gate.ask("hi").status_code))
    running.start()
    wait_until(lambda: gate.worker.held == 1)
    refused = two[1].ask("hi")
    assert error_of(refused) == (429, "rate_limit_exceeded", "concurrency")
    assert refused.headers["retry-after"] == "1"
    gate.worker.hold = False
    running.join(10)
    assert done == [200]
    for number in range(20):  # one after the other, with nothing between
        assert two[number % 2].ask("hi", stream=bool(number % 3)).status_code == 200


@pytest.fixture
async def many() -> AsyncIterator[httpx.AsyncClient]:
    """A client with as many connections as it wants."""
    pool = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=pool) as client:
        yield client


def two_hundred(
    client: httpx.AsyncClient,
    two: tuple[Gateway, Gateway],
    path: str,
    body: Callable[[int], dict[str, Any]],
) -> list["asyncio.Task[httpx.Response]"]:
    """Send two hundred requests of the tenant at once, half of them to each gateway."""
    headers = dict(two[0].http.headers)
    return [
        asyncio.create_task(
            client.post(two[number % 2].server.url + path, json=body(number), headers=headers)
        )
        for number in range(200)
    ]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what servers in other threads do
            await asyncio.sleep(0.02)


async def test_of_two_hundred_clients_of_two_gateways_as_many_get_in_as_may(
    limited: Limited, two: tuple[Gateway, Gateway], many: httpx.AsyncClient
) -> None:
    limited(requests_per_minute=50, tokens_per_minute=2_000)
    chat = {**CHAT, "max_tokens": 2}
    replies = await asyncio.gather(*two_hundred(many, two, "/v1/chat/completions", lambda _: chat))
    codes = [reply.status_code for reply in replies]
    assert set(codes) <= {200, 429}, next(r.text for r in replies if r.status_code >= 500)
    assert (codes.count(200), codes.count(429)) == (50, 150)
    assert sum(len(gate.worker.seen) for gate in two) == 50


@pytest.mark.parametrize(("places", "tokens"), [(7, 100_000), (200, 1_000)])
async def test_two_hundred_at_once_hold_no_more_than_may_run_and_settle_what_they_held(
    limited: Limited,
    two: tuple[Gateway, Gateway],
    many: httpx.AsyncClient,
    held: Held,
    places: int,
    tokens: int,
) -> None:
    limited(concurrent_requests=places, tokens_per_minute=tokens)
    used, reserved = usage_and_reservation(two[0])
    most = min(places, (tokens - used) // reserved)
    assert 5 < most < 12
    for gate in two:
        gate.worker.hold = True
    chat = {**CHAT, "max_tokens": 100}
    asked = two_hundred(many, two, "/v1/chat/completions", lambda _: chat)
    await until(lambda: sum(each.done() for each in asked) == 200 - most)
    await until(lambda: sum(gate.worker.held for gate in two) == most)
    assert held() == (most, used + most * reserved)
    for gate in two:
        gate.worker.hold = False
    replies = await asyncio.gather(*asked)
    codes = [reply.status_code for reply in replies]
    assert (codes.count(200), codes.count(429)) == (most, 200 - most)
    used += sum(r.json()["usage"]["total_tokens"] for r in replies if r.status_code == 200)
    assert held() == (0, used)
    assert tokens_left(two[1]) == tokens - used


async def streamed(
    client: httpx.AsyncClient, gate: Gateway, begun: list[int], leaving: asyncio.Event | None
) -> int:
    """Begin a stream that halts after two pieces; leave it there, or return its usage."""
    body = {**CHAT, "stream": True, "max_tokens": 100, "stream_options": {"include_usage": True}}
    url, headers = gate.server.url + "/v1/chat/completions", dict(gate.http.headers)
    last = ""
    async with client.stream("POST", url, json=body, headers=headers) as reply:
        pieces = 0
        async for line in reply.aiter_lines():
            if not line.startswith("data: {"):
                continue
            last, pieces = line, pieces + 1
            if pieces == 2:
                begun.append(1)
                if leaving is not None:
                    await leaving.wait()
                    return 0
    return int(json.loads(last.removeprefix("data: "))["usage"]["total_tokens"])


async def test_half_of_two_hundred_streams_are_left_and_nothing_stays_held(
    limited: Limited, two: tuple[Gateway, Gateway], many: httpx.AsyncClient, held: Held
) -> None:
    limited(concurrent_requests=200, tokens_per_minute=100_000)
    used, reserved = usage_and_reservation(two[0])
    for gate in two:
        gate.worker.hold_after = 2
    begun: list[int] = []
    leaving = asyncio.Event()
    async with asyncio.TaskGroup() as clients:
        leavers, stayers = (
            [
                clients.create_task(streamed(many, two[number % 2], begun, event))
                for number in range(100)
            ]
            for event in (leaving, None)
        )
        await until(lambda: len(begun) == 200)
        assert held() == (200, used + 200 * reserved)
        leaving.set()
        await asyncio.wait(leavers)
        await until(lambda: sum(gate.worker.abandoned for gate in two) == 100)
        await until(lambda: held()[0] == 100)
        used += 100 * (reserved - 100 + 2)  # the prompt, and what passed
        assert held() == (100, used + 100 * reserved)
        for gate in two:
            gate.worker.hold_after = None
    used += sum(each.result() for each in stayers)
    assert held() == (0, used)
    assert tokens_left(two[1]) == 100_000 - used


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_left_before_its_answer_begins_costs_all_it_could_and_frees_its_place(
    limited: Limited, many: httpx.AsyncClient, held: Held, stream: bool
) -> None:
    gate = limited(concurrent_requests=1, tokens_per_minute=150)
    gate.worker.hold = True
    url, headers = gate.server.url + "/v1/chat/completions", dict(gate.http.headers)
    body = {**CHAT, "max_tokens": 100, "stream": stream}
    asked = asyncio.create_task(many.post(url, json=body, headers=headers))
    await until(lambda: gate.worker.held == 1)
    places, reserved = held()
    assert places == 1
    assert reserved > 100
    asked.cancel()
    await until(lambda: held()[0] == 0)
    await until(lambda: gate.worker.abandoned == 1)
    gate.worker.hold = False
    refused = gate.ask("hi", max_tokens=100)
    assert error_of(refused) == (429, "rate_limit_exceeded", "tokens")
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    served = gate.ask("hi", max_tokens=10)
    assert served.status_code == 200
    assert held() == (0, reserved + served.json()["usage"]["total_tokens"])


@pytest.mark.parametrize("limit", ["tasks", "compiles_per_minute"])
async def test_two_hundred_prompts_at_once_make_as_many_as_may_be(
    limited: Limited, two: tuple[Gateway, Gateway], many: httpx.AsyncClient, limit: str
) -> None:
    limited(**{limit: 30})
    asked = two_hundred(
        many,
        two,
        "/v1/tasks",
        lambda number: {"model": MODEL, "system_prompt": f"You are number {number}."},
    )
    replies = await asyncio.gather(*asked)
    codes = [reply.status_code for reply in replies]
    assert (codes.count(201), codes.count(429)) == (30, 170)
    assert sum(gate.generator.calls.total() for gate in two) == 30


def test_tasks_are_as_many_as_the_tenant_may_have(limited: Limited) -> None:
    gate = limited(tasks=2)
    one = gate.create("You are one.")["id"]
    gate.create("You are two.")
    body = {"model": MODEL, "system_prompt": "You are three."}
    refused = gate.http.post("/v1/tasks", json=body)
    assert error_of(refused) == (429, "rate_limit_exceeded", "tasks")
    assert "retry-after" not in refused.headers  # time alone does not help
    assert error_of(gate.http.put("/v1/tasks/by-name/ada", json=body))[2] == "tasks"
    assert gate.create("You are one.")["id"] == one
    gate.http.delete(f"/v1/tasks/{one}")
    gate.create("You are three.")


def test_compiles_are_as_many_as_the_tenant_may_have(limited: Limited) -> None:
    gate = limited(compiles_per_minute=1)
    task_id = gate.create("You are one.")["id"]
    gate.create("You are one.")  # it is known: nothing is compiled
    body: dict[str, Any] = {"model": MODEL, "system_prompt": "You are two."}
    assert error_of(gate.http.post("/v1/tasks", json=body))[2] == "compiles"
    messages = [{"role": "system", "content": "Be brief."}, *CHAT["messages"]]
    compiled = {"model": MODEL, "messages": messages, "system_prompt": "compile"}
    assert error_of(gate.http.post("/v1/chat/completions", json=compiled))[2] == "compiles"
    probes = [{"input": str(number)} for number in range(8)]
    refine = gate.http.post(f"/v1/tasks/{task_id}/refine", json={"probes": probes})
    assert error_of(refine)[2] == "compiles"
    assert gate.ask("hi", task_id=task_id).headers["x-loragen-mode"] == "compiled"
    assert gate.generator.calls.total() == 1


def test_prompts_are_as_large_as_the_tenant_may_send(limited: Limited) -> None:
    gate = limited(prompt_bytes=20)
    assert gate.create("You are brief.")
    body = {"model": MODEL, "system_prompt": "You are far too long."}
    refused = gate.http.post("/v1/tasks", json=body)
    assert error_of(refused) == (400, "invalid_request", "system_prompt")
    messages = [{"role": "system", "content": "You are far too long."}, *CHAT["messages"]]
    assert error_of(gate.ask("", messages=messages)) == (400, "invalid_request", "messages")


def test_without_redis_known_tenants_go_on_uncounted_or_are_refused(
    tmp_path: Path, namespace: str
) -> None:
    for is_open in (True, False):
        folder = tmp_path / str(is_open)
        folder.mkdir()
        server = Valkey(folder)
        limits = {"when_store_is_down": "allow" if is_open else "refuse"}
        try:
            with (
                admin_api(server.url, namespace) as admin,
                gateway(
                    redis_shared(server.url, namespace),
                    namespace,
                    server={"auth": "keys"},
                    limits=limits,
                ) as gate,
            ):
                admin.create_tenant(limits={"requests_per_minute": 1})
                gate.http.headers["authorization"] = f"Bearer {admin.create_key()['key']}"
                assert [gate.ask("hi").status_code for _ in range(2)] == [200, 429]
                before = gate.metric("loragen_limits_unchecked_total")
                server.kill()
                assert gate.ask("hi").status_code == (200 if is_open else 503)
                counted = gate.metric("loragen_limits_unchecked_total") - before
                assert counted == int(is_open)
        finally:
            server.kill()
