"""`python -m bench.dynamic`: chats whose tools change every k turns, against a running server
(`loragen up --config config/small.yaml`).

prompt     the prompt and the tools in context, every turn
hybrid     the recipe of the prompt; the tools in context
recompile  prompt and tools are one task, compiled anew whenever the tools change

The recipe of the prompt alone is there before a chat begins; a set of tools is first seen when it
comes, and what compiling it takes is part of that turn. Cells (way, k) are interleaved in every
round and compared within it. Questions are the task suite's, so every answer is right or wrong.
"""

import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from bench.paired import interval
from bench.progress import say
from loragen.suite.identities import PERSONA
from loragen.suite.small import SMALL
from loragen.suite.splits import Prompt, Split
from loragen.suite.words import ITEMS, MARKS

TURNS: Final = 20
WAYS: Final = ("prompt", "hybrid", "recompile")
EVERY: Final = (1, 2, 5, 20)
"""Turns between two sets of tools; TURNS means that they never change."""

Json = dict[str, Any]
Cell = tuple[str, int]
"""A way, and the turns between two sets of tools."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One turn: its seconds, compile included, the tokens the edge model read, and its answer."""

    seconds: float
    first_token_seconds: float
    compile_seconds: float
    prompt_tokens: int
    cached_tokens: int
    is_right: bool


Chat = list[Reply]


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    url: Annotated[str, typer.Option(help="A running server.")] = "http://127.0.0.1:8000",
    model: Annotated[str, typer.Option(help="Its edge model.")] = "demo",
    rounds: Annotated[int, typer.Option(help="Rounds; every cell is one chat in each.")] = 5,
    minutes: Annotated[float, typer.Option(help="Begin no other round after so long.")] = 6.0,
    tools: Annotated[int, typer.Option(help="Tools in a set.")] = 3,
) -> None:
    """Measure tokens, latency and correctness of 20-turn chats whose tools change."""
    chats: dict[Cell, list[Chat]] = {cell: [] for cell in product(WAYS, EVERY)}
    with httpx.Client(base_url=url, timeout=120) as client:
        server = Server(client, model)
        started = time.perf_counter()
        for round_ in range(rounds + 1):  # the first one warms up
            if round_ > 1 and time.perf_counter() - started > 60 * minutes:
                break
            order = list(chats)
            random.Random(round_).shuffle(order)
            for number, (way, every) in enumerate(order):
                seed = round_ * len(order) + number
                replies = chat(server, way, every=every, tools=tools, seed=seed)
                if round_:
                    chats[way, every].append(replies)
            say(f"round {round_}/{rounds}")
    report = {
        "command": " ".join(["python -m bench.dynamic", *sys.argv[1:]]),
        "machine": {
            "cpus": os.cpu_count(),
            "platform": platform.platform(),
            "load": os.getloadavg(),
        },
        "protocol": {"rounds": len(chats["prompt", TURNS]), "turns": TURNS, "tools": tools},
        "cells": [summary(way, every, chats[way, every]) for way, every in chats],
        "recompile_over": {way: break_even(chats, way) for way in ("hybrid", "prompt")},
    }
    out.write_text(json.dumps(report, indent=2) + "\n")


class Server:
    """A running server, asked as any client asks it."""

    def __init__(self, client: httpx.Client, model: str) -> None:
        self._client = client
        self._model = model

    def register(self, prompt: str, tools: list[Json] | None = None) -> str:
        """Register a task and return its id."""
        body: Json = {"model": self._model, "system_prompt": prompt}
        if tools:
            body["tools"] = tools
        reply = self._client.post("/v1/tasks", json=body)
        if reply.is_error:
            raise RuntimeError(reply.text)
        task: Json = reply.json()
        if task["status"] != "ready":
            raise RuntimeError(f"not compiled: {task['fallback_reason']}")
        return str(task["id"])

    def ask(self, messages: list[Json], fields: Json) -> tuple[str, Json, float, float]:
        """Return an answer, its usage, and the seconds to its first token and to its end."""
        body = {
            "model": self._model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": 16,
            "stream": True,
            "stream_options": {"include_usage": True},
            **fields,
        }
        text, usage, first = "", None, None
        started = time.perf_counter()
        with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                raise RuntimeError(response.read().decode())
            for event in _events(response):
                for choice in event["choices"]:
                    if choice["delta"].get("content"):
                        first = first or time.perf_counter() - started
                        text += choice["delta"]["content"]
                usage = event.get("usage") or usage
        ended = time.perf_counter() - started
        if usage is None:
            raise RuntimeError("the stream ended without usage")
        return text, usage, first or ended, ended


def chat(server: Server, way: str, *, every: int, tools: int, seed: int) -> Chat:
    """Hold one chat of TURNS turns under a prompt and tools that no other chat has."""
    rng = random.Random(seed)
    prompt = SMALL.draw(PERSONA, Split.UNSEEN_PROMPTS, seed)
    alone = server.register(prompt.text)
    messages: list[Json] = []
    replies, fields = [], {}
    for turn in range(TURNS):
        compile_seconds = 0.0
        if turn % every == 0:
            started = time.perf_counter()
            fields = _fields(server, way, prompt, alone, make_tools(rng, tools))
            compile_seconds = time.perf_counter() - started if way == "recompile" else 0.0
        asked = prompt.ask(rng)
        messages.append({"role": "user", "content": asked.question})
        text, usage, first, ended = server.ask(messages, fields)
        # What should have been said, so that all ways go on from the same chat.
        messages.append({"role": "assistant", "content": asked.answer})
        replies.append(
            Reply(
                seconds=compile_seconds + ended,
                first_token_seconds=compile_seconds + first,
                compile_seconds=compile_seconds,
                prompt_tokens=usage["prompt_tokens"],
                cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
                is_right=text.strip() == asked.answer,
            )
        )
    return replies


def make_tools(rng: random.Random, count: int) -> list[Json]:
    """Return definitions of functions that nobody has asked for before."""
    names: set[str] = set()
    while len(names) < count:
        names.add("_".join(rng.sample(MARKS, 2)))
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": f"Find the {rng.choice(ITEMS)} of a customer.",
                "parameters": {
                    "type": "object",
                    "properties": {"item": {"enum": rng.sample(ITEMS, 2)}},
                    "required": ["item"],
                },
            },
        }
        for name in sorted(names)
    ]


def summary(way: str, every: int, chats: list[Chat]) -> Json:
    """Return the figures of one cell; milliseconds are means of a chat's turns."""
    replies = [reply for each in chats for reply in each]
    compiles = [1_000 * reply.compile_seconds for reply in replies if reply.compile_seconds]
    turn_ms = [1_000 * _mean_seconds(each) for each in chats]
    return {
        "way": way,
        "every": every,
        "prompt_tokens_per_turn": statistics.fmean(reply.prompt_tokens for reply in replies),
        "cached_tokens_per_turn": statistics.fmean(reply.cached_tokens for reply in replies),
        "turn_ms": interval(turn_ms),
        "turn_ms_of_each_chat": [round(value, 1) for value in turn_ms],
        "first_token_ms": interval(
            [
                1_000 * statistics.fmean(reply.first_token_seconds for reply in each)
                for each in chats
            ]
        ),
        "compile_ms": interval(compiles) if compiles else None,
        "right": sum(reply.is_right for reply in replies),
        "turns": len(replies),
    }


def break_even(chats: dict[Cell, list[Chat]], way: str) -> Json:
    """Return what time recompiling takes over another way at every k.

    `predicted`: the k from what a compile takes over what it saves in each later turn.
    """
    ratios = {
        every: interval(
            [
                _mean_seconds(ours) / _mean_seconds(theirs)
                for ours, theirs in zip(chats["recompile", every], chats[way, every], strict=True)
            ]
        )
        for every in EVERY
    }
    ours = [reply for every in EVERY for each in chats["recompile", every] for reply in each]
    theirs = [reply for every in EVERY for each in chats[way, every] for reply in each]
    compile_seconds = statistics.median(r.compile_seconds for r in ours if r.compile_seconds)
    saved = statistics.median(reply.seconds for reply in theirs) - statistics.median(
        reply.seconds - reply.compile_seconds for reply in ours
    )
    return {
        "time_ratio": [{"every": every, **ratio} for every, ratio in ratios.items()],
        "predicted": round(compile_seconds / saved, 1) if saved > 0 else None,
    }


def _mean_seconds(replies: Chat) -> float:
    return statistics.fmean(reply.seconds for reply in replies)


def _fields(server: Server, way: str, prompt: Prompt, alone: str, tools: list[Json]) -> Json:
    """Return what a request says of its task and tools in one of the three ways."""
    if way == "recompile":
        return {"task_id": server.register(prompt.text, tools)}
    fields = {"task_id": alone, "tools": tools, "tool_choice": "none"}
    return {**fields, "loragen": {"mode": way}}


def _events(response: httpx.Response) -> Iterator[Json]:
    for line in response.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line[6:])


if __name__ == "__main__":
    typer.run(main)
