"""Which task a request means, said in one of three ways.

body `task_id`, header `X-Task-Id`, or `model = "<edge model>:<task id or name>"` (split at the
last ":"). Said twice, it must be said alike.
"""

import re
from dataclasses import dataclass
from typing import Self

from loragen.errors import InvalidRequest, TaskNotFound
from loragen.keys import TASK_ID_PATTERN
from loragen.store import Store

_TASK_ID = re.compile(TASK_ID_PATTERN)


@dataclass(frozen=True, slots=True)
class TaskReference:
    """The edge model a request asks for, and its task by id or name, if any."""

    edge_model: str
    task: str | None

    @classmethod
    def parse(cls, *, model: str, task_id: str | None, header: str | None) -> Self:
        """Read the three forms.

        Raises:
            InvalidRequest: one is empty, or two differ.
        """
        edge_model, colon, suffix = model.rpartition(":")
        if not colon:
            edge_model, suffix = model, ""
        elif not edge_model or not suffix:
            raise InvalidRequest("model must be '<model>' or '<model>:<task>'", param="model")
        given = {"model": suffix or None, "task_id": task_id, "X-Task-Id": header}
        said = {form: value for form, value in given.items() if value is not None}
        if any(not value for value in said.values()):
            raise InvalidRequest("the task is empty", param="task_id")
        if len(set(said.values())) > 1:
            forms = " and ".join(said)
            raise InvalidRequest(f"{forms} name different tasks", param="task_id")
        return cls(edge_model, next(iter(said.values()), None))


async def find_task_id(store: Store, tenant: str, reference: str) -> str:
    """Return the task id for an id or name.

    Raises:
        TaskNotFound: the tenant has no such name.
    """
    if _TASK_ID.match(reference):
        return reference
    task_id = await store.find_name(tenant, reference)
    if task_id is None:
        raise TaskNotFound("no task of that id or name", param="task_id")
    return task_id
