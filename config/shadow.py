"""When live requests measure recipes again."""

from pydantic import Field

from config.section import Section
from loragen.wire import MAX_PROBES, MIN_PROBES


class ShadowSettings(Section):
    """Messages of live requests that measure recipes again; off until `share` is set."""

    share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the requests to tasks whose message is sampled, once they are "
        "answered; 0 for none. Messages stay in the gateway's memory until they are measured with.",
    )
    per_minute: int = Field(
        30, ge=1, description="Messages sampled at most, per tenant, minute and gateway."
    )
    messages: int = Field(
        16,
        ge=MIN_PROBES,
        le=MAX_PROBES,
        description="Different messages of a task on which its recipe is measured again.",
    )
