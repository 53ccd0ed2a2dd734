"""What a request is guessed to cost, and what it is found to have cost."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.tally import Estimate, Tally, counted_body, tallied

CONTEXT = 1_000
MESSAGES = [{"role": "user", "content": "x" * 400}]


def chunk(payload: Any) -> bytes:
    return b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"


PIECE = chunk({"choices": [{"index": 0, "delta": {"content": '"usage":{ in words'}}]})
USAGE = chunk({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("fields", "generated", "is_open_ended"),
    [
        ({"max_tokens": 10}, 10, False),
        ({"max_completion_tokens": 10, "max_tokens": 50}, 10, False),
        ({"max_tokens": 10, "n": 3}, 30, False),
        ({"max_tokens": 10**9}, CONTEXT, False),
        ({}, CONTEXT, True),
    ],
)
def test_a_chat_may_take_what_it_names_or_the_context(
    fields: dict[str, Any], generated: int, is_open_ended: bool
) -> None:
    estimate = Estimate.of({"messages": MESSAGES, **fields}, max_model_len=CONTEXT)
    assert (estimate.generated_tokens, estimate.is_open_ended) == (generated, is_open_ended)
    assert 100 <= estimate.prompt_tokens < 120
    assert estimate.total == estimate.prompt_tokens + generated


@pytest.mark.parametrize(
    ("prompt", "tokens", "prompts"),
    [([1, 2, 3], 3, 1), ([[1, 2], [3]], 3, 2), ("x" * 400, 103, 1), (["x" * 40] * 2, 24, 2)],
)
def test_a_completion_generates_sixteen_tokens_for_each_prompt_unless_it_says(
    prompt: Any, tokens: int, prompts: int
) -> None:
    estimate = Estimate.of({"prompt": prompt}, max_model_len=CONTEXT)
    assert (estimate.generated_tokens, estimate.is_open_ended) == (prompts * 16, False)
    many = Estimate.of({"prompt": prompt, "n": 3, "max_tokens": 10}, max_model_len=CONTEXT)
    assert many.generated_tokens == prompts * 30
    assert estimate.prompt_tokens == pytest.approx(tokens, abs=3)


def test_a_prompt_is_never_guessed_beyond_the_context() -> None:
    body = {"messages": [{"role": "user", "content": "x" * 40_000}], "max_tokens": 1}
    assert Estimate.of(body, max_model_len=CONTEXT).prompt_tokens == CONTEXT
    pair = {"prompt": ["x" * 40_000] * 2}
    assert Estimate.of(pair, max_model_len=CONTEXT).prompt_tokens == 2 * CONTEXT


def test_the_usage_of_a_stream_is_always_asked_for() -> None:
    asked = {"include_usage": True}
    assert counted_body({"stream": True})["stream_options"] == asked
    # Usage in every chunk could not be told from the answer to be kept back.
    sly = {"include_usage": False, "continuous_usage_stats": True}
    assert counted_body({"stream": True, "stream_options": sly})["stream_options"] == asked
    wanted = {"stream": True, "stream_options": {**asked, "continuous_usage_stats": True}}
    assert counted_body(wanted) == wanted
    assert counted_body({"stream": False}) == {"stream": False}


async def relayed(tally: Tally, *events: bytes, shows_usage: bool) -> list[bytes]:
    async def source() -> AsyncIterator[bytes]:
        for event in events:
            yield event

    return [event async for event in tallied(source(), tally, shows_usage=shows_usage)]


@pytest.mark.parametrize("shows_usage", [True, False])
async def test_usage_is_read_and_shown_to_those_who_asked(shows_usage: bool) -> None:
    tally = Tally()
    out = await relayed(tally, PIECE, PIECE, USAGE, DONE, shows_usage=shows_usage)
    assert out == [PIECE, PIECE, *([USAGE] if shows_usage else []), DONE]
    assert (tally.prompt_tokens, tally.generated_tokens, tally.is_known) == (7, 3, True)


async def test_of_a_stream_that_breaks_off_the_pieces_count() -> None:
    tally = Tally()
    tally.expect(50)
    assert not tally.is_known
    await relayed(tally, PIECE, PIECE, chunk({"error": {}}), shows_usage=True)
    assert (tally.prompt_tokens, tally.generated_tokens, tally.is_known) == (50, 2, True)


def test_what_no_worker_did_is_nothing() -> None:
    tally = Tally()
    tally.expect(50)
    tally.void()
    assert (tally.prompt_tokens, tally.generated_tokens, tally.is_known) == (0, 0, True)
