"""What tenants may ask for that have no limits of their own."""

from typing import Literal

from pydantic import Field

from config.section import Section
from loragen.limits import Limits


class LimitSettings(Section):
    """Limits of tenants; a tenant's own are set through the admin API."""

    default: Limits = Field(
        Limits(),
        description="Limits of every tenant, each until the tenant has one of its own; null for "
        "none.",
    )
    when_store_is_down: Literal["allow", "refuse"] = Field(
        "allow",
        description="While Redis does not answer, let requests of limited tenants in uncounted, or "
        "refuse them with 503.",
    )
