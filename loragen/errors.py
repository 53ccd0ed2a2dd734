"""Every error a caller can meet, with the HTTP status and the OpenAI `code` it becomes.

LoragenError                       500 internal_error
|- InvalidRequest                  400 invalid_request
|  |- PromptTooLong                400 context_length_exceeded
|  `- RecipeInvalid                400 recipe_invalid
|- RequestTimeout                  408 request_timeout
|- RequestTooLarge                 413 request_too_large
|  `- HeadTooLarge                 431 request_too_large
|- Unauthorized                    401 invalid_api_key
|- NotFound                        404 not_found
|  |- TaskNotFound                 404 task_not_found
|  `- EdgeModelNotFound            404 model_not_found
|- Conflict                        409 conflict
|- RecipeMismatch                  409 pool_version_mismatch (internal: the gateway recompiles)
|- LimitExceeded                   429 rate_limit_exceeded
|- Overloaded                      503 overloaded
|  `- QueueFull                    429 overloaded
|- Unavailable                     503 unavailable
|  |- GeneratorUnavailable         503 generator_unavailable
|  |- StoreUnavailable             503 store_unavailable
|  |  |- TaskDamaged               503 store_unavailable
|  |  |- SealBroken                503 store_unavailable (what is stored cannot be opened)
|  |  `- SealUnknown               503 store_unavailable
|  `- WorkerUnavailable            503 worker_unavailable
|- DeadlineExceeded                504 deadline_exceeded
`- start-up, never HTTP: ConfigError (exit 2), ArtifactCorrupt (exit 3), SelfTestFailed (exit 4)

Every class keeps the one constructor `(message, *, param=None, retry_after=None)`: Ray and pickle
rebuild exceptions from `args`, and a second required argument would lose the type on the way.
"""

from typing import ClassVar


class LoragenError(Exception):
    """Something failed inside the service; the message is safe to show."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, dict[str, str | None]]:
        """Return the OpenAI error object, https://platform.openai.com/docs/guides/error-codes."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class InvalidRequest(LoragenError):
    """The request cannot be served as it is; the message says what to change."""

    status = 400
    code = "invalid_request"
    type = "invalid_request_error"


class PromptTooLong(InvalidRequest):
    """The prompt does not fit the edge model's context."""

    code = "context_length_exceeded"


class RecipeInvalid(InvalidRequest):
    """The bytes are not a recipe this pool can mix."""

    code = "recipe_invalid"


class RequestTimeout(LoragenError):
    """The client took too long to send the request."""

    status = 408
    code = "request_timeout"
    type = "invalid_request_error"


class RequestTooLarge(LoragenError):
    """The request body is larger than the server reads."""

    status = 413
    code = "request_too_large"
    type = "invalid_request_error"


class HeadTooLarge(RequestTooLarge):
    """The headers of the request are larger than the server reads."""

    status = 431


class Unauthorized(LoragenError):
    """The credential is missing or wrong."""

    status = 401
    code = "invalid_api_key"
    type = "invalid_request_error"


class NotFound(LoragenError):
    """Nothing is known under that name."""

    status = 404
    code = "not_found"
    type = "invalid_request_error"


class TaskNotFound(NotFound):
    """This tenant has no such task."""

    code = "task_not_found"


class EdgeModelNotFound(NotFound):
    """No edge model of that name is served."""

    code = "model_not_found"


class Conflict(LoragenError):
    """The request contradicts something that exists."""

    status = 409
    code = "conflict"
    type = "invalid_request_error"


class RecipeMismatch(LoragenError):
    """The recipe was compiled for another pool than the one that would mix it."""

    status = 409
    code = "pool_version_mismatch"
    type = "invalid_request_error"


class LimitExceeded(LoragenError):
    """The tenant asks for more than its limits allow; try again after `retry_after`, if given."""

    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"


class Overloaded(LoragenError):
    """Too much work is queued; try again after `retry_after` seconds."""

    status = 503
    code = "overloaded"


class QueueFull(Overloaded):
    """All workers are busy and enough requests wait for them; try again after `retry_after`."""

    status = 429
    type = "rate_limit_error"


class Unavailable(LoragenError):
    """A part of the service is away; try again."""

    status = 503
    code = "unavailable"


class GeneratorUnavailable(Unavailable):
    """The generator cannot be reached, so new prompts cannot be compiled."""

    code = "generator_unavailable"


class StoreUnavailable(Unavailable):
    """Redis cannot be reached."""

    code = "store_unavailable"


class TaskDamaged(StoreUnavailable):
    """What Redis holds of a task cannot be read."""


class SealBroken(StoreUnavailable):
    """A stored value is damaged, or was sealed for another place."""


class SealUnknown(StoreUnavailable):
    """A stored value is sealed by a version of the encryption key that is not held here."""


class WorkerUnavailable(Unavailable):
    """No worker of the edge model answers."""

    code = "worker_unavailable"


class DeadlineExceeded(LoragenError):
    """The work did not finish within its deadline."""

    status = 504
    code = "deadline_exceeded"


class StartupError(LoragenError):
    """A process refuses to start; `exit_code` is its exit status."""

    exit_code: ClassVar[int] = 1


class ConfigError(StartupError):
    """The configuration is wrong; the message names the field."""

    exit_code = 2


class ArtifactCorrupt(StartupError):
    """A model, pool or generator file is missing or not what its metadata says."""

    exit_code = 3


class SelfTestFailed(StartupError):
    """The worker started but does not mix recipes as it must."""

    exit_code = 4
