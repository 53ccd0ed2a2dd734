"""A deleted tenant leaves nothing in Redis, whatever kind of key it had.

The kinds are read from the code: one that is new fails here until `fill` makes such a key too.
"""

import ast
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from uuid import uuid4

import pytest

import loragen
from loragen.api_key import ApiKey, KeyRecord
from loragen.clocks import Work
from loragen.limits import Limits
from loragen.pools import PoolState
from loragen.tenants import Tenant
from loragen.upgrades import Progress
from loragen.usage import Numbers, UsageKey
from server.shared import Shared
from server.tenancy import Tenancy
from tests.contract.store_contract import task_of
from tests.fakes.gateway import MODEL, redis_shared
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

TENANT, OTHER = "acme-7f3a", "acme-7f3a-2"
NOT_KEYS = {"invalidations"}
"""A channel: what is said there is not kept."""
OF_NOBODY = {
    *("usage-batch", "clock-tags", "clock-ends", "clock-now"),
    *("pools", "upgrade-progress"),
}
"""Random ids and edge models, no tenants."""
LIMITS = Limits.model_validate(
    {"requests_per_minute": 99, "tokens_per_minute": 99, "concurrent_requests": 9}
)


def sources() -> Iterator[ast.Module]:
    """Yield the modules of the package that talks to Redis."""
    for path in sorted(Path(str(loragen.__file__)).parent.glob("*.py")):
        yield ast.parse(path.read_text("utf-8"))


def kinds() -> set[str]:
    """Return the kinds of keys that the modules say they keep."""
    texts = (ast.get_docstring(module) or "" for module in sources())
    return {kind for text in texts for kind in re.findall(r"\{ns\}:([a-z-]+)", text)}


def built_kinds() -> set[str]:
    """Return the kinds in the texts that modules build keys with: {namespace}:kind..."""
    found = set()
    for module in sources():
        for node in ast.walk(module):
            if not isinstance(node, ast.JoinedStr) or len(node.values) < 2:
                continue
            first, second = node.values[:2]
            is_key = isinstance(first, ast.FormattedValue) and "namespace" in ast.unparse(first)
            if is_key and isinstance(second, ast.Constant):
                found |= set(re.findall(r"^:([a-z-]+)", str(second.value)))
    return found


async def fill(shared: Shared, tenant: str) -> None:
    """Leave a key of every kind."""
    key = ApiKey.make()
    await shared.tenants.create(Tenant(id=tenant, created_at=1))
    record = KeyRecord(id=key.id, tenant=tenant, digest=key.digest, created_at=1)
    await shared.tenants.add_key(record)
    tasks = [task_of(number).model_copy(update={"tenant": tenant}) for number in range(4)]
    tasks[1] = tasks[1].model_copy(update={"refined": b"refined"})
    tasks[2] = tasks[2].model_copy(update={"is_implicit": True})
    for task in tasks:
        await shared.store.create(task)
        await shared.store.put_recipe(f"{tenant}:{task.id}", b"recipe")
        for kind in ("compile", "refine", "measure"):
            await shared.leases.acquire(f"{kind}:{tenant}:{task.id}", "token", seconds=60)
    for name in ("ada", "bob"):
        edit = await shared.names.begin_edit(tenant)
        await shared.names.point(tenant, name, tasks[0].id, edit=edit, now=1)
    await shared.store.delete(tenant, tasks[3].id)
    await shared.store.link(tenant, tasks[0].id, tasks[3].id)
    await shared.sightings.sight(tenant, "task_unseen")
    await shared.sightings.spend(tenant, "task_unseen")
    await shared.conversations.remember([f"{tenant}:conversation"])
    await shared.limiter.admit(tenant, LIMITS, "lease")
    await shared.limiter.take(tenant, "tokens", limit=9)
    await shared.limiter.take(tenant, "compiles", limit=9)
    await shared.clocks.start(tenant, MODEL, uuid4().hex, Work(1, 1))
    await shared.pools.replace(MODEL, PoolState(), PoolState(serving="ab" * 32))
    await shared.progress.write(MODEL, Progress(pool_id="ab" * 32))
    today = date.today()
    usage = UsageKey(tenant, today, MODEL, "compiled", tasks[0].id)
    await shared.usage.add(f"batch-{len(tenant)}", {usage: Numbers(requests=1)})


def stored_kinds(valkey: Valkey, namespace: str, *, tenant: str = "") -> set[str]:
    """Return the kinds of the keys that are there, of a tenant or of all."""
    keys = {bytes(key).decode() for key in valkey.client.scan_iter(f"{namespace}:*")}
    return {key.split(":")[1] for key in keys if tenant in key}


def traces(valkey: Valkey, namespace: str, tenant: str) -> list[bytes]:
    """Return every key and value that names a tenant, and not one whose name begins so."""
    name = re.compile(rb"(?<![a-z0-9-])" + tenant.encode() + rb"(?![a-z0-9-])")
    return [each for each in valkey.contents(namespace) if name.search(each)]


def test_every_key_that_is_built_is_of_a_kind_that_is_told() -> None:
    assert built_kinds() <= kinds()
    assert len(built_kinds()) > 10  # so they were found


async def test_nothing_is_left_of_a_tenant_and_everything_of_another(
    valkey: Valkey, namespace: str
) -> None:
    shared = redis_shared(valkey.url, namespace)
    try:
        for tenant in (TENANT, OTHER):
            await fill(shared, tenant)
        assert stored_kinds(valkey, namespace) == kinds() - NOT_KEYS
        of_the_other = sorted(traces(valkey, namespace, OTHER))
        assert len(traces(valkey, namespace, TENANT)) >= len(kinds())

        await Tenancy(shared, memory_seconds=0).remove(TENANT)

        assert traces(valkey, namespace, TENANT) == []
        assert sorted(traces(valkey, namespace, OTHER)) == of_the_other
        await Tenancy(shared, memory_seconds=0).remove(OTHER)
        assert stored_kinds(valkey, namespace) == OF_NOBODY
    finally:
        await shared.close()
