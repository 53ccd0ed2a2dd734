"""Traffic: clients of all tenants, and what came of each of their requests."""

import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import httpx

from tests.chaos.canaries import Canary
from tests.chaos.errors import is_error_object
from tests.chaos.tenants import Slot

logger = logging.getLogger(__name__)

Kind = Literal[
    "right",
    "during an edit",
    "error",
    "error event",
    "unreached",
    "cut",
    "hung",
    "foreign answer",
    "wrong answer",
    "malformed",
]
"""What comes of a request.

right           the answer that one of the prompts gives which the name stood for
during an edit  any other text, of a name that moved meanwhile, but no other prompt's answer
error           an error object with a status of 4xx or 5xx
error event     a stream whose last event is an error object
unreached       no connection, or closed before a byte of an answer
cut             a connection that broke within an answer, as the client's library says
hung            nothing came for the client's time-out
foreign answer  the answer of another prompt
wrong answer    any other text, of a name that did not move
malformed       anything else
"""


@dataclass(frozen=True, slots=True)
class Broken:
    """A request whose connection broke, and the time of it, by the clock of `time.monotonic`."""

    gateway: str
    started: float
    ended: float


EXPECTED_STATUSES: Final = frozenset({404, 429, 500, 502, 503, 504})


class Traffic:
    """Threads that ask for answers until told to end."""

    def __init__(
        self,
        gateways: Sequence[str],
        slots: Sequence[Slot],
        *,
        foreign: frozenset[str],
        model: str,
        clients: int,
        timeout_seconds: float = 90.0,
    ) -> None:
        """Start; `foreign` are the answers of all prompts."""
        self._timeout = timeout_seconds
        self._gateways, self._slots, self._model = list(gateways), list(slots), model
        self._foreign = foreign
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self.kinds: Counter[Kind] = Counter()
        self.codes: Counter[str] = Counter()
        self.modes: Counter[str] = Counter()
        self.details: list[str] = []
        self.broken: list[Broken] = []
        """Connections that broke: only those to a gateway that was down may."""
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let every client finish its request."""
        self._ending.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive(), "a request hangs"

    @property
    def answers(self) -> int:
        """How many right answers there were so far."""
        with self._lock:
            return self.kinds["right"]

    @property
    def requests(self) -> int:
        """How many were answered or failed so far."""
        with self._lock:
            return self.kinds.total()

    def _run(self, number: int) -> None:
        chance = random.Random(f"client {number}")
        with httpx.Client(timeout=self._timeout) as client:
            while not self._ending.is_set():
                slot = chance.choice(self._slots)
                canary = slot.current
                if canary is None:
                    continue
                gateway = chance.choice(self._gateways)
                started = time.monotonic()
                kind, detail = self._ask(
                    client, gateway, slot, canary, is_stream=chance.random() < 0.5
                )
                if kind in ("foreign answer", "wrong answer"):
                    detail += (
                        f"; task {slot.task_id}; asked again: {self._again(client, slot, canary)}"
                    )
                with self._lock:
                    self.kinds[kind] += 1
                    if kind in ("cut", "unreached"):
                        self.broken.append(Broken(gateway, started, time.monotonic()))
                    if kind in ("foreign answer", "wrong answer", "malformed", "hung"):
                        self.details.append(f"{kind}: {detail}")
                        logger.warning("%s: %s", kind, detail)
                if kind == "unreached":
                    self._ending.wait(0.1)

    def _again(self, client: httpx.Client, slot: Slot, canary: Canary) -> str:
        """Return what both gateways answer now: whether what was wrong lasts."""
        body = _body(self._model, slot, canary, is_stream=False)
        headers = {"authorization": f"Bearer {slot.key}"}
        told = []
        for gateway in self._gateways:
            try:
                reply = client.post(gateway + "/v1/chat/completions", json=body, headers=headers)
                told.append(f"{gateway} {_said(reply)} {reply.text[:500]}")
            except httpx.TransportError as error:
                told.append(f"{gateway} {error!r}")
        return "; ".join(told)

    def _ask(
        self, client: httpx.Client, gateway: str, slot: Slot, canary: Canary, *, is_stream: bool
    ) -> tuple[Kind, str]:
        body = _body(self._model, slot, canary, is_stream=is_stream)
        headers = {"authorization": f"Bearer {slot.key}"}
        started = time.monotonic()
        text = ""
        url = gateway + "/v1/chat/completions"
        try:
            with client.stream("POST", url, json=body, headers=headers) as reply:
                try:
                    for part in reply.iter_text():
                        text += part
                except httpx.TimeoutException:
                    raise
                except httpx.TransportError as error:
                    return "cut", repr(error)
        except httpx.TimeoutException as error:
            return "hung", repr(error)
        except httpx.TransportError as error:
            return "unreached", repr(error)
        allowed = slot.between(started, time.monotonic())
        kind = self._judge(reply, text, allowed, canary, is_stream=is_stream)
        told = f"{slot.name} {gateway} {reply.status_code} {_said(reply)} {canary} {text[:4_000]}"
        return kind, f"{told} after {time.monotonic() - started:.2f} s; {slot.history}"

    def _judge(
        self,
        reply: httpx.Response,
        text: str,
        allowed: Sequence[Canary | None],
        asked: Canary,
        *,
        is_stream: bool,
    ) -> Kind:
        try:
            if reply.status_code != 200:
                return self._judge_error(reply, json.loads(text), allowed)
            answer = _streamed(text) if is_stream else _message(json.loads(text))
        except (ValueError, KeyError, IndexError, TypeError):
            return "malformed"
        if answer is None:
            return "error event"
        with self._lock:
            self.modes[reply.headers["x-loragen-mode"]] += 1
        if answer in {canary.answer for canary in allowed if canary is not None}:
            return "right"
        if answer in self._foreign:
            return "foreign answer"
        # The name moved meanwhile: its other prompt answers a question that it was not drawn for.
        is_edited = any(other != asked for other in allowed)
        return "during an edit" if is_edited else "wrong answer"

    def _judge_error(
        self, reply: httpx.Response, body: Any, allowed: Sequence[Canary | None]
    ) -> Kind:
        if not is_error_object(body) or reply.status_code not in EXPECTED_STATUSES:
            return "malformed"
        if reply.status_code == 404 and None not in allowed:
            return "malformed"  # the task is there
        with self._lock:
            self.codes[f"{reply.status_code} {body['error']['code']}"] += 1
        return "error"


def _body(model: str, slot: Slot, canary: Canary, *, is_stream: bool) -> dict[str, Any]:
    return {
        "model": f"{model}:{slot.name}",
        "messages": [{"role": "user", "content": canary.question}],
        "temperature": 0,
        "max_tokens": 48,
        "stream": is_stream,
    }


def _said(reply: httpx.Response) -> dict[str, str]:
    return {k: v for k, v in reply.headers.items() if k.startswith("x-loragen")}


def _message(body: dict[str, Any]) -> str:
    content: str = body["choices"][0]["message"]["content"]
    return content


def _streamed(text: str) -> str | None:
    """Return the text of a stream, None if it ends with an error event.

    Raises:
        ValueError, KeyError, TypeError: it is not a stream of chunks.
    """
    events = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    if not events or not text.endswith("\n\n"):
        raise ValueError("not a whole stream")
    *chunks, last = events
    parsed = [json.loads(chunk) for chunk in chunks]
    if last != "[DONE]":
        if not is_error_object(json.loads(last)):
            raise ValueError("the last event is no error")
        return None
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in parsed if c["choices"])
