"""Requests of the API: OpenAI's fields that workers support and we allow, plus ours.

The lists are explicit and unknown fields are errors, because a field that is accepted and ignored
misleads its sender. Workers validate the values of sampling fields once more.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from loragen.errors import InvalidRequest
from loragen.names import Name
from loragen.task import Policy
from loragen.tools import Tools
from loragen.wire import Probes
from server.answer import Mode
from server.body import check_values
from server.messages import ApiMessage, check_message

# Of a list in which nothing is right one error says enough; a million of them take a gigabyte.
Texts = Annotated[list[str], Field(fail_fast=True)]
Tokens = Annotated[list[int], Field(fail_fast=True)]

OUR_FIELDS = frozenset({"model", "task_id", "loragen", "system_prompt"})
"""Fields of a generation request that the gateway acts on itself."""


class ApiRequest(BaseModel):
    """A request body; unknown fields are errors, and so are false for 0 and "5" for 5."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _holds_plain_values(cls, body: Any) -> Any:
        check_values(body)
        return body


class TaskFields(ApiRequest):
    """What makes a task, and how it is served."""

    model: str
    tools: Tools = Field((), repr=False)
    system_prompt: str = Field("", validate_default=True, repr=False)
    policy: Policy = Policy()
    min_fidelity: float = Field(
        0.8,
        ge=0,
        le=1.2,
        description="Least fidelity at which a measured recipe serves, if it also passes what the "
        "operator asks of the edge model (agreement, doubt); 0: it serves whatever was measured.",
    )
    probes: Probes | None = Field(
        None,
        repr=False,
        description="8 to 128 messages to the task: it is served by its recipe only once that is "
        "measured on them, and refined on them.",
    )

    @field_validator("system_prompt")
    @classmethod
    def _is_text(cls, value: str, info: ValidationInfo) -> str:
        if not value and not info.data.get("tools"):
            raise ValueError("required, unless the task has tools")
        if value and not value.strip():
            raise ValueError("the system prompt is empty")
        if "\x00" in value:
            raise ValueError("the system prompt is not text")
        return value


class TaskRequest(TaskFields):
    """`PUT /v1/tasks/by-name/{name}`."""

    wait: bool = True


class CreateTaskRequest(TaskRequest):
    """`POST /v1/tasks`."""

    name: Name | None = None


class RollbackRequest(ApiRequest):
    """`POST /v1/tasks/by-name/{name}/rollback`."""

    version: int | None = Field(
        None, ge=1, description="Default: the last version with another task."
    )


class RefineTaskRequest(ApiRequest):
    """`POST /v1/tasks/{task_id}/refine`."""

    probes: Probes | None = Field(
        None,
        repr=False,
        description="8 to 128 messages to the task; a quarter of them only measures.",
    )


class PageQuery(BaseModel):
    """`GET /v1/tasks?limit=&after=&order=`, as OpenAI pages its lists."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(20, ge=1, le=100, description="Tasks on a page.")
    after: str | None = Field(
        None, min_length=1, description="Go on behind this task: `last_id` of the page before."
    )
    order: Literal["asc", "desc"] = Field("desc", description="By time of creation.")


class LoragenOptions(BaseModel):
    """The request field `loragen`: how this request is to be served."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode | None = Field(None, description="Serve in this mode, or say why not.")
    switch: Literal["next_conversation", "now"] | None = Field(
        None, description="When a conversation in prompt mode goes over to a recipe."
    )


SystemPromptUse = Annotated[
    Literal["auto", "compile", "keep"],
    Field(
        description="System text without a task: compiled when it comes again, compiled at once,"
        " or kept in context."
    ),
]


class ServedRequest(ApiRequest):
    """What says by which model and task a request is answered, and how."""

    model: str
    task_id: str | None = None
    loragen: LoragenOptions = LoragenOptions()


class GenerationRequest(ServedRequest):
    """What chat and text completions share; https://platform.openai.com/docs/api-reference."""

    frequency_penalty: float | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[str, float] | None = None
    max_tokens: int | None = Field(None, ge=1)
    metadata: dict[str, str] | None = None
    min_p: float | None = None
    min_tokens: int | None = Field(None, ge=0)
    n: int | None = Field(None, ge=1, le=16)
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    response_format: dict[str, Any] | None = None
    return_token_ids: bool | None = None
    seed: int | None = None
    stop: str | Texts | None = None
    stop_token_ids: Tokens | None = None
    stream: bool | None = None
    stream_options: dict[str, bool] | None = None
    structured_outputs: dict[str, Any] | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    user: str | None = None

    @model_validator(mode="after")
    def _streams_its_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream to be true")
        return self

    def upstream(self) -> dict[str, Any]:
        """Return the fields the client set, without ours, as a worker reads them."""
        return self.model_dump(exclude_unset=True, exclude=set(OUR_FIELDS))


class ChatRequest(GenerationRequest):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ApiMessage], Field(fail_fast=True)] = Field(min_length=1)
    system_prompt: SystemPromptUse = "auto"
    logprobs: bool | None = None
    max_completion_tokens: int | None = Field(None, ge=1)
    parallel_tool_calls: bool | None = None
    tool_choice: str | dict[str, Any] | None = None
    tools: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)

    @field_validator("messages")
    @classmethod
    def _are_text(cls, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for index, message in enumerate(messages):
            check_message(index, message)
        return messages


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`."""

    prompt: str | Texts | Tokens | Annotated[list[Tokens], Field(fail_fast=True)]
    logprobs: int | None = Field(None, ge=0, le=20)

    def texts(self) -> str | list[str]:
        """Return the prompt as text.

        Raises:
            InvalidRequest: it is tokens, to which no system prompt can be put.
        """
        if isinstance(self.prompt, str):
            return self.prompt
        texts = [item for item in self.prompt if isinstance(item, str)]
        if len(texts) != len(self.prompt) or not texts:
            raise InvalidRequest("with a task, prompt must be text, not tokens", param="prompt")
        return texts
