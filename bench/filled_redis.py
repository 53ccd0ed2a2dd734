"""Many tasks in one Redis: written in bulk as the store writes them one by one, and checked to be.

The store's scripts take a round trip a task. Here the same bytes go under the same keys in
pipelines, from several processes; `check` writes some again through the store and compares.
"""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Final

import redis

from bench.made_tasks import MadeTask, TaskMaker
from bench.stub_worker import POOL_ID, TEMPLATE_HASH
from loragen.keys import TenantKeys
from loragen.recipe import Recipe
from loragen.redis_store import RedisStore, task_key
from loragen.seal import Seal
from loragen.task_codec import dump_record, dump_sealed
from server.recipe_tier import RecipeTier

NAMESPACE: Final = "loragen"
RECIPE_TTL_SECONDS: Final = 30 * 86_400
_BATCH: Final = 500
_PROCESSES: Final = 2


@dataclass(frozen=True, slots=True)
class Filling:
    """What is written: tasks of tenants, each tenant with as many."""

    url: str
    master: bytes
    tenants: int
    tasks_per_tenant: int
    layers: int

    def keys(self, tenant: int | str) -> TenantKeys:
        """Return the keys of a tenant by its number or id."""
        name = tenant if isinstance(tenant, str) else f"tenant-{tenant:04d}"
        return TenantKeys((self.master,), name)

    def maker(self, tenant: int) -> TaskMaker:
        """Return what makes the tasks of a tenant."""
        keys = self.keys(tenant)
        return TaskMaker(keys, pool_id=POOL_ID, template_hash=TEMPLATE_HASH, layers=self.layers)

    def made(self, tenant: int) -> Iterator[MadeTask]:
        """Yield the tasks of a tenant."""
        return self.maker(tenant).tasks(tenant * self.tasks_per_tenant, self.tasks_per_tenant)

    def draw(self, chance: random.Random) -> tuple[str, str]:
        """Return tenant and id of a task drawn from all."""
        tenant = chance.randrange(self.tenants)
        number = tenant * self.tasks_per_tenant + chance.randrange(self.tasks_per_tenant)
        return self.keys(tenant).tenant, self.maker(tenant).task_id(number)


def fill(filling: Filling, say: Callable[[str], None]) -> None:
    """Write all tasks."""
    with ProcessPoolExecutor(_PROCESSES) as processes:
        writing = [processes.submit(_write, filling, each) for each in range(filling.tenants)]
        for done, each in enumerate(as_completed(writing), 1):
            each.result()
            if done % max(1, filling.tenants // 10) == 0:
                say(f"{done * filling.tasks_per_tenant} tasks written")


async def check(filling: Filling, count: int) -> None:
    """Write some of the tasks again through the store, which must leave the same bytes.

    Raises:
        RuntimeError: it leaves others.
    """
    store = _store(filling.url)
    chance = random.Random(0)
    with redis.Redis.from_url(filling.url) as client:
        for _ in range(count):
            tenant = chance.randrange(filling.tenants)
            tier = RecipeTier(store, filling.keys)
            first = tenant * filling.tasks_per_tenant
            drawn = first + chance.randrange(filling.tasks_per_tenant)
            (made,) = filling.maker(tenant).tasks(drawn, 1)
            task, ref = made.task, made.task.recipe
            assert ref is not None
            names = _names(made, tier)
            before = _stored(client, made, names)
            client.delete(*names[:2])
            client.zrem(names[2], task.id)
            await tier.put(task, ref, Recipe.decode(made.recipe))
            await store.create(task)
            if _stored(client, made, names) != before:
                raise RuntimeError(f"{task.id} is stored otherwise than the store does")
    await store.close()


def _write(filling: Filling, tenant: int) -> None:
    keys, seal = filling.keys(tenant), Seal()
    tier = RecipeTier(_store(filling.url), lambda _: keys)
    with redis.Redis.from_url(filling.url) as client:
        pipeline = client.pipeline(transaction=False)
        for made in filling.made(tenant):
            task, recipe, tasks = _names(made, tier)
            sealed = dump_sealed(made.task, seal, task)
            fields = {"record": dump_record(made.task), "prompt": sealed["prompt"]}
            pipeline.hset(task, mapping=fields)
            pipeline.set(recipe, made.recipe, ex=RECIPE_TTL_SECONDS)
            pipeline.zadd(tasks, {made.task.id: made.task.created_at})
            if len(pipeline) >= 3 * _BATCH:
                pipeline.execute()
        pipeline.execute()


def _names(made: MadeTask, tier: RecipeTier) -> tuple[str, str, str]:
    """Return where a task, its recipe and its place among the tenant's tasks are."""
    task = made.task
    assert task.recipe is not None
    recipe = f"{NAMESPACE}:recipe:{tier.keys(task, task.recipe)[0]}"
    return (
        task_key(NAMESPACE, task.tenant, task.id),
        recipe,
        f"{NAMESPACE}:tasks:{task.tenant}",
    )


def _stored(client: "redis.Redis", made: MadeTask, names: tuple[str, str, str]) -> list[Any]:
    task, recipe, tasks = names
    lives = int(str(client.ttl(recipe))) > RECIPE_TTL_SECONDS - 3_600
    return [client.dump(task), client.dump(recipe), lives, client.zscore(tasks, made.task.id)]


def _store(url: str) -> RedisStore:
    return RedisStore.connect(
        url, namespace=NAMESPACE, recipe_ttl_seconds=RECIPE_TTL_SECONDS, timeout_seconds=5
    )
