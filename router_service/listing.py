"""Listing: Ray's actors as its global state holds them, the ones with generators first.

Read from Ray's state table, so that no dashboard (ten processes, 1 GB) has to run for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from ray._private.state import actors

HEADINGS: Final = ("ACTOR_ID", "CLASS_NAME", "STATE", "PID", "RESTARTS", "NAME")


@dataclass(frozen=True, slots=True)
class ActorState:
    """One row of Ray's actor table."""

    actor_id: str
    class_name: str
    state: str
    pid: int
    restarts: int
    name: str

    @classmethod
    def from_table(cls, row: dict[str, object]) -> Self:
        """Read a row of `ray._private.state.actors`."""
        return cls(
            actor_id=str(row["ActorID"]),
            class_name=str(row["ActorClassName"]),
            state=str(row["State"]),
            pid=int(str(row["Pid"])),
            restarts=int(str(row["NumRestarts"])),
            name=str(row["Name"]),
        )

    @property
    def holds_generator(self) -> bool:
        """Whether this is a Serve replica of a generator deployment."""
        return ":generator-" in self.class_name


def list_actors() -> tuple[ActorState, ...]:
    """Return the actors of the connected Ray: generators first, then by name."""
    rows = [ActorState.from_table(row) for row in actors().values()]
    return tuple(sorted(rows, key=lambda row: (not row.holds_generator, row.class_name)))


def table(actors: Sequence[ActorState]) -> str:
    """Return the rows as aligned text."""
    rows = [HEADINGS, *(_cells(actor) for actor in actors)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _cells(actor: ActorState) -> tuple[str, ...]:
    return (
        actor.actor_id,
        actor.class_name,
        actor.state,
        str(actor.pid),
        str(actor.restarts),
        actor.name,
    )
