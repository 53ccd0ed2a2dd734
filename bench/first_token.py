"""`python -m bench.first_token`: how long the first token takes with a recipe and with the prompt.

One request at a time on an idle engine, three cases in each pair, in an order that is drawn:

compiled  a recipe that the worker has never seen, no prompt
warm      the full prompt, in the prefix cache since an earlier pair
evicted   the full prompt of one of so many tenants, in turn, that the KV cache has dropped it

All three answer the same message, which nobody asked before. A ratio is paired within its pair.
"""

import asyncio
import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from bench.load import Call, Reply, ask
from bench.paired import interval
from bench.progress import say
from bench.provenance import provenance
from bench.stand import BATCHED_TOKENS, KV_TOKENS, MODEL, Stand, stand

CASES: Final = ("compiled", "warm", "evicted")
LENGTHS: Final = (500, 1_000, 2_000)
MESSAGE_TOKENS: Final = 16
_BLOCK_TOKENS: Final = 128
"""vLLM's KV block on CPU: of a cached prompt, what is behind the last full block is read again."""
_WARM_TENANTS: Final = 4
"""Their prompts end at different places of a block, so that no length is favoured."""

Pair = dict[str, Reply]


class Asking:
    """The three cases for prompts of one length."""

    def __init__(self, at: Stand, prompt_tokens: int) -> None:
        self._at = at
        step = _BLOCK_TOKENS // _WARM_TENANTS
        middle = (_WARM_TENANTS - 1) / 2
        self._warm = [
            at.texts(prompt_tokens + tenant, tokens=prompt_tokens + round(step * (tenant - middle)))
            for tenant in range(_WARM_TENANTS)
        ]
        crowd = KV_TOKENS // prompt_tokens + 2
        self._evicted = [
            at.texts(1_000 * prompt_tokens + tenant, tokens=prompt_tokens)
            for tenant in range(crowd)
        ]
        self._seed = prompt_tokens << 32

    async def fill(self, client: httpx.AsyncClient) -> None:
        """Have every prompt read once."""
        for prompt in (*self._evicted, *self._warm):
            await self._ask(client, Call(self._at.bare_url, system_prompt=prompt), "hello")

    async def pair(self, client: httpx.AsyncClient, number: int) -> Pair:
        """Ask once in each case."""
        bare, seed = self._at.bare_url, self._seed + number
        calls = {
            "compiled": Call(self._at.gate_url, recipe=self._at.model.recipe(seed)),
            "warm": Call(bare, system_prompt=self._warm[number % len(self._warm)]),
            "evicted": Call(bare, system_prompt=self._evicted[number % len(self._evicted)]),
        }
        message = self._at.texts(seed, tokens=MESSAGE_TOKENS)
        order = random.Random(seed).sample(CASES, len(CASES))
        return {case: await self._ask(client, calls[case], message) for case in order}

    async def _ask(self, client: httpx.AsyncClient, call: Call, message: str) -> Reply:
        return await ask(client, call, question=message, max_tokens=1)


async def measure(at: Stand, prompt_tokens: int, *, pairs: int) -> dict[str, Any]:
    """Return the figures of one length of prompts.

    Raises:
        RuntimeError: a case was not what its name says.
    """
    asking = Asking(at, prompt_tokens)
    async with at.client() as client:
        say(f"first token: filling the KV cache with prompts of {prompt_tokens} tokens")
        await asking.fill(client)
        measured = [await asking.pair(client, number) for number in range(pairs + 1)][1:]
    check_cases(measured, prompt_tokens)
    ratios = {
        f"{case}_over_compiled": interval([_ratio(pair, case) for pair in measured])
        for case in CASES[1:]
    }
    say(f"first token: {prompt_tokens} tokens: {ratios}")
    return {
        "prompt_tokens": prompt_tokens,
        "pairs": pairs,
        **ratios,
        "warm_over_compiled_by_place": by_place([_ratio(pair, "warm") for pair in measured]),
        "seconds": {
            case: [round(pair[case].first_token_seconds, 5) for pair in measured] for case in CASES
        },
        "median_seconds": {
            case: statistics.median(pair[case].first_token_seconds for pair in measured)
            for case in CASES
        },
        "read_tokens": {
            case: statistics.fmean(_read_tokens(pair[case]) for pair in measured) for case in CASES
        },
    }


def by_place(ratios: Sequence[float]) -> list[float]:
    """Return the median ratio by where in a block the cached prompt ends, lowest first.

    Pairs take the prompts in turns.
    """
    places = range(min(_WARM_TENANTS, len(ratios)))
    medians = [statistics.median(ratios[place::_WARM_TENANTS]) for place in places]
    return sorted(round(median, 3) for median in medians)


def check_cases(measured: Sequence[Pair], prompt_tokens: int) -> None:
    """Hold warm and evicted to their names by what the engine says of its cache.

    Raises:
        RuntimeError: a warm prompt was read, or an evicted one was not.
    """
    for pair in measured:
        if _read_tokens(pair["warm"]) > _BLOCK_TOKENS + 4 * MESSAGE_TOKENS:
            raise RuntimeError("a prompt that should be in the prefix cache is not")
        if pair["evicted"].cached_tokens > _BLOCK_TOKENS or prompt_tokens <= _BLOCK_TOKENS:
            raise RuntimeError("a prompt that should have left the prefix cache is in it")


def _read_tokens(reply: Reply) -> int:
    return reply.prompt_tokens - reply.cached_tokens


def _ratio(pair: Pair, case: str) -> float:
    return pair[case].first_token_seconds / pair["compiled"].first_token_seconds


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    checkpoint: Annotated[
        Path, typer.Option(help="Checkpoint whose tokenizer and template are used.")
    ] = Path("checkpoints/small"),
    prompt_tokens: Annotated[
        list[int] | None,
        typer.Option(help=f"Lengths of the prompts; default: {', '.join(map(str, LENGTHS))}."),
    ] = None,
    pairs: Annotated[int, typer.Option(help="Pairs of every length.")] = 21,
) -> None:
    """Measure the time to the first token with a recipe and with the prompt in context."""
    with stand(checkpoint) as at:
        lengths = [
            asyncio.run(measure(at, tokens, pairs=pairs)) for tokens in prompt_tokens or LENGTHS
        ]
    report = {
        **provenance("bench.first_token"),
        "model": asdict(MODEL),
        "protocol": {"message_tokens": MESSAGE_TOKENS, "batched_tokens": BATCHED_TOKENS},
        "lengths": lengths,
    }
    out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
