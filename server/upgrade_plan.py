"""Upgrade plan: the tasks of an edge model in the order in which they are compiled for a pool.

Those with the most requests of the last days first, by turns among tenants: every tenant's busiest
task, then every tenant's second, so that a tenant of many tasks does not hold up the others.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from operator import attrgetter
from typing import Final

from loragen.task import TaskRecord
from loragen.tenants import OPEN_TENANT
from server.shared import Shared
from server.standing import Standing
from server.usage_meter import today

_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Candidate:
    """A task, how many requests it had, and what a pool has for it."""

    tenant: str
    task_id: str
    requests: int
    has_recipe: bool
    is_ready: bool


async def survey(
    shared: Shared,
    standing: Standing,
    model: str,
    *,
    pool_id: str,
    other: str | None,
    days: int,
) -> list[Candidate]:
    """Return all tasks of an edge model, those first that matter most.

    Raises:
        StoreUnavailable: Redis is away.
    """
    tenants = sorted({OPEN_TENANT, *(tenant.id for tenant in await shared.tenants.all())})
    by_tenant = []
    for tenant in tenants:
        requests = await _requests(shared, tenant, model, days)
        found = [
            Candidate(
                tenant,
                record.id,
                requests[record.id],
                has_recipe=record.on(pool_id).recipe is not None,
                is_ready=is_no_worse(standing, record, pool_id, other),
            )
            async for record in _records(shared, tenant, requests)
            if record.edge_model == model
        ]
        by_tenant.append(sorted(found, key=attrgetter("requests"), reverse=True))
    return list(by_turns(by_tenant))


def is_no_worse(standing: Standing, record: TaskRecord, pool_id: str, other: str | None) -> bool:
    """Whether a pool answers a task no worse than the other one does."""

    def serves(pool_id: str) -> bool:
        view = record.on(pool_id)
        return view.recipe is not None and standing.withheld(view) is None

    return serves(pool_id) or other is None or not serves(other)


def by_turns(by_tenant: Sequence[Sequence[Candidate]]) -> Iterable[Candidate]:
    """Yield everyone's first, then everyone's second; within a turn the busiest first."""
    longest = max(map(len, by_tenant), default=0)
    turns = ([each[turn] for each in by_tenant if turn < len(each)] for turn in range(longest))
    return chain.from_iterable(
        sorted(turn, key=attrgetter("requests"), reverse=True) for turn in turns
    )


async def _requests(shared: Shared, tenant: str, model: str, days: int) -> Counter[str]:
    until = today()
    usage = await shared.usage.read(tenant, since=until - timedelta(days=days), until=until)
    requests: Counter[str] = Counter()
    for key, numbers in usage.items():
        if key.model == model and key.task_id is not None:
            requests[key.task_id] += numbers.requests
    return requests


async def _records(
    shared: Shared, tenant: str, requests: Counter[str]
) -> AsyncIterator[TaskRecord]:
    """Yield the tasks that are listed, and those of auto mode that had requests."""
    listed: set[str] = set()
    after, has_more = None, True
    while has_more:
        page = await shared.store.page(tenant, limit=_PAGE, after=after, newest_first=False)
        for record in page.tasks:
            listed.add(record.id)
            yield record
        after = page.tasks[-1].id if page.tasks else None
        has_more = page.has_more and bool(page.tasks)
    unlisted = [task_id for task_id in requests if task_id not in listed]
    for start in range(0, len(unlisted), _PAGE):
        found = await shared.store.records(tenant, unlisted[start : start + _PAGE])
        for record in found.values():
            yield record
