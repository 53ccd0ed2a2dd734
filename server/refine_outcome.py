"""Refine outcome: what a refiner's reply changes about its task."""

import time
from typing import Any

from loragen.measurement import Measurement, RefineOutcome
from loragen.recipe import Recipe
from loragen.task import RecipeRef, Task
from loragen.wire import RefineReply
from server.standing import Standing


def judged(
    standing: Standing,
    stored: Task,
    start_id: str | None,
    reply: RefineReply,
    *,
    recipe: Recipe,
    seconds: float,
) -> dict[str, Any]:
    """Return what changes about a task: the better recipe, and what both were worth.

    One that passes the gate is better than one that does not, then fidelity decides. What the
    start is worth is taken from its own measure where there is one, on more messages.
    """
    before, after = reply.fidelity_before, reply.fidelity_after
    outcome = RefineOutcome(
        status="kept",
        probes=reply.probes,
        held_out=reply.held_out,
        fidelity_before=before,
        fidelity_after=after,
        agreement_before=reply.agreement_before,
        agreement_after=reply.agreement_after,
        seconds=seconds,
        at=int(time.time()),
    )
    ref = stored.recipe
    if (None if ref is None else ref.id) != start_id:
        changed = {"status": "failed", "reason": "recipe_changed"}
        return {"refine": outcome.model_copy(update=changed)}
    if before is None or after is None:
        return {"refine": outcome.model_copy(update={"reason": "prompt_has_no_effect"})}
    refined = _measurement(
        reply, recipe.id, after, reply.agreement_after, does_harm=reply.does_harm_after
    )
    start = stored.measured
    if start is None and start_id is not None:
        start = _measurement(
            reply, start_id, before, reply.agreement_before, does_harm=reply.does_harm_before
        )
    start_passes = start is not None and standing.passes(stored, start)
    if (standing.passes(stored, refined), after) > (start_passes, before):
        return {
            "refine": outcome.model_copy(update={"status": "done"}),
            **stored.remeasured(refined),
            **_with_recipe(reply, recipe),
        }
    kept = {"refine": outcome.model_copy(update={"reason": "not_better"})}
    if start is None or stored.measured is not None:
        return kept
    return {**kept, **stored.remeasured(start)}


def _measurement(
    reply: RefineReply, recipe_id: str, fidelity: float, agreement: float, *, does_harm: bool
) -> Measurement:
    return Measurement.of(
        recipe_id,
        fidelity=fidelity,
        agreement=agreement,
        probes=reply.held_out,
        doubt=reply.doubt,
        does_harm=does_harm,
        by="refine",
    )


def _with_recipe(reply: RefineReply, recipe: Recipe) -> dict[str, Any]:
    return {
        "status": "ready",
        "fallback_reason": None,
        "ready_at": int(time.time()),
        "refined": recipe.data,
        "recipe": RecipeRef(
            id=recipe.id,
            bytes=len(recipe.data),
            pool_id=reply.pool_id,
            generator_id=reply.generator_id,
            level=1,
            template_hash=reply.template_hash,
        ),
    }
