"""A tenant that asks now and then, beside one that floods: how long the first waits for a token."""

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from bench.flood_clients import FloodClients, flooding
from bench.tenant_stack import TenantStack

CALM, FLOOD = "calm", "flood"
_SETTLE_SECONDS: Final = 3.0
"""From the begin of a flood to the first question beside it, or from its end."""
_PAUSE_SECONDS: Final = 0.05
"""Between an answer and the next question."""


@dataclass(slots=True)
class Answers:
    """Seconds to the first token of each answer, and between the tokens of all."""

    first: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Protocol:
    """How it is asked."""

    clients: int
    """Requests that the flood has under way at any time; the calm tenant has one."""
    questions: int
    """Of the calm tenant, in each half of a pair."""
    max_tokens: int
    flood_max_tokens: int


class Asking:
    """Clients of a running stack."""

    def __init__(self, stack: TenantStack, protocol: Protocol) -> None:
        self._headers = stack.headers(CALM)
        self._flood = FloodClients(
            stack.url, stack.headers(FLOOD), protocol.clients, protocol.flood_max_tokens
        )
        self._protocol = protocol
        self._number = 0
        self.outcomes: Counter[str] = Counter()
        """What came of the flood's requests."""

    async def half(self, client: httpx.AsyncClient, *, is_flooded: bool) -> Answers:
        """Ask as the calm tenant, one question after the other, with or without a flood."""
        with ExitStack() as stack:
            if is_flooded:
                stack.enter_context(flooding(self._flood, self.outcomes))
            await asyncio.sleep(_SETTLE_SECONDS)
            await self._stream(client, Answers())  # the first after a pause is another matter
            answers = Answers()
            for _ in range(self._protocol.questions):
                await asyncio.sleep(_PAUSE_SECONDS)
                await self._stream(client, answers)
        return answers

    async def _stream(self, client: httpx.AsyncClient, answers: Answers) -> None:
        self._number += 1
        body: dict[str, Any] = {
            "model": "demo",
            "messages": [{"role": "user", "content": f"Question {self._number}: who are you?"}],
            "max_tokens": self._protocol.max_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
        }
        last = started = time.perf_counter()
        is_first = True
        async with client.stream(
            "POST", "/v1/chat/completions", json=body, headers=self._headers
        ) as response:
            if response.is_error:
                await response.aread()
                response.raise_for_status()
            async for line in response.aiter_lines():
                if not line.startswith("data: {") or not _has_token(json.loads(line[6:])):
                    continue
                now = time.perf_counter()
                (answers.first if is_first else answers.steps).append(now - last)
                last, is_first = now, False
        if is_first:
            raise RuntimeError(f"an answer without a token after {last - started:.1f} s")


def _has_token(event: dict[str, Any]) -> bool:
    if "error" in event:
        raise RuntimeError(str(event["error"]))
    return any("role" not in choice["delta"] for choice in event["choices"])


async def measure(
    stack: TenantStack, protocol: Protocol, *, pairs: int, say: Any
) -> dict[str, Any]:
    """Return every pair's answers, and what came of the flood; which half is first alternates."""
    asking = Asking(stack, protocol)
    measured: list[dict[bool, Answers]] = []
    limits = httpx.Limits(max_connections=None, keepalive_expiry=2.0)
    async with httpx.AsyncClient(base_url=stack.url, timeout=600, limits=limits) as client:
        await asking.half(client, is_flooded=False)  # warms up
        for number in range(pairs):
            halves = {}
            for is_flooded in (False, True) if number % 2 else (True, False):
                halves[is_flooded] = await asking.half(client, is_flooded=is_flooded)
            measured.append(halves)
            medians = [statistics.median(halves[side].first) for side in (False, True)]
            say(f"pair {number + 1}/{pairs}: first token off/on {medians[0]:.3f} {medians[1]:.3f}")
    return {"pairs": measured, "outcomes": dict(asking.outcomes)}


def sides(pairs: Sequence[dict[bool, Answers]]) -> list[tuple[list[float], list[float]]]:
    """Return the seconds to the first token of each pair, without and with the flood."""
    return [(each[False].first, each[True].first) for each in pairs]
