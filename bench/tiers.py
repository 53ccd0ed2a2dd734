"""`python -m bench.tiers`: a million tasks in one Redis, and what it takes to resolve one of them.

memory  what Redis uses for all tasks, by its own count, and how much of that is recipes and prompts
cold    a task that this gateway has not met: from Redis, where the rest of the million lies too
warm    one that it has: from its own memory

The tasks are written in bulk and are byte for byte what the store writes (`bench.filled_redis`).
They are resolved by the gateway's own parts, wired by `server.app`, with all that runs beside them,
one after the other over loopback.
"""

import asyncio
import json
import random
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import redis
import typer
import uvloop
import yaml
from fastapi import FastAPI
from prometheus_client import REGISTRY

from bench.filled_redis import NAMESPACE, RECIPE_TTL_SECONDS, Filling, check, fill
from bench.module_process import ROOT, START_SECONDS, module_process
from bench.progress import say
from bench.provenance import provenance
from bench.redis_process import redis_process
from config.ports import free_port
from config.settings import Settings
from server.app import create_app
from server.resolve import Resolver

CHECKED: Final = 200
WARM_TASKS: Final = 400
"""Resolved and drawn from again before they are to be confirmed with Redis."""
WARM_DRAWS: Final = 2_000


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    tasks: Annotated[int, typer.Option(help="Tasks.")] = 1_000_000,
    tenants: Annotated[int, typer.Option(help="Tenants, each with as many of them.")] = 1_000,
    layers: Annotated[
        list[int] | None, typer.Option(help="Layers of the edge model; several times for several.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Tasks resolved cold, and as many warm.")] = 20_000,
) -> None:
    """Measure memory and time to resolve, for recipes of 4 layers of 64 experts, and of 22."""
    sizes: list[dict[str, Any]] = []
    for each in layers or [4, 22]:
        sizes.append(measure(tasks=tasks, tenants=tenants, layers=each, draws=draws))
        report = {**provenance("bench.tiers"), "sizes": sizes}
        out.write_text(json.dumps(report, indent=2) + "\n")


def measure(*, tasks: int, tenants: int, layers: int, draws: int) -> dict[str, Any]:
    """Return the figures of one size of recipe."""
    master = secrets.token_hex(32)
    with redis_process() as (url, _):
        filling = Filling(url, bytes.fromhex(master), tenants, tasks // tenants, layers)
        before = _info(url)
        started = time.perf_counter()
        fill(filling, say)
        seconds = round(time.perf_counter() - started, 1)
        memory = _memory(before, _info(url), filling)
        asyncio.run(check(filling, CHECKED))
        say(f"{layers} layers: written in {seconds} s; {memory}")
        resolved = _resolved(filling, url, master, draws)
    say(f"{layers} layers: {resolved}")
    return {
        "layers": layers,
        "tasks": tenants * filling.tasks_per_tenant,
        "tenants": tenants,
        "write_seconds": seconds,
        "checked_against_the_store": CHECKED,
        "memory": memory,
        **resolved,
    }


def _info(url: str) -> dict[str, int]:
    with redis.Redis.from_url(url) as client:
        info: Any = client.info("memory")
    return {name: int(info[name]) for name in ("used_memory", "used_memory_rss")}


def _memory(before: dict[str, int], after: dict[str, int], filling: Filling) -> dict[str, float]:
    tasks = filling.tenants * filling.tasks_per_tenant
    sample = list(filling.made(0))
    recipe = sum(len(made.recipe) for made in sample) / len(sample)
    prompt = sum(len(made.task.prompt.encode()) for made in sample) / len(sample)
    used = (after["used_memory"] - before["used_memory"]) / tasks
    return {
        "used_bytes_per_task": round(used, 1),
        "recipe_bytes": round(recipe, 1),
        "prompt_bytes": round(prompt, 1),
        "other_bytes_per_task": round(used - recipe - prompt, 1),
        "used_gb": round(after["used_memory"] / 1e9, 3),
        "rss_gb": round(after["used_memory_rss"] / 1e9, 3),
    }


def _resolved(filling: Filling, url: str, master: str, draws: int) -> dict[str, Any]:
    (small,) = yaml.safe_load((ROOT / "config" / "small.yaml").read_text())["edge_models"]
    port = free_port()
    settings = Settings.model_validate(
        {
            "redis_url": url,
            "master_secret": master,
            "edge_models": [{**small, "worker_urls": [f"http://127.0.0.1:{port}"]}],
            "store": {"namespace": NAMESPACE, "recipe_ttl_seconds": RECIPE_TTL_SECONDS},
        }
    )
    command = ["bench.stub_worker", "--port", str(port)]
    with tempfile.TemporaryDirectory(prefix="loragen-bench-") as folder:
        log = Path(folder) / "worker.log"
        with module_process(command, port=port, log=log):
            return uvloop.run(_resolve(filling, settings, draws))


async def _resolve(filling: Filling, settings: Settings, draws: int) -> dict[str, Any]:
    """Return seconds to resolve by the parts of a gateway that is up, with a worker of the pool."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        await _wait_for_worker(app)
        resolver: Resolver = app.state.services.resolver
        chance = random.Random(0)
        drawn = list({filling.draw(chance): None for _ in range(draws)})
        cold = await _timed(resolver, drawn, tier="redis")
        warm: list[float] = []
        # Those that were resolved first: their entries are stale, so that all begin anew together.
        for start in range(0, len(drawn), WARM_TASKS):
            if len(warm) >= draws:
                break
            known = drawn[start : start + WARM_TASKS]
            for key in known:
                await resolver.resolve(*key)
            asked = [chance.choice(known) for _ in range(WARM_DRAWS)]
            warm += await _timed(resolver, asked, tier="memory")
    return {"cold": _quantiles(cold), "warm": _quantiles(warm)}


async def _wait_for_worker(app: FastAPI) -> None:
    async with asyncio.timeout(START_SECONDS):
        while app.state.services.dispatcher.missing():  # noqa: ASYNC110 - a probe tells nobody
            await asyncio.sleep(0.1)


async def _timed(resolver: Resolver, keys: Sequence[tuple[str, str]], *, tier: str) -> list[float]:
    """Return the seconds that each took.

    Raises:
        RuntimeError: one was not found in the tier.
    """
    before, seconds = _hits(tier), []
    for key in keys:
        started = time.perf_counter()
        await resolver.resolve(*key)
        seconds.append(time.perf_counter() - started)
    if _hits(tier) - before != len(keys):
        raise RuntimeError(f"only {_hits(tier) - before} of {len(keys)} were in {tier}")
    return seconds


def _hits(tier: str) -> int:
    value = REGISTRY.get_sample_value("loragen_recipe_cache_hits_total", {"tier": tier})
    return int(value or 0)


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    values = 1e6 * np.asarray(seconds)
    quantiles = {"p50_us": 50, "p90_us": 90, "p99_us": 99, "p999_us": 99.9, "max_us": 100}
    figures = {name: round(float(np.percentile(values, at)), 1) for name, at in quantiles.items()}
    return {"draws": len(values), **figures}


if __name__ == "__main__":
    typer.run(main)
