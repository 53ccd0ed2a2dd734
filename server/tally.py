"""Tally: the tokens that one request has cost so far, as far as they are known.

Before a worker answers they are guessed. Its usage puts them right; where a stream breaks off
before that, what was read of the prompt and every piece that passed count.
"""

import json
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from loragen.clocks import Work
from server.answer import Provenance

_CHARS_PER_TOKEN: Final = 4
"""Of English text in common vocabularies; a guess that usage puts right."""
_COMPLETION_TOKENS: Final = 16
"""What a completion generates that does not say, by OpenAI's API."""
_NO_PIECE: Final = (b"data: [DONE]", b'data: {"error"')
_USAGE: Final = b'"usage":{'
"""Where a chunk has it; quotes in a text would be escaped."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many tokens a worker's request may take; `is_open_ended` where it names no maximum."""

    prompt_tokens: int
    generated_tokens: int
    is_open_ended: bool

    @classmethod
    def of(cls, body: Mapping[str, Any], *, max_model_len: int) -> "Estimate":
        """Guess from a request as it goes to a worker of such a context."""
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        if asked is None and "messages" not in body:
            asked = _COMPLETION_TOKENS
        prompts = _prompts(body)
        answers = prompts * (body.get("n") or 1)
        generated = answers * min(asked or max_model_len, max_model_len)
        return cls(min(_prompt_tokens(body), prompts * max_model_len), generated, asked is None)

    @property
    def total(self) -> int:
        """All of it."""
        return self.prompt_tokens + self.generated_tokens


@dataclass(slots=True)
class Tally:
    """What is known of one request."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt, those that the worker did not have to read again."""
    generated_tokens: int = 0
    is_known: bool = False
    """False while nobody can say what a worker has done."""
    served: tuple[str, Provenance] | None = None
    """The edge model that serves the request, and how."""
    most_prompt_tokens: int | None = None
    """What a worker can have read, where that is known."""

    @property
    def work(self) -> Work | None:
        """What the worker has done; None while nobody can say."""
        if not self.is_known:
            return None
        return Work(max(0, self.prompt_tokens - self.cached_tokens), self.generated_tokens)

    def expect(self, prompt_tokens: int) -> None:
        """Guess what a worker will read."""
        self.prompt_tokens = prompt_tokens

    @property
    def is_unstripped(self) -> bool:
        """Whether a worker has read more than the messages hold."""
        most = self.most_prompt_tokens
        return self.is_known and most is not None and self.prompt_tokens > most

    def begin(self) -> None:
        """Note that a worker has begun to stream, so that it has read the prompt."""
        self.is_known = True

    def piece(self) -> None:
        """Note that a piece of a stream passed: a token or more."""
        self.generated_tokens += 1

    def read(self, usage: Any) -> None:
        """Take a worker's own count."""
        if isinstance(usage, Mapping):
            details = usage.get("prompt_tokens_details") or {}
            self.prompt_tokens = int(usage.get("prompt_tokens") or 0)
            self.cached_tokens = int(details.get("cached_tokens") or 0)
            self.generated_tokens = int(usage.get("completion_tokens") or 0)
            self.is_known = True

    def void(self) -> None:
        """Note that no worker has done anything."""
        self.prompt_tokens, self.cached_tokens, self.generated_tokens = 0, 0, 0
        self.is_known = True
        self.served = None


async def tallied(
    events: AsyncIterator[bytes], tally: Tally, *, shows_usage: bool
) -> AsyncIterator[bytes]:
    """Yield the events of a stream and count them; usage nobody asked for is kept back."""
    tally.begin()
    async for event in events:
        if _USAGE in event:
            tally.read(json.loads(event.removeprefix(b"data: "))["usage"])
            if not shows_usage:
                continue
        elif not event.startswith(_NO_PIECE):
            tally.piece()
        yield event


def asks_for_usage(body: Mapping[str, Any]) -> bool:
    """Whether the client of a stream wants its usage."""
    return bool((body.get("stream_options") or {}).get("include_usage"))


def counted_body(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a worker's request with the usage of a stream asked for, whoever wants it."""
    if not body.get("stream") or asks_for_usage(body):
        return body
    return {**body, "stream_options": {"include_usage": True}}


def _prompts(body: Mapping[str, Any]) -> int:
    """Return how many prompts a request has, each of which is answered."""
    match body.get("prompt"):
        case [str() | list(), *_] as prompts:
            return len(prompts)
        case _:
            return 1


def _prompt_tokens(body: Mapping[str, Any]) -> int:
    prompt = body.get("messages", body.get("prompt"))
    match prompt:
        case [int(), *_]:
            return len(prompt)
        case [[*_], *_]:
            return sum(map(len, prompt))
    chars = len(json.dumps([prompt, body.get("tools")], ensure_ascii=False))
    return math.ceil(chars / _CHARS_PER_TOKEN)
