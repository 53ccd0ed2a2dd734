"""A tenant that asks now and then, beside others: how long it waits for a token."""

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import httpx

from bench.flood_clients import FloodClients, flooding
from bench.tenant_stack import TenantStack

CALM, FLOOD = "calm", "flood"
Neighbour = Literal["nobody", "share", "flood"]
NEIGHBOURS: Final[tuple[Neighbour, ...]] = ("nobody", "share", "flood")
"""Nobody; a tenant with as many requests as its share; one with many more."""
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
    share: int
    """Of them, those that the worker may have; a tenant that keeps to it is no flood."""
    questions: int
    """Of the calm tenant, beside each kind of neighbour."""
    max_tokens: int
    flood_max_tokens: int


class Asking:
    """Clients of a running stack."""

    def __init__(self, stack: TenantStack, protocol: Protocol) -> None:
        self._headers = stack.headers(CALM)
        self._neighbours = {
            kind: FloodClients(stack.url, stack.headers(FLOOD), clients, protocol.flood_max_tokens)
            for kind, clients in (("share", protocol.share), ("flood", protocol.clients))
        }
        self._protocol = protocol
        self._number = 0
        self.outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in self._neighbours}
        """What came of the neighbour's requests."""

    async def beside(self, client: httpx.AsyncClient, kind: Neighbour) -> Answers:
        """Ask as the calm tenant, one question after the other, beside another tenant."""
        with ExitStack() as stack:
            if kind in self._neighbours:
                stack.enter_context(flooding(self._neighbours[kind], self.outcomes[kind]))
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
    stack: TenantStack, protocol: Protocol, *, rounds: int, say: Any
) -> dict[str, Any]:
    """Return every round's answers beside each kind of neighbour, and what came of those.

    The order of kinds turns from round to round.
    """
    asking = Asking(stack, protocol)
    measured: list[dict[Neighbour, Answers]] = []
    limits = httpx.Limits(max_connections=None, keepalive_expiry=2.0)
    async with httpx.AsyncClient(base_url=stack.url, timeout=600, limits=limits) as client:
        await asking.beside(client, "nobody")  # warms up
        for number in range(rounds):
            turn = number % len(NEIGHBOURS)
            order = NEIGHBOURS[turn:] + NEIGHBOURS[:turn]
            measured.append({kind: await asking.beside(client, kind) for kind in order})
            medians = [f"{statistics.median(measured[-1][kind].first):.3f}" for kind in NEIGHBOURS]
            say(f"round {number + 1}/{rounds}: first token {', '.join(medians)} s")
    return {
        "rounds": measured,
        "outcomes": {kind: dict(found) for kind, found in asking.outcomes.items()},
    }


def pairs(
    rounds: Sequence[dict[Neighbour, Answers]], one: Neighbour, other: Neighbour
) -> list[tuple[list[float], list[float]]]:
    """Return the seconds to the first token of each round beside two kinds of neighbours."""
    return [(each[one].first, each[other].first) for each in rounds]
