"""Evidence: what happened inside a worker's engine, by its own metrics and log."""

import time
from collections.abc import Sequence
from typing import Final, Literal

from tests.differential.judge import Case
from tests.fakes.worker_process import Worker

Event = Literal["preemptions", "cached_tokens", "aborts", "chunked_prompts", "compiled_graphs"]
"""What must happen, as the engine's own metrics or log say.

preemptions      a request lost its KV blocks and was computed again
cached_tokens    a prompt's tokens were found in the prefix cache
aborts           an answer was given up because its client had hung up
chunked_prompts  a prompt was read that is longer, without its cached part, than a step
compiled_graphs  torch.compile made a graph of the model
"""

_COUNTED: Final[dict[Event, str]] = {
    "preemptions": "vllm:num_preemptions_total",
    "cached_tokens": "vllm:prefix_cache_hits_total",
}
_FINISHED: Final = "vllm:request_success_total"
_HELD: Final = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
)
_GRAPH_MADE: Final = "saved AOT compiled function"
_IDLE_SECONDS: Final = 60.0


class Evidence:
    """What happens in a worker from here on."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._before = worker.metrics()

    def events(self, cases: Sequence[Case], *, step_tokens: int) -> dict[Event, int]:
        """Return how often each event happened while these cases were all there was."""
        after = self._worker.metrics()
        since = {name: round(value - self._before[name]) for name, value in after.items()}
        asked = sum(ask.answers for ask, _ in cases)
        chunked = sum(
            reply.usage is not None and len(ask.prompt) > step_tokens + reply.cached_tokens
            for ask, reply in cases
        )
        log = self._worker.log.read_text(errors="replace")
        return {
            **{event: since[name] for event, name in _COUNTED.items()},
            "aborts": asked - since[_FINISHED],  # the engine finishes what it does not abort
            "chunked_prompts": chunked,
            "compiled_graphs": log.count(_GRAPH_MADE),
        }


def left_over(worker: Worker) -> list[str]:
    """Say what the engine still holds although nobody waits for an answer; give it time to end."""
    deadline = time.monotonic() + _IDLE_SECONDS
    while held := _held(worker):
        if time.monotonic() > deadline:
            return [f"the idle engine still holds {held}"]
    return []


def _held(worker: Worker) -> dict[str, float]:
    worker.client.tokens(max_tokens=1)  # the engine brings its gauges up to date as it steps
    values = worker.metrics()
    return {name: values[name] for name in _HELD if values[name]}
