"""Limits: how much a tenant may ask for, and what counts it.

A window counts what was taken in the last minute, in cells of a second: nothing taken at any time
lets more than the limit through in any 60 seconds. All gateways count in one place, by its clock.
"""

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from loragen.errors import LimitExceeded

Limit = Literal["requests", "tokens", "concurrency", "compiles", "tasks"]
Window = Literal["requests", "tokens", "compiles"]

WINDOW_SECONDS: Final = 60
LEASE_SECONDS: Final = 30.0
"""A request counts as running for this long after its gateway last said so."""
_SAID: Final[dict[Limit, str]] = {
    "requests": "requests a minute",
    "tokens": "tokens a minute",
    "concurrency": "requests at once",
    "compiles": "prompts compiled a minute",
    "tasks": "tasks",
}


class Limits(BaseModel):
    """What a tenant may ask for; None is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    requests_per_minute: int | None = Field(None, ge=0)
    tokens_per_minute: int | None = Field(None, ge=1)
    concurrent_requests: int | None = Field(None, ge=0)
    compiles_per_minute: int | None = Field(None, ge=0)
    tasks: int | None = Field(None, ge=0)
    prompt_bytes: int | None = Field(None, ge=1)

    def filled_from(self, default: "Limits") -> "Limits":
        """Return these limits, and of `default` those that are not set here."""
        return default.model_copy(update=self.model_dump(exclude_none=True))

    @property
    def at_entrance(self) -> bool:
        """Whether any of those is set that are looked at when a request comes."""
        set_ones = (self.requests_per_minute, self.tokens_per_minute, self.concurrent_requests)
        return any(limit is not None for limit in set_ones)


@dataclass(frozen=True, slots=True)
class Level:
    """How far a window is filled: what may be taken at once, and seconds until all of it may."""

    remaining: int
    reset_seconds: float


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of taking from a window.

    `cell` is where it was put, for `Limiter.settle`; None means refused, and `retry_seconds` when
    as much may be taken at the earliest.
    """

    level: Level
    cell: int | None
    retry_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Admission:
    """What came of a request: its windows, and which limit refuses it, if any, for how long."""

    requests: Level | None
    tokens: Level | None
    refused_by: Limit | None = None
    retry_seconds: float = 0.0


class Limiter(Protocol):
    """Counts what tenants take. Every method raises StoreUnavailable."""

    async def admit(self, tenant: str, limits: Limits, lease: str) -> Admission:
        """Count a request that comes, unless a limit refuses it, and hold a lease while it runs."""

    async def renew(self, tenant: str, leases: list[str]) -> None:
        """Say that requests still run; one that has ended stays so."""

    async def leave(self, tenant: str, lease: str) -> None:
        """Say that a request has ended; one that is not running has."""

    async def take(self, tenant: str, window: Window, *, limit: int, amount: int = 1) -> Taken:
        """Take from a window as much as is asked for, or nothing."""

    async def settle(self, tenant: str, window: Window, *, cell: int, change: int) -> None:
        """Change what was taken by what it turned out to be; a cell that has ended stays so."""


def excess(limit: Limit, most: int, *, retry_after: float | None = None) -> LimitExceeded:
    """Return the error of a request beyond a limit, which its `param` names; seconds to wait."""
    return LimitExceeded(
        f"limit of the tenant: {most} {_SAID[limit]}", param=limit, retry_after=retry_after
    )
