"""`/v1/usage`: what a tenant was served, by day, edge model, mode and task."""

import re
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Annotated, Any, Final, Self

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from loragen.usage import Numbers, UsageKey
from server.services import Services, services, tenant
from server.usage_meter import today

router = APIRouter(prefix="/v1", tags=["usage"])

DEFAULT_DAYS: Final = 30
MAX_DAYS: Final = 400
_FORM: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def _is_a_day(value: object) -> object:
    # Else pydantic takes a number for seconds since 1970.
    if isinstance(value, str) and not _FORM.fullmatch(value):
        raise ValueError("a day is written YYYY-MM-DD")
    return value


Day = Annotated[date, BeforeValidator(_is_a_day)]


class UsageQuery(BaseModel):
    """From which day to which, of UTC, both included."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Day | None = Field(None, description="Default: 29 days before `until`.")
    until: Day | None = Field(None, description="Default: today.")

    @property
    def days(self) -> tuple[date, date]:
        """The first and the last day."""
        until = self.until or today()
        return self.since or until - timedelta(days=DEFAULT_DAYS - 1), until

    @model_validator(mode="after")
    def _is_a_stretch(self) -> Self:
        try:
            since, until = self.days
        except OverflowError:
            raise ValueError("until is too early a day") from None
        if not 0 <= (until - since).days < MAX_DAYS:
            raise ValueError(f"since is before until, by less than {MAX_DAYS} days")
        return self


@router.get("/usage")
async def usage(
    query: Annotated[UsageQuery, Query()],
    parts: Annotated[Services, Depends(services)],
    owner: Annotated[str, Depends(tenant)],
) -> dict[str, Any]:
    """Return the tenant's requests, and tokens sent, saved and generated, by day and task.

    What other gateways served in the last second may be missing.
    """
    await parts.usage_meter.flush()
    since, until = query.days
    found = await parts.usage.read(owner, since=since, until=until)
    return {
        "object": "usage",
        "since": since.isoformat(),
        "until": until.isoformat(),
        "total": sum(found.values(), Numbers()).shown(),
        "data": list(usage_rows(found)),
    }


def usage_rows(found: Mapping[UsageKey, Numbers]) -> Iterator[dict[str, Any]]:
    """Yield usage as the API shows it, the oldest day first."""
    for key in sorted(found, key=lambda key: (key.day, key.model, key.mode, key.task_id or "")):
        yield {
            "day": key.day.isoformat(),
            "model": key.model,
            "mode": key.mode,
            "task_id": key.task_id,
            **found[key].shown(),
        }
