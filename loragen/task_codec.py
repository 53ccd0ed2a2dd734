"""Task codec: a task as the fields of its hash in Redis, and back.

record          JSON, deflated: half of it are hex digits and names of fields
prompt          text          )
tools           JSON          )
probes          JSON          )  sealed, where an encryption key is set; but for the prompt, absent
refined         recipe bytes  )  where they are empty
spare_refined   recipe bytes  )
"""

import json
import logging
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from pydantic import ValidationError

from loragen import metrics
from loragen.errors import SealBroken, SealUnknown, TaskDamaged
from loragen.redis_client import as_bytes
from loragen.seal import Seal
from loragen.task import Task, TaskRecord
from loragen.tools import dump_tools, load_tools
from loragen.wire import dump_probes, load_probes

logger = logging.getLogger(__name__)

SEALED: Final = ("prompt", "tools", "probes", "refined", "spare_refined")
FIELDS: Final = ("record", *SEALED)
_DAMAGED: Final = "task {!r} cannot be read in the store"


def place(key: str, field: str) -> str:
    """Return the place that a field is sealed for."""
    return f"{key} {field}"


def dump_record(task: Task) -> bytes:
    """Return a task's record."""
    return zlib.compress(task.model_dump_json(exclude_defaults=True).encode(), level=9)


def load_record(tenant: str, task_id: str, data: bytes | str) -> TaskRecord:
    """Return the record of a task.

    Raises:
        TaskDamaged: it is damaged, or of another task.
    """
    try:
        record = _parsed(data)
    except (ValidationError, ValueError) as error:
        raise TaskDamaged(_DAMAGED.format(task_id)) from error
    _require(record, tenant, task_id)
    return record


def load_deleted(tenant: str, task_id: str, data: bytes | str) -> TaskRecord | None:
    """Return the record that a task was deleted with, or None if it is damaged or another's.

    The task is gone either way: what is left to do about it must not be left undone.
    """
    try:
        record = _parsed(data)
    except (ValidationError, ValueError):  # no reason to keep it, or to leave its delete half done
        logger.warning("a deleted task's record was damaged", extra={"task_id": task_id})
        return None
    try:
        _require(record, tenant, task_id)
    except TaskDamaged:
        return None
    return record


def dump_sealed(task: Task, seal: Seal, key: str) -> dict[str, bytes]:
    """Return the other fields of a task under a Redis key, empty where they are absent."""
    fields = {
        "prompt": task.prompt.encode(),
        "tools": dump_tools(task.tools).encode() if task.tools else b"",
        "probes": dump_probes(task.probes).encode() if task.probes else b"",
        "refined": task.refined,
        "spare_refined": task.spare_refined,
    }
    return {
        field: seal.close(task.tenant, place(key, field), value)
        if value or field == "prompt"
        else b""
        for field, value in fields.items()
    }


def load_task(
    tenant: str, task_id: str, key: str, row: Mapping[str, bytes | str | None], seal: Seal
) -> Task | None:
    """Return the task that is under a Redis key; a refined recipe that is damaged is dropped.

    Raises:
        TaskDamaged: it is damaged, another task, or sealed by a version that is not held here.
    """
    if all(value is None for value in row.values()):
        return None
    record, prompt = row["record"], row["prompt"]
    if record is None or prompt is None:  # it is there all the same: no task can take its place
        raise TaskDamaged(_DAMAGED.format(task_id))

    def opened(field: str) -> bytes:
        value = row[field]
        return b"" if not value else seal.open(tenant, place(key, field), as_bytes(value))

    try:
        tools, probes = opened("tools"), opened("probes")
        task = Task(
            **json.loads(_inflated(record)),
            prompt=opened("prompt").decode("utf-8"),
            tools=load_tools(tools.decode("utf-8")) if tools else (),
            probes=load_probes(probes.decode("utf-8")) if probes else (),
            refined=_refined(opened, "refined"),
            spare_refined=_refined(opened, "spare_refined"),
        )
    except SealUnknown as error:
        reason = f"{error.message}, which is not held here"
        raise TaskDamaged(f"{_DAMAGED.format(task_id)}: {reason}") from error
    except (SealBroken, ValidationError, TypeError, ValueError) as error:
        raise TaskDamaged(_DAMAGED.format(task_id)) from error
    _require(task, tenant, task_id)
    return task


def _require(record: TaskRecord, tenant: str, task_id: str) -> None:
    if (record.tenant, record.id) != (tenant, task_id):
        metrics.MISDIRECTED.labels("store").inc()
        logger.error("the store's reply is to another request")
        raise TaskDamaged("the task store gave another task", retry_after=1.0)


def _refined(opened: Callable[[str], bytes], field: str) -> bytes:
    try:
        return opened(field)
    except SealBroken:  # it is compiled again
        return b""


def _parsed(data: bytes | str) -> TaskRecord:
    return TaskRecord.model_validate_json(_inflated(data))


def _inflated(data: bytes | str) -> bytes:
    """Return the JSON of a record; earlier versions wrote it as it is.

    Raises:
        ValueError: it is neither.
    """
    stored = as_bytes(data)
    if stored.startswith(b"{"):
        return stored
    try:
        return zlib.decompress(stored)
    except zlib.error as error:
        raise ValueError("a record is neither JSON nor deflated") from error
