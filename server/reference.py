"""Which task a request means, said in one of three ways.

body `task_id`, header `X-Task-Id`, or `model = "<edge model>:<task id or name>"` (split at the
last ":"). Said twice, it must be said alike.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from loragen.errors import InvalidRequest, TaskNotFound
from loragen.keys import TASK_ID_PATTERN
from loragen.names import Names
from server.name_memory import NameMemory

_TASK_ID = re.compile(TASK_ID_PATTERN)


@dataclass(frozen=True, slots=True)
class TaskReference:
    """The edge model a request asks for, and its task by id or name, if any."""

    edge_model: str
    task: str | None

    @classmethod
    def parse(cls, *, model: str, task_id: str | None, headers: Sequence[str]) -> Self:
        """Read the three forms; a header may stand there several times.

        Raises:
            InvalidRequest: one is empty, or two differ.
        """
        edge_model, colon, suffix = model.rpartition(":")
        if not colon:
            edge_model, suffix = model, ""
        elif not edge_model or not suffix:
            raise InvalidRequest("model must be '<model>' or '<model>:<task>'", param="model")
        said = [("model", suffix)] if suffix else []
        said += [] if task_id is None else [("task_id", task_id)]
        said += [("X-Task-Id", header) for header in headers]
        for form, value in said:
            if not value:
                raise InvalidRequest(f"{form} is empty", param="task_id")
        tasks = {value for _, value in said}
        if len(tasks) > 1:
            forms = " and ".join(form for form, _ in said)
            raise InvalidRequest(f"{forms} name different tasks", param="task_id")
        return cls(edge_model, next(iter(tasks), None))


async def find_task_id(names: Names | NameMemory, tenant: str, reference: str) -> str:
    """Return the task id for an id or name.

    Raises:
        TaskNotFound: the tenant has no such name.
    """
    if _TASK_ID.fullmatch(reference):
        return reference
    task_id = await names.find(tenant, reference)
    if task_id is None:
        raise TaskNotFound("no task of that id or name", param="task_id")
    return task_id
