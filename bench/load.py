"""Streamed chat requests against a worker, alone or in waves, and what they took."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from loragen.wire import RECIPE_HEADER


@dataclass(frozen=True, slots=True)
class Call:
    """One request: who answers, with which recipe or prompt."""

    url: str
    system_prompt: str | None = None
    recipe: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """When one streamed answer came, in seconds after its request was sent, and its tokens."""

    first_token_seconds: float
    last_token_seconds: float
    output_tokens: int
    prompt_tokens: int
    cached_tokens: int

    @property
    def token_gap_seconds(self) -> float:
        """Mean time between two tokens; 0 of an answer of one."""
        gaps = max(1, self.output_tokens - 1)
        return (self.last_token_seconds - self.first_token_seconds) / gaps


@dataclass(frozen=True, slots=True)
class Wave:
    """What one wave of concurrent requests took; seconds and tokens."""

    requests: int
    elapsed_seconds: float
    output_tokens: int
    prompt_tokens: int
    cached_tokens: int
    first_token_p50_seconds: float
    first_token_p95_seconds: float

    @property
    def output_tokens_per_second(self) -> float:
        """Throughput of the whole wave, prefill included."""
        return self.output_tokens / self.elapsed_seconds

    def to_json(self) -> dict[str, float]:
        """Return all figures."""
        return {**asdict(self), "output_tokens_per_second": self.output_tokens_per_second}


async def run_wave(
    client: httpx.AsyncClient, calls: list[Call], *, question: str, max_tokens: int
) -> Wave:
    """Send all calls at once and wait for the last token of the last."""
    started = time.perf_counter()
    replies = await asyncio.gather(
        *(ask(client, call, question=question, max_tokens=max_tokens) for call in calls)
    )
    elapsed = time.perf_counter() - started
    firsts = sorted(reply.first_token_seconds for reply in replies)
    return Wave(
        requests=len(calls),
        elapsed_seconds=elapsed,
        output_tokens=sum(reply.output_tokens for reply in replies),
        prompt_tokens=sum(reply.prompt_tokens for reply in replies),
        cached_tokens=sum(reply.cached_tokens for reply in replies),
        first_token_p50_seconds=firsts[len(firsts) // 2],
        first_token_p95_seconds=firsts[int(len(firsts) * 0.95)],
    )


async def ask(client: httpx.AsyncClient, call: Call, *, question: str, max_tokens: int) -> Reply:
    """Send one call and read its stream to the end.

    Raises:
        RuntimeError: the worker refused it, or the stream broke off.
    """
    started = time.perf_counter()
    first = last = None
    usage: dict[str, Any] | None = None
    async for event in _events(client, call, question, max_tokens):
        if any(
            choice["delta"].get("content") is not None and "role" not in choice["delta"]
            for choice in event["choices"]
        ):
            last = time.perf_counter() - started
            first = last if first is None else first
        usage = event.get("usage") or usage
    if usage is None or first is None or last is None:
        raise RuntimeError("the stream ended without a token or without usage")
    return Reply(
        first_token_seconds=first,
        last_token_seconds=last,
        output_tokens=usage["completion_tokens"],
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
    )


async def _events(
    client: httpx.AsyncClient, call: Call, question: str, max_tokens: int
) -> AsyncIterator[dict[str, Any]]:
    messages = [{"role": "user", "content": question}]
    if call.system_prompt is not None:
        messages.insert(0, {"role": "system", "content": call.system_prompt})
    body = {
        "model": "bench",
        "messages": messages,
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {RECIPE_HEADER: call.recipe} if call.recipe else {}
    url = call.url + "/v1/chat/completions"
    async with client.stream("POST", url, json=body, headers=headers) as response:
        if response.status_code != 200:
            await response.aread()
            raise RuntimeError(f"{response.status_code}: {response.text}")
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                yield json.loads(line[6:])
