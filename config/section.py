"""Section: what the parts of the settings have in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the settings that one component takes as its slice."""

    model_config = ConfigDict(extra="forbid", frozen=True)
