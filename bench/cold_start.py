"""`python -m bench.cold_start`: from a prompt that nobody sent before to its first answered token.

On the real stack with the small checkpoint, by prompts of two lengths: seconds from `POST
/v1/tasks` to the recipe and to the first token of an answer; what a request saves without its
prompt, and after how many requests a compile has paid. Then compiles a second by clients at a
time, and what the generator alone takes, in a process of its own.
"""

import json
import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from bench.dynamic import Server
from bench.paired import interval
from bench.progress import say
from bench.provenance import provenance
from bench.tenant_stack import ROOT, TenantStack, tenant_stack
from loragen.method.generator import Generator
from loragen.suite.small import SMALL
from loragen.suite.splits import Split

TENANT: Final = "bench"
LENGTHS: Final = {"short": 0, "long": 400}
"""Least tokens of a prompt; the generator reads about 500."""
CLIENTS: Final = (1, 4, 16, 32)


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds of one prompt's first requests, each from its begin to its end if not said else."""

    compile_seconds: float
    first_token_seconds: float
    """From the begin of the compile on."""
    recipe_seconds: float
    prompt_seconds: float
    cached_seconds: float
    prompt_tokens: int


class PromptMaker:
    """Makes prompts of the suite that nobody has sent before."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def __call__(self, seed: int, *, least_tokens: int) -> str:
        """Return a prompt, with sentences that change nothing where it would be too short."""
        family = SMALL.seen[seed % len(SMALL.seen)]
        text = f"{SMALL.draw(family, Split.UNSEEN_PROMPTS, seed).text} (No. {seed:06d})"
        rng = random.Random(seed)
        while self._generator.prompt_tokens(text) < least_tokens:
            text = f"{rng.choice(SMALL.sentences)} {text}"
        return text


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    prompts: Annotated[int, typer.Option(help="Prompts of each length.")] = 60,
    compiles: Annotated[int, typer.Option(help="Compiles by each number of clients.")] = 200,
) -> None:
    """Measure cold starts, compile throughput and when a compile has paid."""
    generator = Generator.load(ROOT / "checkpoints" / "small" / "generator")
    make = PromptMaker(generator)
    with tenant_stack([TENANT], {}, say) as stack:
        with _client(stack) as client:
            server = Server(client, "demo")
            starts = {
                length: [
                    start(server, make(number, least_tokens=least)) for number in range(prompts + 1)
                ][1:]
                for length, least in LENGTHS.items()
            }
        rates = {
            clients: compile_rate(
                stack,
                [make(10_000 * clients + i, least_tokens=0) for i in range(compiles)],
                clients=clients,
            )
            for clients in CLIENTS
        }
    report = {
        **provenance("bench.cold_start"),
        "stack": "gateway, Redis, router service and worker: all real, the small checkpoint",
        "starts": {length: figures(each) for length, each in starts.items()},
        "compiles_per_second_by_clients": rates,
        "generator_alone_ms": {
            length: alone(generator, make, least_tokens=least) for length, least in LENGTHS.items()
        },
    }
    out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    say(json.dumps(report["starts"]))


def start(server: Server, prompt: str) -> Start:
    """Compile a prompt and ask with its recipe, and with the prompt in context twice."""
    began = time.perf_counter()
    task = server.register(prompt)
    compile_seconds = time.perf_counter() - began
    asked = [{"role": "user", "content": "who are you?"}]
    _, _, first, recipe_seconds = server.ask(asked, {"task_id": task})
    in_context = {"task_id": task, "loragen": {"mode": "prompt"}}
    _, usage, _, prompt_seconds = server.ask(asked, in_context)
    _, _, _, cached_seconds = server.ask(asked, in_context)
    return Start(
        compile_seconds=compile_seconds,
        first_token_seconds=compile_seconds + first,
        recipe_seconds=recipe_seconds,
        prompt_seconds=prompt_seconds,
        cached_seconds=cached_seconds,
        prompt_tokens=usage["prompt_tokens"],
    )


def figures(starts: list[Start]) -> dict[str, Any]:
    """Return medians and intervals, and after how many requests a compile has paid.

    None where a request with the recipe takes no less.
    """
    compile_ms = interval([1_000 * each.compile_seconds for each in starts])
    saved = {
        "evicted": statistics.median(each.prompt_seconds - each.recipe_seconds for each in starts),
        "warm": statistics.median(each.cached_seconds - each.recipe_seconds for each in starts),
    }
    return {
        "prompts": len(starts),
        "prompt_tokens": statistics.fmean(each.prompt_tokens for each in starts),
        "compile_ms": compile_ms,
        "first_token_ms": interval([1_000 * each.first_token_seconds for each in starts]),
        "saved_ms_per_request": {case: round(1_000 * each, 2) for case, each in saved.items()},
        "break_even_requests": {
            case: round(compile_ms["median"] / (1_000 * each), 1) if each > 0 else None
            for case, each in saved.items()
        },
    }


def compile_rate(stack: TenantStack, prompts: list[str], *, clients: int) -> float:
    """Return compiles a second of prompts that so many clients send."""
    with _client(stack) as client, ThreadPoolExecutor(clients) as pool:
        server = Server(client, "demo")
        began = time.perf_counter()
        list(pool.map(server.register, prompts))
        rate = len(prompts) / (time.perf_counter() - began)
    say(f"{clients} clients: {rate:.1f} compiles a second")
    return round(rate, 2)


def alone(generator: Generator, make: PromptMaker, *, least_tokens: int) -> dict[str, float]:
    """Return milliseconds of CPU that a compile takes in the generator itself."""
    taken = []
    for number in range(31):
        prompt = make(1_000_000 + number, least_tokens=least_tokens)
        began = time.process_time()
        generator.compile([prompt])
        taken.append(1_000 * (time.process_time() - began))
    return interval(taken[1:])


def _client(stack: TenantStack) -> httpx.Client:
    # vLLM's and uvicorn's idle connections end after 5 s; one that ends as it is used breaks.
    limits = httpx.Limits(max_connections=None, keepalive_expiry=2.0)
    headers = stack.headers(TENANT)
    return httpx.Client(base_url=stack.url, headers=headers, timeout=120, limits=limits)


if __name__ == "__main__":
    typer.run(main)
