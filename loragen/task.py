"""Task: a tenant's system prompt and tools for one edge model.

Prompt and tools never change; the state does, and so may the recipe. During the upgrade of a pool a
task has two recipes: one of the pool that serves, and one of the pool that is coming or was before.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from loragen.gate import MIN_FIDELITY, Gate
from loragen.measurement import Measurement, RefineOutcome
from loragen.tools import Tools
from loragen.wire import Digest, ProbeText

Status = Literal["compiling", "ready", "fallback", "failed"]
FallbackReason = Literal[
    "compiling",
    "generator_unavailable",
    "generator_overloaded",
    "no_generator",
    "compile_failed",
    "compile_timeout",
    "prompt_too_long",
    "low_fidelity",
    "model_unsure",
    "not_measured",
    "prompt_has_no_effect",
    "worker_pool_mismatch",
    "first_sighting",
    "prompt_too_short",
    "budget_spent",
    "running_conversation",
    "store_unavailable",
    "requested",
    "operator_forced",
]


_PAST_MEASURES: Final = 8
"""Measures that a task remembers beside the one that counts."""

PERMANENT_REASONS: frozenset[FallbackReason] = frozenset({"prompt_too_long"})
"""Reasons that asking the generator again cannot mend."""


class Policy(BaseModel):
    """What to do when a task has no recipe to serve with, or one that is worth too little."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fallback: Literal["prompt", "error", "none"] = Field(
        "prompt",
        description="prompt: answer with the full prompt; error: 503; none: answer without either.",
    )
    refine: Literal["auto", "manual"] = Field(
        "auto",
        description="auto: refine the task when a measure withholds its recipe as low_fidelity or "
        "finds less agreement than the operator wants, unless the recipe is of little use on "
        "made-up messages; manual: only when asked.",
    )
    shadow: Literal["allow", "never"] = Field(
        "allow",
        description="allow: where the operator samples live requests, messages to the task may "
        "measure and refine its recipe; never: none of them is kept, even in memory.",
    )


class RecipeRef(BaseModel):
    """Which recipe a task is served with, and where it came from."""

    model_config = ConfigDict(frozen=True)

    id: Digest
    bytes: int
    pool_id: Digest
    generator_id: Digest
    level: Literal[0, 1]
    template_hash: Digest


class Spare(BaseModel):
    """What a task has for another pool: its recipe there, and all that is known of it."""

    model_config = ConfigDict(frozen=True)

    recipe: RecipeRef
    measurement: Measurement | None = None
    refine: RefineOutcome | None = None
    ready_at: int | None = None
    compile_seconds: float | None = None


_BLANK: Final = {
    **{"status": "compiling", "fallback_reason": None, "recipe": None},
    **dict.fromkeys(("refine", "ready_at", "compile_seconds")),
}
"""What was last measured stays: a new recipe of a task that did not pass must pass first."""


class TaskRecord(BaseModel):
    """What is known of a task without reading its prompt."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: str
    tenant: str
    edge_model: str
    status: Status = "compiling"
    fallback_reason: FallbackReason | None = None
    created_at: int
    ready_at: int | None = None
    is_implicit: bool = False
    """Made by auto mode: it expires without use and is not listed."""
    prompt_tokens: int
    policy: Policy = Policy()
    min_fidelity: float = MIN_FIDELITY
    needs_measure: bool = False
    """Whether it is served by its recipe only once that has been measured."""
    recipe: RecipeRef | None = None
    measurement: Measurement | None = None
    past_measurements: tuple[Measurement, ...] = ()
    """Those before it, oldest first, of this recipe and of others."""
    refine: RefineOutcome | None = None
    compile_seconds: float | None = None
    spare: Spare | None = None
    """The recipe that it has for one other pool."""

    @property
    def recipes(self) -> tuple[RecipeRef, ...]:
        """Its recipes for all pools."""
        spare = None if self.spare is None else self.spare.recipe
        return tuple(ref for ref in (self.recipe, spare) if ref is not None)

    def on(self, pool_id: str) -> Self:
        """Return the task as it is on a pool: with its recipe for that, or with none yet.

        What it has for the pool it was on is its spare then; a task keeps the recipes of two pools.
        """
        if self.recipe is not None and self.recipe.pool_id == pool_id:
            return self
        if self.spare is not None and self.spare.recipe.pool_id == pool_id:
            return self.model_copy(update=self._exchanged(self.spare))
        return self if self.recipe is None else self.model_copy(update=self._exchanged(None))

    def best_of(
        self, pool_ids: Sequence[str], withheld: Callable[[Self], FallbackReason | None]
    ) -> Self:
        """Return the task on the first pool where it has a recipe to serve with.

        Where it has none on any, a recipe that is withheld; else it is on the first pool.
        """
        views = [self.on(pool_id) for pool_id in pool_ids]
        known = [view for view in views if view.recipe is not None]
        fit = [view for view in known if withheld(view) is None]
        return next(iter([*fit, *known, *views]), self)

    def _exchanged(self, taken: Spare | None) -> dict[str, Any]:
        """Return the fields that change when a task takes its spare, or nothing, for its own."""
        kept = None
        if self.recipe is not None:
            kept = Spare(**{field: getattr(self, field) for field in Spare.model_fields})
        if taken is None:
            return {**_BLANK, "spare": kept}
        own = {field: getattr(taken, field) for field in Spare.model_fields}
        return {**own, "status": "ready", "fallback_reason": None, "spare": kept}

    @property
    def measured(self) -> Measurement | None:
        """The measurement of the recipe of now."""
        if self.recipe is None or self.measurement is None:
            return None
        # A recipe that was compiled again is the same one, or it is not measured.
        return self.measurement if self.measurement.is_of(self.recipe.id) else None

    def withheld(self, bars: Gate) -> FallbackReason | None:
        """Return why the recipe of now is not served with, if it is not: it must pass its measure.

        Before its measure a task is served by its recipe unless it `needs_measure`; one whose
        `min_fidelity` is 0 whatever is measured. Of `bars`, its edge model's, the least fidelity
        is the task's own.
        """
        if self.recipe is None:
            return None
        if self.measured is None:
            return "not_measured" if self.needs_measure else None
        if self.min_fidelity <= 0:
            return None
        if self.measured.failure is not None:
            return "not_measured"
        return self.measured.refusal(replace(bars, min_fidelity=self.min_fidelity))

    def is_on_probation(self, bars: Gate) -> bool:
        """Whether the recipe of now is not measured yet, and the one before it did not pass."""
        if self.recipe is None or self.measured is not None or self.measurement is None:
            return False
        last = self.measurement
        if self.min_fidelity <= 0 or last.failure is not None:
            return False
        return last.refusal(replace(bars, min_fidelity=self.min_fidelity)) is not None

    def remeasured(self, measurement: Measurement) -> dict[str, Any]:
        """Return the fields that a new measurement changes."""
        past = self.past_measurements
        if self.measurement is not None:
            past = (*past, self.measurement)[-_PAST_MEASURES:]
        return {"measurement": measurement, "past_measurements": past}


class Task(TaskRecord):
    """A whole task. Prompt, tools, probes and refined recipes are stored beside the record."""

    prompt: str = Field(exclude=True, repr=False)
    tools: Tools = Field((), exclude=True, repr=False)
    probes: tuple[ProbeText, ...] = Field((), exclude=True, repr=False)
    """What to measure and refine it on; empty: on self-generated ones."""
    refined: bytes = Field(b"", exclude=True, repr=False)
    """The recipe that a refine made, while it is the task's."""
    spare_refined: bytes = Field(b"", exclude=True, repr=False)
    """The same of its spare."""

    def outcome(self) -> dict[str, Any]:
        """Return the fields that compiling and refining set."""
        fields = (
            "status", "fallback_reason", "ready_at", "recipe", "compile_seconds", "measurement",
            "past_measurements", "refine", "refined", "spare", "spare_refined",
        )  # fmt: skip
        return {field: getattr(self, field) for field in fields}

    def _exchanged(self, taken: Spare | None) -> dict[str, Any]:
        refined = {
            "refined": b"" if taken is None else self.spare_refined,
            "spare_refined": b"" if self.recipe is None else self.refined,
        }
        return super()._exchanged(taken) | refined
