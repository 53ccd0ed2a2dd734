"""Messages between services, named by what they carry. Bytes travel as base64url text."""

from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
)

from loragen.tools import Tools

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
RequestId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{0,32}$")]
"""Of one call: its reply brings it back, so that no reply is taken for another's."""

RECIPE_HEADER = "x-lora-recipe"
"""Header that brings a recipe to a worker, up to MAX_HEADER_CHARS characters."""

REQUEST_ID_HEADER = "x-request-id"
"""Header whose value ends the `id` of a worker's answer: vLLM takes it for its own."""

RECIPE_FIELD = "loragen_recipe"
"""Body field that brings a larger recipe to a worker."""

MAX_HEADER_CHARS = 6 * 1024

COMPILED_SWITCH = "loragen_compiled"
"""Template variable that makes a worker print a conversation by its compiled template."""


class Message(BaseModel):
    """A frozen message; unknown fields are errors on both sides.

    Neither errors nor representations show prompts or recipes, so that no traceback can.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False
    )


class CompileRequest(Message):
    """Gateway to router service: `POST /compile`."""

    request_id: RequestId = ""
    edge_model: str
    prompt: str = Field(repr=False)
    tools: Tools = Field((), repr=False)
    pool_id: Digest | None = None
    """The pool that the recipe is to be of; default: that of the edge model's first generator."""


class CompileReply(Message):
    """Router service to gateway: the recipe and where it came from."""

    request_id: RequestId = ""
    recipe: str = Field(repr=False)
    recipe_id: Digest
    pool_id: Digest
    generator_id: Digest
    level: Literal[0, 1]
    template_hash: Digest
    compile_seconds: float = Field(ge=0)


class Head(Message):
    """What one generator compiles for one edge model."""

    edge_model: str
    pool_id: Digest
    generator_id: Digest
    level: Literal[0, 1]
    template_hash: Digest
    max_prompt_tokens: int


class HeadList(Message):
    """Router service to gateway: `GET /heads`."""

    heads: tuple[Head, ...]


MIN_PROBES: Final = 8
MAX_PROBES: Final = 128
MAX_PROBE_CHARS: Final = 4_000


class ProbeText(Message):
    """A message to a task, and what to answer; without that, what the edge model says itself."""

    input: str = Field(min_length=1, max_length=MAX_PROBE_CHARS, repr=False)
    output: str | None = Field(None, min_length=1, max_length=MAX_PROBE_CHARS, repr=False)


def _are_distinct(probes: tuple[ProbeText, ...]) -> tuple[ProbeText, ...]:
    # One held out that was fitted too would measure memory.
    if len({probe.input for probe in probes}) != len(probes):
        raise ValueError("two probes have the same input")
    return probes


Probes = Annotated[
    tuple[ProbeText, ...],
    Field(min_length=MIN_PROBES, max_length=MAX_PROBES, fail_fast=True, strict=False),
    AfterValidator(_are_distinct),
]
"""What a task is measured and refined on."""


_PROBES: Final = TypeAdapter(tuple[ProbeText, ...])


def dump_probes(probes: tuple[ProbeText, ...]) -> str:
    """Return probes as JSON."""
    return _PROBES.dump_json(probes, exclude_defaults=True).decode()


def load_probes(text: str) -> tuple[ProbeText, ...]:
    """Return probes from `dump_probes`.

    Raises:
        ValueError: it is not what that returns.
    """
    return _PROBES.validate_json(text)


class MeasureRequest(Message):
    """Gateway to router service: `POST /measure`; without probes on self-generated ones."""

    request_id: RequestId = ""
    edge_model: str
    prompt: str = Field(repr=False)
    tools: Tools = Field((), repr=False)
    probes: Probes | None = Field(None, repr=False)
    recipe: str = Field(repr=False)


class MeasureReply(Message):
    """Router service to gateway: what a recipe is worth.

    Fidelity is None where the prompt has no effect on the probes. A recipe that `does_harm` is
    further from the prompt than no prompt is. `doubt` is how unsure the edge model is, under the
    prompt, of its own answers, in nats per token; None where every probe brought its answer.
    """

    request_id: RequestId = ""
    fidelity: float | None
    agreement: float
    doubt: float | None = None
    does_harm: bool
    probes: int
    measure_seconds: float = Field(ge=0)


class RefineRequest(Message):
    """Gateway to router service: `POST /refine`; without `start` from nothing.

    Without probes on self-generated ones.
    """

    request_id: RequestId = ""
    edge_model: str
    prompt: str = Field(repr=False)
    tools: Tools = Field((), repr=False)
    probes: Probes | None = Field(None, repr=False)
    start: str | None = Field(None, repr=False)


class RefineReply(Message):
    """Router service to gateway: a refined recipe, and what it is worth.

    Fidelity, agreement and harm, of the start and of the recipe, are those of the probes held out.
    Fidelity is None where the prompt has no effect on them. `doubt` is that of `MeasureReply`.
    """

    request_id: RequestId = ""
    recipe: str = Field(repr=False)
    recipe_id: Digest
    pool_id: Digest
    generator_id: Digest
    template_hash: Digest
    fidelity_before: float | None
    fidelity_after: float | None
    agreement_before: float
    agreement_after: float
    does_harm_before: bool = False
    does_harm_after: bool = False
    doubt: float | None = None
    probes: int
    held_out: int
    refine_seconds: float = Field(ge=0)


WorkerBackend = Literal["gate", "materialise", "none"]
"""How a worker mixes recipes; none without a pool."""


class WorkerInfo(Message):
    """Worker to gateway: `GET /loragen`, what this worker serves."""

    edge_model: str
    pool_id: Digest | None
    template_hash: Digest
    backend: WorkerBackend
    max_model_len: int
