"""Load: clients that ask all the time, and look at every byte of every answer."""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx

Kind = Literal["whole", "refused", "error event", "unreached", "cut", "malformed"]
"""What an answer can be.

whole        complete JSON, or a stream that ends with [DONE], and the right text
refused      an error object with 429, 503 or 504, and for the first two a time to come back
error event  a stream whose last event is an error object
unreached    a connection refused, or closed before any byte of an answer
cut          a connection that broke within an answer: the client's HTTP library says so
malformed    anything else
"""

REFUSALS = {429, 503, 504}


@dataclass(frozen=True)
class Question:
    """A request and what makes an answer to it right."""

    body: dict[str, Any]
    is_right: Callable[[str], bool]


@dataclass(frozen=True)
class Outcome:
    """What came of one request to one gateway."""

    kind: Kind
    gateway: str
    detail: str = ""


class Load:
    """Threads that ask questions of gateways until told to end."""

    def __init__(
        self, gateways: Sequence[str], questions: Sequence[Question], *, clients: int
    ) -> None:
        self._gateways = list(gateways)
        self._questions = list(questions)
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._outcomes: list[Outcome] = []
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def count(self, kind: Kind, gateway: str | None = None) -> int:
        """Return how many answers were of a kind so far."""
        with self._lock:
            return sum(
                each.kind == kind and gateway in (None, each.gateway) for each in self._outcomes
            )

    def end(self) -> list[Outcome]:
        """Let every client finish its question, and return all outcomes."""
        self._ending.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        return self._outcomes

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(timeout=60) as client:
            while not self._ending.is_set():
                gateway = chance.choice(self._gateways)
                outcome = ask(client, gateway, chance.choice(self._questions))
                with self._lock:
                    self._outcomes.append(outcome)
                if outcome.kind != "whole":
                    self._ending.wait(0.02)


def summary(outcomes: Sequence[Outcome]) -> Counter[Kind]:
    """Count the kinds."""
    return Counter(outcome.kind for outcome in outcomes)


def ask(client: httpx.Client, gateway: str, question: Question) -> Outcome:
    """Ask one question and judge the answer."""
    text = ""
    try:
        with client.stream("POST", gateway + "/v1/chat/completions", json=question.body) as reply:
            try:
                for part in reply.iter_text():
                    text += part
            except httpx.TransportError as error:
                return Outcome("cut", gateway, repr(error))
            kind = _judge(reply, text, question)
            return Outcome(kind, gateway, "" if kind == "whole" else f"{reply.status_code} {text}")
    except httpx.TransportError as error:
        return Outcome("unreached", gateway, repr(error))


def _judge(reply: httpx.Response, text: str, question: Question) -> Kind:
    try:
        if reply.status_code in REFUSALS:
            return _judge_refusal(reply, json.loads(text))
        if reply.status_code != 200:
            return "malformed"
        if question.body.get("stream"):
            return _judge_stream(text, question)
        message = json.loads(text)["choices"][0]["message"]["content"]
        return "whole" if question.is_right(message) else "malformed"
    except (ValueError, KeyError, IndexError, TypeError):
        return "malformed"


def _judge_refusal(reply: httpx.Response, body: dict[str, Any]) -> Kind:
    is_error = set(body["error"]) == {"message", "type", "param", "code"}
    says_when = reply.status_code == 504 or int(reply.headers["retry-after"]) >= 1
    return "refused" if is_error and says_when else "malformed"


def _judge_stream(text: str, question: Question) -> Kind:
    events = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    if not events or not text.endswith("\n\n"):
        return "malformed"
    *chunks, last = events
    parsed = [json.loads(chunk) for chunk in chunks]
    if last == "[DONE]":
        words = [c["choices"][0]["delta"].get("content") or "" for c in parsed if c["choices"]]
        return "whole" if question.is_right("".join(words)) else "malformed"
    is_error = set(json.loads(last)["error"]) == {"message", "type", "param", "code"}
    return "error event" if is_error else "malformed"
