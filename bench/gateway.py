"""`python -m bench.gateway`: what the gateway costs beside a bare pass-through.

Both stand before the same stub worker, and one client asks them in turns. The gateway is the real
process as it ships: keys, limits, a task whose recipe it resolves, places in line, usage, metrics,
a real Redis. The pass-through is Starlette and httpx and nothing else. What is compared is the CPU
time of each process for one request, which other work on the machine changes little; requests per
second are beside it.

whole     an answer in one piece
streamed  an event for each token, a pause of a worker's step between them
burst     the same without pauses: events come faster than they can be passed on
"""

import asyncio
import json
import os
import random
import secrets
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import psutil
import typer
import yaml

from bench.made_tasks import TaskMaker
from bench.module_process import ROOT, START_SECONDS, module_process
from bench.paired import interval
from bench.plain_client import PlainClient
from bench.progress import say
from bench.provenance import provenance
from bench.redis_process import redis_process
from bench.stub_worker import POOL_ID, TEMPLATE_HASH
from config.ports import free_port
from loragen.api_key import ApiKey, KeyRecord
from loragen.keys import TenantKeys
from loragen.recipe import Recipe
from loragen.redis_client import connect
from loragen.redis_store import RedisStore
from loragen.redis_tenants import RedisTenants
from loragen.tenants import Tenant
from server.recipe_tier import RecipeTier

NAMESPACE: Final = "loragen"
TENANT: Final = "bench"
PATH: Final = "/v1/chat/completions"
SIDES: Final = ("gateway", "pass_through")


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of request, and from how many connections it comes."""

    name: str
    clients: int
    is_stream: bool
    step_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Half:
    """One side of a pair: requests, seconds, and CPU seconds of the side's process and of Redis."""

    requests: int
    seconds: float
    cpu_seconds: float
    redis_cpu_seconds: float

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of the process for one request."""
        return 1e6 * self.cpu_seconds / self.requests


CASES: Final = (
    Case("whole", clients=8, is_stream=False),
    Case("streamed", clients=16, is_stream=True, step_ms=10.0),
    Case("burst", clients=8, is_stream=True),
)


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    pairs: Annotated[int, typer.Option(help="Pairs of both sides in each case.", min=1)] = 9,
    seconds: Annotated[float, typer.Option(help="Seconds of each half of a pair.")] = 3.0,
    tokens: Annotated[int, typer.Option(help="Tokens of an answer.")] = 32,
    only: Annotated[str | None, typer.Option(help="One case alone.")] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also sample where the gateway spends its time.")
    ] = False,
) -> None:
    """Measure the gateway's CPU time per request over a pass-through's, in pairs."""
    halves = {}
    profiles: dict[str, Any] = {}
    for case in (each for each in CASES if only in (None, each.name)):
        halves[case.name] = run_case(case, pairs=pairs, seconds=seconds, tokens=tokens)
        if profile:
            profiles[case.name] = run_profile(case, seconds=2 * seconds, tokens=tokens)
    report: dict[str, Any] = {
        **provenance("bench.gateway"),
        "protocol": {
            "pairs": pairs,
            "seconds": seconds,
            "tokens": tokens,
            "cases": [asdict(case) for case in CASES],
            "note": "ratios are medians of pairs with 95% bootstrap intervals",
        },
        "ratios": {name: ratios(each) for name, each in halves.items()},
        "profile": profiles,
        "pairs": {
            name: [{side: asdict(pair[side]) for side in SIDES} for pair in each]
            for name, each in halves.items()
        },
    }
    out.write_text(json.dumps(report, indent=2) + "\n")
    for name, figures in report["ratios"].items():
        say(f"{name}: {figures}")


def ratios(pairs: Sequence[dict[str, Half]]) -> dict[str, Any]:
    """Return what the gateway takes over what the pass-through takes."""
    own, other = ([pair[side] for pair in pairs] for side in SIDES)
    both = list(zip(own, other, strict=True))
    return {
        "cpu": interval([a.cpu_us / b.cpu_us for a, b in both]),
        "requests_per_second": interval(
            [(a.requests / a.seconds) / (b.requests / b.seconds) for a, b in both]
        ),
        "cpu_us": {side: interval([pair[side].cpu_us for pair in pairs]) for side in SIDES},
        "redis_cpu_us": interval([1e6 * a.redis_cpu_seconds / a.requests for a in own]),
        "rates": {
            side: interval([pair[side].requests / pair[side].seconds for pair in pairs])
            for side in SIDES
        },
    }


def run_case(case: Case, *, pairs: int, seconds: float, tokens: int) -> list[dict[str, Half]]:
    """Return the pairs of a case; which side is first is drawn."""
    with stack(case) as servers:
        asking = Asking(servers, case, tokens)
        for side in SIDES:
            asking.half(side, seconds=1.0)  # warms up
        chance = random.Random(0)
        measured = []
        for number in range(pairs):
            order = chance.sample(SIDES, len(SIDES))
            pair = {side: asking.half(side, seconds=seconds) for side in order}
            measured.append(pair)
            shown = " ".join(f"{side} {pair[side].cpu_us:.0f}" for side in SIDES)
            say(f"{case.name} {number + 1}/{pairs}: CPU us per request: {shown}")
    return measured


def run_profile(case: Case, *, seconds: float, tokens: int) -> dict[str, Any]:
    """Return where the gateway's CPU time goes, by package and by function."""
    with tempfile.TemporaryDirectory(prefix="loragen-bench-") as folder:
        samples = Path(folder) / "samples.json"
        with stack(case, profile=samples) as servers:
            asking = Asking(servers, case, tokens)
            asking.half("gateway", seconds=1.0)  # warms up
            os.kill(servers.pids["gateway"], signal.SIGUSR1)
            asking.half("gateway", seconds=seconds)
        found: dict[str, Any] = json.loads(samples.read_text())
    return found


@dataclass(frozen=True, slots=True)
class Servers:
    """The running processes, and what a request of the tenant shows."""

    urls: dict[str, str]
    pids: dict[str, int]
    key: str
    task_id: str


class Asking:
    """The one client of both sides."""

    def __init__(self, servers: Servers, case: Case, tokens: int) -> None:
        self._servers, self._clients = servers, case.clients
        body = {
            "model": "demo",
            "task_id": servers.task_id,
            "messages": [{"role": "user", "content": "Hello, who are you, and where do you work?"}],
            "max_tokens": tokens,
            "temperature": 0,
            **({"stream": True} if case.is_stream else {}),
        }
        shown = {"authorization": f"Bearer {servers.key}"}
        self._plain = {side: PlainClient(servers.urls[side], PATH, body, **shown) for side in SIDES}

    def half(self, side: str, *, seconds: float) -> Half:
        """Ask one side for so many seconds."""
        processes = [psutil.Process(self._servers.pids[name]) for name in (side, "redis")]
        before = [_cpu_seconds(process) for process in processes]
        started = time.perf_counter()
        asked = self._plain[side].ask(seconds=seconds, clients=self._clients)
        requests = asyncio.run(asked)
        took = time.perf_counter() - started
        own, redis = (
            _cpu_seconds(process) - first for process, first in zip(processes, before, strict=True)
        )
        return Half(requests, took, own, redis)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def stack(case: Case, *, profile: Path | None = None) -> Iterator[Servers]:
    """Run both sides, their worker and a Redis until the block ends."""
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="loragen-bench-")))
        redis_url, redis_pid = running.enter_context(redis_process())
        ports = {name: free_port() for name in ("worker", *SIDES)}
        urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        master = secrets.token_hex(32)
        key, task_id = asyncio.run(_fill(redis_url, bytes.fromhex(master)))
        config = folder / "gateway.yaml"
        config.write_text(yaml.safe_dump(_config(ports["gateway"], urls["worker"])))
        environment = {
            "LORAGEN_CONFIG": "",
            "LORAGEN_REDIS_URL": redis_url,
            "LORAGEN_MASTER_SECRET": master,
            "LORAGEN_WORKER_SECRET": secrets.token_hex(16),
            "LORAGEN_GENERATOR_SECRET": secrets.token_hex(16),
        }
        worker = ["bench.stub_worker", "--port", str(ports["worker"])]
        worker += ["--step-ms", str(case.step_ms)]
        bare = ["bench.pass_through", "--port", str(ports["pass_through"])]
        bare += ["--target", urls["worker"]]
        gateway = ["server", "--config", str(config)]
        if profile is not None:
            gateway = ["bench.profiled", "--out", str(profile), "--", *gateway]
        pids = {"redis": redis_pid}
        for name, command in (("worker", worker), ("pass_through", bare), ("gateway", gateway)):
            log = folder / f"{name}.log"
            started = module_process(command, port=ports[name], log=log, **environment)
            pids[name] = running.enter_context(started)
        _wait_ready(urls["gateway"])
        yield Servers(urls, pids, key, task_id)


def _config(port: int, worker_url: str) -> dict[str, Any]:
    (small,) = yaml.safe_load((ROOT / "config" / "small.yaml").read_text())["edge_models"]
    return {
        "server": {"port": port, "auth": "keys"},
        "edge_models": [{**small, "worker_urls": [worker_url]}],
    }


async def _fill(redis_url: str, master: bytes) -> tuple[str, str]:
    """Write a tenant, a key and a task with a recipe; return the key and the task's id."""
    now = int(time.time())
    client = connect(redis_url, timeout_seconds=5)
    tenants = RedisTenants(client, namespace=NAMESPACE)
    key = ApiKey.make()
    await tenants.create(Tenant(id=TENANT, created_at=now))
    await tenants.add_key(KeyRecord(id=key.id, tenant=TENANT, digest=key.digest, created_at=now))
    keys = TenantKeys((master,), TENANT)
    maker = TaskMaker(keys, pool_id=POOL_ID, template_hash=TEMPLATE_HASH)
    (made,) = maker.tasks(0, 1)
    store = RedisStore(client, namespace=NAMESPACE, recipe_ttl_seconds=3_600)
    assert made.task.recipe is not None
    tier = RecipeTier(store, lambda _: keys)
    await tier.put(made.task, made.task.recipe, Recipe.decode(made.recipe))
    await store.create(made.task)
    await store.close()
    return key.text, made.task.id


def _wait_ready(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while httpx.get(url + "/ready").status_code != 200:
        if time.monotonic() > deadline:
            raise SystemExit("bench: the gateway is not ready")
        time.sleep(0.1)


if __name__ == "__main__":
    typer.run(main)
