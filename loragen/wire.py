"""Messages between services, named by what they carry. Bytes travel as base64url text."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from loragen.tools import Tools

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

RECIPE_HEADER = "x-lora-recipe"
"""Header that brings a recipe to a worker, up to MAX_HEADER_CHARS characters."""

RECIPE_FIELD = "loragen_recipe"
"""Body field that brings a larger recipe to a worker."""

MAX_HEADER_CHARS = 6 * 1024

COMPILED_SWITCH = "loragen_compiled"
"""Template variable that makes a worker print a conversation by its compiled template."""


class Message(BaseModel):
    """A frozen message; unknown fields are errors on both sides.

    Neither errors nor representations show prompts or recipes, so that no traceback can.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class CompileRequest(Message):
    """Gateway to router service: `POST /compile`."""

    edge_model: str
    prompt: str = Field(repr=False)
    tools: Tools = Field((), repr=False)


class CompileReply(Message):
    """Router service to gateway: the recipe and where it came from."""

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


class WorkerInfo(Message):
    """Worker to gateway: `GET /loragen`, what this worker serves."""

    edge_model: str
    pool_id: Digest | None
    template_hash: Digest
    backend: Literal["gate", "none"]
    max_model_len: int
