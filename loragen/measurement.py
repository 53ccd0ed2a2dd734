"""Measurement: what a recipe was found to be worth, and how a refine of it ended."""

import time
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict

from loragen.gate import Gate, Refusal

_MEASURED_DIGITS: Final = 16


class Measurement(BaseModel):
    """What a recipe was found to be worth, on probes it was not fitted on."""

    model_config = ConfigDict(frozen=True)

    recipe: str
    """The first digits of the recipe's id; all 64 would be a twentieth of what a task costs."""
    fidelity: float | None
    """None where the prompt has no effect on the probes, or where `failure` says why."""
    agreement: float | None = None
    """Share of the probes whose answer under the recipe is the prompt's, word for word."""
    probes: int | None = None
    doubt: float | None = None
    """How unsure the edge model is under the prompt of its own answers, in nats per token."""
    failure: str | None = None
    """The code of the error for which it cannot be measured."""
    does_harm: bool = False
    """Whether the recipe is further from the prompt than no prompt is."""
    by: Literal["measure", "refine", "shadow"] = "measure"
    """What found it: the measure of a new recipe, a refine, or a shadow of live requests."""
    at: int | None = None
    """When, in Unix seconds."""

    @classmethod
    def of(
        cls,
        recipe_id: str,
        *,
        fidelity: float | None = None,
        agreement: float | None = None,
        probes: int | None = None,
        doubt: float | None = None,
        does_harm: bool = False,
        failure: str | None = None,
        by: Literal["measure", "refine", "shadow"] = "measure",
    ) -> Self:
        """Return the measurement of a recipe as of now, rounded to four places."""
        return cls(
            recipe=recipe_id[:_MEASURED_DIGITS],
            fidelity=None if fidelity is None else round(fidelity, 4),
            agreement=None if agreement is None else round(agreement, 4),
            probes=probes,
            doubt=None if doubt is None else round(doubt, 4),
            does_harm=does_harm,
            failure=failure,
            by=by,
            at=int(time.time()),
        )

    def refusal(self, gate: Gate) -> Refusal | None:
        """Return why a gate lets no recipe of this worth serve, None where it does."""
        return gate.refusal(self.fidelity, self.doubt, self.agreement)

    def is_of(self, recipe_id: str) -> bool:
        """Whether it is of this recipe."""
        return recipe_id.startswith(self.recipe)


class RefineOutcome(BaseModel):
    """How the last refine of a task ended, with what it measured before and after."""

    model_config = ConfigDict(frozen=True)

    status: Literal["done", "kept", "failed"]
    reason: str | None = None
    """Why the recipe was kept (not_better, prompt_has_no_effect), or the code of the failure."""
    probes: int
    held_out: int | None = None
    fidelity_before: float | None = None
    fidelity_after: float | None = None
    agreement_before: float | None = None
    agreement_after: float | None = None
    seconds: float | None = None
    at: int | None = None
    """When it ended, in Unix seconds."""
