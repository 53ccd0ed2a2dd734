"""Names: a tenant's aliases of tasks, with the versions each has had.

Versions count from 1 and only ever grow: a rollback is another version of an old task. Edits that
overlap are told apart by their order of beginning, so an edit that compiles for long never undoes
one that began after it. Invariant: every version is one of an existing task.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from pydantic import AfterValidator, StringConstraints

from loragen.errors import Conflict
from loragen.keys import TASK_ID_PATTERN


def _is_no_id(name: str) -> str:
    if re.match(TASK_ID_PATTERN, name):
        raise ValueError("a name cannot look like a task id")
    return name


Name = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$"), AfterValidator(_is_no_id)
]


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a name: which task it stood for, and since when (Unix seconds)."""

    number: int
    task_id: str
    created_at: int


@dataclass(frozen=True, slots=True)
class History:
    """The versions of a name, oldest first, and the one it stands for, unless it was deleted."""

    versions: tuple[Version, ...]
    current: Version | None


@dataclass(frozen=True, slots=True)
class Change:
    """What a name stands for after a change, and whether that made another version."""

    version: Version
    is_new: bool


@dataclass(frozen=True, slots=True)
class Alias:
    """A version of a name, seen from its task."""

    name: str
    version: Version
    is_current: bool


class Names(Protocol):
    """A tenant's names. Every method raises StoreUnavailable when it cannot answer."""

    async def find(self, tenant: str, name: str) -> str | None:
        """Return the id of the task a name stands for."""

    async def all(self, tenant: str) -> dict[str, str]:
        """Return what stands for a task, and the task's id."""

    async def history(self, tenant: str, name: str) -> History | None:
        """Return the versions of a name."""

    async def aliases(self, tenant: str, task_ids: Sequence[str]) -> dict[str, list[Alias]]:
        """Return for each task the versions of names that are of it, by name and number."""

    async def begin_edit(self, tenant: str) -> int:
        """Return the place of an edit that begins now among all edits of the tenant."""

    async def point(
        self, tenant: str, name: str, task_id: str, *, edit: int, now: int, must_exist: bool = False
    ) -> Change:
        """Let a name stand for a task; no version is made if it does already.

        Raises:
            TaskNotFound: there is no such task.
            Conflict: an edit that began later is done, or the name must exist and does not.
        """

    async def claim(self, tenant: str, name: str, task_id: str, *, now: int) -> Change:
        """Give a free name to a task; no version is made if it has the name already.

        Raises:
            TaskNotFound: there is no such task.
            Conflict: the name stands for another task.
        """

    async def roll_back(self, tenant: str, name: str, number: int | None, *, now: int) -> Change:
        """Let a name stand again for what it did in a version, by default the last other task.

        Raises:
            NotFound: the name has no such version.
        """

    async def restore(self, tenant: str, alias: Alias) -> bool:
        """Put back a version from an export; False if it was there.

        The name stands for it only if it did at the export, and has no later version here.

        Raises:
            TaskNotFound: there is no such task.
            Conflict: the name has another task in that version.
        """

    async def delete(self, tenant: str, name: str) -> bool:
        """Delete a name with its versions, not the tasks; False if there was none."""

    async def forget_task(self, tenant: str, task_id: str) -> None:
        """Take a deleted task out of all names; one that stood for it stands for nothing."""


def taken(name: str, holder: str) -> Conflict:
    """Return the refusal of a name that stands for another task."""
    return Conflict(
        f"the name {name!r} stands for task {holder!r}; PUT /v1/tasks/by-name/{name} points it "
        "at another prompt",
        param="name",
    )
