"""Task: a tenant's system prompt and tools for one edge model.

Prompt and tools never change; the state does.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from loragen.tools import Tools
from loragen.wire import Digest

Status = Literal["compiling", "ready", "fallback", "failed"]
FallbackReason = Literal[
    "compiling",
    "generator_unavailable",
    "generator_overloaded",
    "no_generator",
    "compile_failed",
    "compile_timeout",
    "prompt_too_long",
    "worker_pool_mismatch",
    "first_sighting",
    "prompt_too_short",
    "budget_spent",
    "running_conversation",
    "store_unavailable",
    "requested",
    "operator_forced",
]


PERMANENT_REASONS: frozenset[FallbackReason] = frozenset({"prompt_too_long"})
"""Reasons that asking the generator again cannot mend."""


class Policy(BaseModel):
    """What to do when a task has no recipe to serve with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fallback: Literal["prompt", "error", "none"] = Field(
        "prompt",
        description="prompt: answer with the full prompt; error: 503; none: answer without either.",
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
    min_fidelity: float = 0.8
    recipe: RecipeRef | None = None
    fidelity: float | None = None
    compile_seconds: float | None = None

    def outcome(self) -> dict[str, Any]:
        """Return the fields that a compile sets."""
        fields = ("status", "fallback_reason", "ready_at", "recipe", "compile_seconds")
        return {field: getattr(self, field) for field in fields}


class Task(TaskRecord):
    """A whole task. `prompt` and `tools` are stored beside the record, not in it."""

    prompt: str = Field(exclude=True, repr=False)
    tools: Tools = Field((), exclude=True, repr=False)
