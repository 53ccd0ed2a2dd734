"""The client: sends asks to a worker, as many at once as it is told, and keeps what comes back."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from tests.differential.asks import Ask
from tests.fakes.worker_process import WorkerClient

_DATA: Final = "data: "
_TOKEN: Final = "token_id:"


@dataclass(slots=True)
class Answer:
    """One of the answers to an ask, as far as it came."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[dict[int, float]] = field(default_factory=list)
    """Per token, by token; empty if not asked for."""
    finish_reason: str | None = None


@dataclass(slots=True)
class Reply:
    """What came of an ask."""

    answers: list[Answer]
    usage: dict[str, Any] | None = None
    prompt_logprobs: list[dict[int, float]] | None = None
    """Per token of the prompt but the first, by token."""
    failure: str | None = None
    has_left: bool = False
    """Whether the client hung up before the end."""

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt found in the prefix cache."""
        return ((self.usage or {}).get("prompt_tokens_details") or {}).get("cached_tokens") or 0


class Client:
    """Asks one worker."""

    def __init__(self, worker: WorkerClient, *, at_once: int) -> None:
        self._url, self._model, self._at_once = worker.url, worker.model, at_once
        self._headers = {"authorization": f"Bearer {worker.secret}"}

    async def ask_all(self, asks: Sequence[Ask], on_replies: Callable[[int], None]) -> list[Reply]:
        """Send all asks, each after its pause; return the replies in their order.

        `on_replies` is told how many came.
        """
        places = asyncio.Semaphore(self._at_once)
        # vLLM closes a connection that is idle for 5 s, if need be while it is taken up again.
        limits = httpx.Limits(max_connections=None, keepalive_expiry=2)

        async def answer(ask: Ask) -> Reply:
            try:
                return await self._ask(http, ask)
            finally:
                places.release()
                on_replies(1)

        async with (
            httpx.AsyncClient(
                base_url=self._url, headers=self._headers, limits=limits, timeout=600
            ) as http,
            asyncio.TaskGroup() as group,
        ):
            tasks = []
            for ask in asks:
                await asyncio.sleep(ask.pause)
                await places.acquire()
                tasks.append(group.create_task(answer(ask)))
        return [task.result() for task in tasks]

    async def _ask(self, http: httpx.AsyncClient, ask: Ask) -> Reply:
        reply = Reply([Answer() for _ in range(ask.answers)])
        send = self._stream if ask.is_stream else self._send
        try:
            async with asyncio.timeout(ask.patience):
                await send(http, ask, reply)
        except TimeoutError:
            reply.has_left = True
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            reply.failure = f"{type(error).__name__}: {error}"
        return reply

    async def _send(self, http: httpx.AsyncClient, ask: Ask, reply: Reply) -> None:
        response = await http.post(ask.path, json=ask.body(self._model), headers=ask.headers)
        if response.status_code != 200:
            reply.failure = f"{response.status_code}: {response.text}"
            return
        body = response.json()
        _add(reply, body)
        if ask.prompt_logprobs:
            steps = body.get("prompt_logprobs") or body["choices"][0]["prompt_logprobs"]
            reply.prompt_logprobs = [
                {int(token): entry["logprob"] for token, entry in step.items()}
                for step in steps[1:]
            ]

    async def _stream(self, http: httpx.AsyncClient, ask: Ask, reply: Reply) -> None:
        request = http.stream("POST", ask.path, json=ask.body(self._model), headers=ask.headers)
        async with request as response:
            if response.status_code != 200:
                await response.aread()
                reply.failure = f"{response.status_code}: {response.text}"
                return
            async for event in _events(response):
                if "error" in event:
                    reply.failure = json.dumps(event)
                    return
                _add(reply, event)


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if line.startswith(_DATA) and line != f"{_DATA}[DONE]":
            yield json.loads(line.removeprefix(_DATA))


def _add(reply: Reply, body: dict[str, Any]) -> None:
    reply.usage = body.get("usage") or reply.usage
    for choice in body["choices"]:
        answer = reply.answers[choice["index"]]
        answer.tokens += choice.get("token_ids") or []
        answer.logprobs += _logprobs(choice.get("logprobs") or {})
        answer.finish_reason = choice["finish_reason"] or answer.finish_reason


def _logprobs(logprobs: dict[str, Any]) -> list[dict[int, float]]:
    """Return log-probabilities by token, of a chat's answer or of a completion."""
    if "content" in logprobs:
        return [
            {_token(entry["token"]): entry["logprob"] for entry in (step, *step["top_logprobs"])}
            for step in logprobs["content"] or ()
        ]
    chosen = zip(logprobs.get("tokens", ()), logprobs.get("token_logprobs", ()), strict=True)
    best = logprobs.get("top_logprobs") or [{}] * len(logprobs.get("tokens", ()))
    return [
        {_token(name): value for name, value in {**top, token: logprob}.items()}
        for (token, logprob), top in zip(chosen, best, strict=True)
    ]


def _token(name: str) -> int:
    return int(name.removeprefix(_TOKEN))
