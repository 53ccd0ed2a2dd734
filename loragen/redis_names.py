"""Names in Redis.

{ns}:names:{tenant}      hash    name -> id of the task it stands for
{ns}:versions:{tenant}   hash    name -> JSON {last, edit, current, versions: [...]}, oldest first
{ns}:aliases:{tenant}    hash    task id -> JSON list of the names that have it in a version
{ns}:edits:{tenant}      string  counter of edits
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import redis.asyncio as redis

from loragen import name_scripts
from loragen.errors import Conflict, NotFound, StoreUnavailable, TaskNotFound
from loragen.names import Alias, Change, History, Version, taken
from loragen.redis_client import as_bytes, mapped
from loragen.redis_store import task_key


class RedisNames:
    """Names on Redis 7 or Valkey; `keep` is how many versions of a name are kept."""

    def __init__(self, client: redis.Redis, *, namespace: str, keep: int) -> None:
        self._redis = client
        self._namespace = namespace
        self._keep = keep
        self._point = client.register_script(name_scripts.POINT)
        self._claim = client.register_script(name_scripts.CLAIM)
        self._roll_back = client.register_script(name_scripts.ROLL_BACK)
        self._restore = client.register_script(name_scripts.RESTORE)
        self._delete = client.register_script(name_scripts.DELETE)
        self._forget_task = client.register_script(name_scripts.FORGET_TASK)

    async def find(self, tenant: str, name: str) -> str | None:
        """Return the id of the task a name stands for."""
        async with mapped():
            task_id = await self._redis.hget(self._key("names", tenant), name)
        return None if task_id is None else as_bytes(task_id).decode()

    async def all(self, tenant: str) -> dict[str, str]:
        """Return what stands for a task, and the task's id."""
        async with mapped():
            pairs = await self._redis.hgetall(self._key("names", tenant))
        return {as_bytes(name).decode(): as_bytes(task).decode() for name, task in pairs.items()}

    async def history(self, tenant: str, name: str) -> History | None:
        """Return the versions of a name."""
        async with mapped():
            text = await self._redis.hget(self._key("versions", tenant), name)
        return None if text is None else _history(text)

    async def aliases(self, tenant: str, task_ids: Sequence[str]) -> dict[str, list[Alias]]:
        """Return for each task the versions of names that are of it, by name and number."""
        lists = await self._read("aliases", tenant, task_ids)
        names = sorted({name for text in lists.values() for name in json.loads(text)})
        histories = await self._read("versions", tenant, names)
        found: dict[str, list[Alias]] = {task_id: [] for task_id in task_ids}
        for name, text in histories.items():
            history = _history(text)
            for version in history.versions:
                if version.task_id in found:
                    alias = Alias(name, version, is_current=version == history.current)
                    found[version.task_id].append(alias)
        return found

    async def begin_edit(self, tenant: str) -> int:
        """Return the place of an edit that begins now among all edits of the tenant."""
        async with mapped():
            return int(await self._redis.incr(self._key("edits", tenant)))

    async def point(
        self, tenant: str, name: str, task_id: str, *, edit: int, now: int, must_exist: bool = False
    ) -> Change:
        """Let a name stand for a task; see `Names.point`."""
        async with mapped():
            reply = await self._point(
                keys=self._keys(tenant, task_id),
                args=[name, task_id, now, self._keep, edit, int(must_exist)],
            )
        return _change(reply, name, task_id)

    async def claim(self, tenant: str, name: str, task_id: str, *, now: int) -> Change:
        """Give a free name to a task; see `Names.claim`."""
        async with mapped():
            reply = await self._claim(
                keys=self._keys(tenant, task_id), args=[name, task_id, now, self._keep]
            )
        return _change(reply, name, task_id)

    async def roll_back(self, tenant: str, name: str, number: int | None, *, now: int) -> Change:
        """Let a name stand again for what it did in a version; see `Names.roll_back`."""
        async with mapped():
            reply = await self._roll_back(
                keys=self._keys(tenant), args=[name, number or 0, now, self._keep]
            )
        return _change(reply, name, "")

    async def restore(self, tenant: str, alias: Alias) -> bool:
        """Put back a version from an export; see `Names.restore`."""
        version = alias.version
        fields = (alias.name, version.task_id, version.created_at, self._keep, version.number)
        async with mapped():
            reply = await self._restore(
                keys=self._keys(tenant, version.task_id), args=[*fields, int(alias.is_current)]
            )
        if reply[0] == b"taken":
            raise Conflict(
                f"version {version.number} of the name {alias.name!r} is another task here",
                param="names",
            )
        if reply[0] == b"no task":
            raise _no_task(version.task_id)
        return bool(reply[0] == b"changed")

    async def delete(self, tenant: str, name: str) -> bool:
        """Delete a name with its versions, not the tasks; False if there was none."""
        async with mapped():
            return bool(await self._delete(keys=self._keys(tenant), args=[name]))

    async def forget_task(self, tenant: str, task_id: str) -> None:
        """Take a deleted task out of all names; one that stood for it stands for nothing."""
        async with mapped():
            await self._forget_task(keys=self._keys(tenant), args=[task_id])

    async def _read(self, what: str, tenant: str, fields: Sequence[str]) -> dict[str, bytes]:
        if not fields:
            return {}
        async with mapped():
            values = await self._redis.hmget(self._key(what, tenant), list(fields))
        pairs = zip(fields, values, strict=True)
        return {field: as_bytes(value) for field, value in pairs if value is not None}

    def _key(self, what: str, tenant: str) -> str:
        return f"{self._namespace}:{what}:{tenant}"

    def _keys(self, tenant: str, task_id: str | None = None) -> list[str]:
        keys = [self._key(what, tenant) for what in ("names", "versions", "aliases", "edits")]
        return keys if task_id is None else [*keys, task_key(self._namespace, tenant, task_id)]


def _no_task(task_id: str) -> TaskNotFound:
    return TaskNotFound(f"no task {task_id!r}", param="task_id")


def _change(reply: Sequence[bytes], name: str, task_id: str) -> Change:
    outcome, *rest = reply
    match outcome:
        case b"no task":
            raise _no_task(task_id)
        case b"taken":
            raise taken(name, rest[0].decode())
        case b"superseded":
            raise Conflict(f"the name {name!r} was changed or deleted meanwhile", param="name")
        case b"no version":
            raise NotFound(f"the name {name!r} has no such version", param="version")
    current = _history(rest[0]).current
    if current is None:
        raise StoreUnavailable("a stored name cannot be read")
    return Change(current, is_new=outcome == b"changed")


def _history(text: bytes | str) -> History:
    try:
        fields: Mapping[str, Any] = json.loads(text)
        versions = tuple(
            Version(int(each["version"]), str(each["task_id"]), int(each["created_at"]))
            for each in fields["versions"]
        )
        current = int(fields["current"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreUnavailable("a stored name cannot be read") from error
    return History(versions, next((each for each in versions if each.number == current), None))
