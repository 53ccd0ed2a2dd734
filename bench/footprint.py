"""`python -m bench.footprint`: what a task costs in Redis, by MEMORY USAGE, beside its prompt."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import redis
import typer

from bench.redis_process import redis_process
from loragen.keys import TenantKeys
from loragen.measurement import Measurement
from loragen.method.generator import Generator
from loragen.redis_store import RedisStore
from loragen.suite.splits import Split
from loragen.suite.tenants import TENANTS
from loragen.task import RecipeRef, Task
from server.recipe_tier import RecipeTier


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint that compiles the recipes.")] = Path(
        "checkpoints/demo"
    ),
    tasks: Annotated[int, typer.Option(help="How many tasks to store.")] = 1_000,
) -> None:
    """Store real tasks with real recipes in a real server and weigh them."""
    with redis_process() as (url, _):
        report = asyncio.run(weigh(url, Generator.load(checkpoint / "generator"), tasks))
    command = " ".join(["python -m bench.footprint", *sys.argv[1:]])
    out.write_text(json.dumps({"command": command, **report}, indent=2) + "\n")
    typer.echo(f"bench: {report}", err=True)


async def weigh(url: str, generator: Generator, count: int) -> dict[str, float]:
    """Return bytes per task: recipe, prompt, and everything else."""
    client = redis.Redis.from_url(url)
    store = RedisStore.connect(url, namespace="b", recipe_ttl_seconds=3_600, timeout_seconds=5)
    keys = TenantKeys((bytes(32),), "default")
    families = TENANTS.seen
    prompts = [TENANTS.draw(families[i % len(families)], Split.TRAIN, i).text for i in range(count)]
    recipe_bytes = 0
    for prompt in prompts:
        recipe_bytes += await put(store, keys, generator, prompt)
    used = sum(int(str(client.memory_usage(key, samples=0))) for key in client.scan_iter("*"))
    await store.close()
    kept = len(set(prompts))
    prompt_bytes = sum(len(prompt.encode()) for prompt in set(prompts))
    return {
        "tasks": kept,
        "memory_usage_bytes_per_task": round(used / kept, 1),
        "recipe_bytes_per_task": round(recipe_bytes / count, 1),
        "prompt_bytes_per_task": round(prompt_bytes / kept, 1),
        "other_bytes_per_task": round((used - prompt_bytes) / kept - recipe_bytes / count, 1),
    }


async def put(store: RedisStore, keys: TenantKeys, generator: Generator, prompt: str) -> int:
    """Store a task as the gateway does and return the size of its recipe."""
    recipe = generator.compile([prompt])[0]
    head = generator.head
    ref = RecipeRef(
        id=recipe.id,
        bytes=len(recipe.data),
        pool_id=head.pool_id,
        generator_id=head.generator_id,
        level=1,
        template_hash=head.template_hash,
    )
    task_id = keys.task_ids(edge_model="demo", prompt=prompt)[0]
    task = Task(
        id=task_id,
        tenant=keys.tenant,
        edge_model="demo",
        prompt=prompt,
        status="ready",
        created_at=int(time.time()),
        prompt_tokens=100,
        recipe=ref,
        compile_seconds=0.01,
        measurement=Measurement.of(recipe.id, fidelity=0.98765, agreement=0.9375, probes=16),
    )
    await RecipeTier(store, lambda _: keys).put(task, ref, recipe)
    await store.create(task)
    return len(recipe.data)


if __name__ == "__main__":
    typer.run(main)
