"""Requests that come when they come, answered or not, and how many are answered in time."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from bench.arrivals import Arrival
from bench.load import Call, Reply, ask

_LOOK_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may take, in seconds."""

    first_token_seconds: float
    token_gap_seconds: float

    def meets(self, reply: Reply) -> bool:
        """Whether an answer came in time."""
        return (
            reply.first_token_seconds <= self.first_token_seconds
            and reply.token_gap_seconds <= self.token_gap_seconds
        )


class OpenLoop:
    """Requests under way, and how many are late."""

    def __init__(self, client: httpx.AsyncClient, limits: Limits, *, allowed: int) -> None:
        self.replies: list[Reply] = []
        self._client = client
        self._limits = limits
        self._allowed = allowed
        self._sent: dict[int, float] = {}
        """When each request that has no first token was sent."""

    @property
    def missed(self) -> int:
        """Answers that came late, and requests whose first token is late already."""
        limit = asyncio.get_running_loop().time() - self._limits.first_token_seconds
        overdue = sum(sent < limit for sent in self._sent.values())
        return overdue + sum(not self._limits.meets(reply) for reply in self.replies)

    async def offer(self, requests: Sequence[tuple[Arrival, Call, str]]) -> int:
        """Send each request when its time has come; return how many are late.

        It ends with the last answer, or as soon as more are late than may be.
        """
        tasks = everyone = {
            asyncio.create_task(self._one(number, *request))
            for number, request in enumerate(requests)
        }
        try:
            while tasks and self.missed <= self._allowed:
                done, tasks = await asyncio.wait(tasks, timeout=_LOOK_SECONDS)
                for task in done:
                    task.result()
            return self.missed
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*everyone, return_exceptions=True)

    async def _one(self, number: int, arrival: Arrival, call: Call, message: str) -> None:
        await asyncio.sleep(arrival.at_seconds)
        self._sent[number] = asyncio.get_running_loop().time()
        reply = await ask(
            self._client,
            call,
            question=message,
            max_tokens=arrival.answer_tokens,
            on_first_token=lambda: self._sent.pop(number),
        )
        self.replies.append(reply)
