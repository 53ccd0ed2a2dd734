"""Waves of concurrent streamed chat requests against one worker, and what they took."""

import asyncio
import json
import time
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
        *(_stream(client, call, question, max_tokens, started) for call in calls)
    )
    elapsed = time.perf_counter() - started
    firsts = sorted(first for first, _ in replies)
    usages = [usage for _, usage in replies]
    return Wave(
        requests=len(calls),
        elapsed_seconds=elapsed,
        output_tokens=sum(usage["completion_tokens"] for usage in usages),
        prompt_tokens=sum(usage["prompt_tokens"] for usage in usages),
        cached_tokens=sum(
            (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0 for usage in usages
        ),
        first_token_p50_seconds=firsts[len(firsts) // 2],
        first_token_p95_seconds=firsts[int(len(firsts) * 0.95)],
    )


async def _stream(
    client: httpx.AsyncClient, call: Call, question: str, max_tokens: int, started: float
) -> tuple[float, dict[str, Any]]:
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
    first: float | None = None
    usage: dict[str, Any] | None = None
    url = call.url + "/v1/chat/completions"
    async with client.stream("POST", url, json=body, headers=headers) as response:
        if response.status_code != 200:
            await response.aread()
            raise RuntimeError(f"{response.status_code}: {response.text}")
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            if first is None and any(
                choice["delta"].get("content") is not None and "role" not in choice["delta"]
                for choice in event["choices"]
            ):
                first = time.perf_counter() - started
            usage = event.get("usage") or usage
    if usage is None:
        raise RuntimeError("the stream ended without usage")
    return first if first is not None else time.perf_counter() - started, usage
