"""Names without Redis: same contract, in this process's memory."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

from loragen.errors import Conflict, NotFound, TaskNotFound
from loragen.names import Alias, Change, History, Version, taken
from tests.fakes.memory_store import MemoryStore


@dataclass
class _Kept:
    versions: list[Version] = field(default_factory=list)
    current: Version | None = None
    last: int = 0
    edit: int = 0


class MemoryNames:
    """Keeps names in dictionaries, beside the store that has their tasks."""

    def __init__(self, store: MemoryStore, *, keep: int = 5) -> None:
        self._store = store
        self._keep = keep
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._edits = 0

    async def find(self, tenant: str, name: str) -> str | None:
        """Return the id of the task a name stands for."""
        await self._store.ping()
        current = self._get(tenant, name).current
        return None if current is None else current.task_id

    async def all(self, tenant: str) -> dict[str, str]:
        """Return what stands for a task, and the task's id."""
        await self._store.ping()
        return {
            name: kept.current.task_id
            for (owner, name), kept in self._kept.items()
            if owner == tenant and kept.current is not None
        }

    async def history(self, tenant: str, name: str) -> History | None:
        """Return the versions of a name."""
        await self._store.ping()
        kept = self._kept.get((tenant, name))
        return None if kept is None else History(tuple(kept.versions), kept.current)

    async def aliases(self, tenant: str, task_ids: Sequence[str]) -> dict[str, list[Alias]]:
        """Return for each task the versions of names that are of it, by name and number."""
        await self._store.ping()
        found: dict[str, list[Alias]] = {task_id: [] for task_id in task_ids}
        for (owner, name), kept in sorted(self._kept.items(), key=lambda item: item[0]):
            for version in kept.versions:
                if owner == tenant and version.task_id in found:
                    alias = Alias(name, version, is_current=version == kept.current)
                    found[version.task_id].append(alias)
        return found

    async def begin_edit(self, tenant: str) -> int:
        """Return the place of an edit that begins now among all edits of the tenant."""
        await self._store.ping()
        return self._next_edit()

    async def point(
        self, tenant: str, name: str, task_id: str, *, edit: int, now: int, must_exist: bool = False
    ) -> Change:
        """Let a name stand for a task; see `Names.point`."""
        await self._require(tenant, task_id)
        kept = self._get(tenant, name)
        if edit < kept.edit or (must_exist and not kept.versions):
            raise Conflict(f"the name {name!r} was changed or deleted meanwhile", param="name")
        kept.edit = edit
        return self._stand(kept, tenant, name, task_id, now)

    async def claim(self, tenant: str, name: str, task_id: str, *, now: int) -> Change:
        """Give a free name to a task; see `Names.claim`."""
        await self._require(tenant, task_id)
        kept = self._get(tenant, name)
        if kept.current is not None and kept.current.task_id != task_id:
            raise taken(name, kept.current.task_id)
        if kept.current is None:
            kept.edit = self._next_edit()
        return self._stand(kept, tenant, name, task_id, now)

    async def roll_back(self, tenant: str, name: str, number: int | None, *, now: int) -> Change:
        """Let a name stand again for what it did in a version; see `Names.roll_back`."""
        await self._store.ping()
        kept = self._get(tenant, name)
        serving = kept.current and kept.current.task_id
        targets = [
            each
            for each in kept.versions
            if (each.task_id != serving if number is None else each.number == number)
        ]
        if not targets:
            raise NotFound(f"the name {name!r} has no such version", param="version")
        kept.edit = self._next_edit()
        return self._stand(kept, tenant, name, targets[-1].task_id, now)

    async def restore(self, tenant: str, alias: Alias) -> bool:
        """Put back a version from an export; see `Names.restore`."""
        await self._require(tenant, alias.version.task_id)
        kept = self._get(tenant, alias.name)
        for known in kept.versions:
            if known.number == alias.version.number:
                if known.task_id != alias.version.task_id:
                    raise Conflict("another task in that version", param="names")
                return False
        if alias.is_current and alias.version.number > kept.last:
            kept.current = alias.version
        self._insert(kept, alias.version)
        self._kept[tenant, alias.name] = kept
        return True

    async def delete(self, tenant: str, name: str) -> bool:
        """Delete a name with its versions, not the tasks; False if there was none."""
        await self._store.ping()
        return self._kept.pop((tenant, name), None) is not None

    async def forget_task(self, tenant: str, task_id: str) -> None:
        """Take a deleted task out of all names; one that stood for it stands for nothing."""
        await self._store.ping()
        for (owner, name), kept in list(self._kept.items()):
            if owner != tenant:
                continue
            kept.versions = [each for each in kept.versions if each.task_id != task_id]
            if kept.current is not None and kept.current.task_id == task_id:
                kept.current = None
            if not kept.versions:
                del self._kept[owner, name]

    async def _require(self, tenant: str, task_id: str) -> None:
        await self._store.ping()
        if not self._store.has(tenant, task_id):
            raise TaskNotFound(f"no task {task_id!r}", param="task_id")

    def _get(self, tenant: str, name: str) -> _Kept:
        return self._kept.get((tenant, name)) or _Kept()

    def _next_edit(self) -> int:
        self._edits += 1
        return self._edits

    def _stand(self, kept: _Kept, tenant: str, name: str, task_id: str, now: int) -> Change:
        if kept.current is not None and kept.current.task_id == task_id:
            return Change(kept.current, is_new=False)
        kept.current = Version(kept.last + 1, task_id, now)
        self._insert(kept, kept.current)
        self._kept[tenant, name] = kept
        return Change(kept.current, is_new=True)

    def _insert(self, kept: _Kept, version: Version) -> None:
        bisect.insort(kept.versions, version, key=lambda each: each.number)
        kept.last = max(kept.last, version.number)
        while len(kept.versions) > self._keep:
            kept.versions.remove(next(each for each in kept.versions if each != kept.current))
