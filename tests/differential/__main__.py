"""`python -m tests.differential`: random requests to real workers, held to merged weights.

Real worker processes, set up in several ways, answer a random mix of requests: with many recipes
and none, of all lengths, streamed and whole, for several answers, for log-probabilities, within
grammars, from clients that hang up. Every token and log-probability must be the one that the
Hugging Face model gives with the recipe's adapter in its weights. Some requests are sent with
another recipe than the judge is told: a run that does not find every one of them counts for
nothing, nor does one in which an engine did not do what it was set up to do.

Not run here, for want of a GPU: CUDA graphs, vLLM's V2 model runner, Triton kernels.
"""

import json
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import torch
import typer

from config.environment import export_environment
from tests.differential.engines import ENGINES, MAX_MODEL_LEN, Engine, running
from tests.differential.evidence import Evidence, left_over
from tests.differential.judge import TOLERANCE
from tests.differential.trial import Outcome, Trial
from tests.fakes.tiny import TinyEdge

logger = logging.getLogger(__name__)

MISLED: Final = 20
"""Requests to each engine that are sent with a recipe that the judge does not know of."""
_NOT_RUN: Final = "no GPU: CUDA graphs, vLLM's V2 model runner, Triton kernels"
_DETAILS: Final = 50
_TAIL: Final = 2_000


def try_engine(
    engine: Engine, tiny: TinyEdge, folder: Path, *, requests: int, seed: int
) -> tuple[Outcome, dict[str, Any]]:
    """Return what came of a trial of one engine, and its part of the summary."""
    logger.info("engine %s: starting", engine.name)
    trial = Trial(tiny, seed=f"{seed} {engine.name}", max_model_len=MAX_MODEL_LEN)
    with running(engine, tiny, folder) as worker:
        evidence, started = Evidence(worker), time.monotonic()
        outcome = trial.run(
            worker.client, requests=requests, misled=MISLED, max_num_seqs=engine.max_num_seqs
        )
        seconds = time.monotonic() - started
        try:
            events = evidence.events(outcome.cases, step_tokens=engine.max_num_batched_tokens)
            faults = left_over(worker)
        except httpx.TransportError:
            events, faults = {}, [f"the worker is gone: {worker.log.read_text()[-_TAIL:]}"]
    missing = sorted(event for event in engine.must_happen if not events.get(event))
    faults += [f"{event} never happened" for event in missing]
    if outcome.found < MISLED:
        faults.append(f"{MISLED - outcome.found} wrong recipes went unnoticed")
    logger.info("engine %s: %d mismatches, %s", engine.name, len(outcome.mismatches), events)
    return outcome, {
        "requests": requests,
        "mismatches": len(outcome.mismatches),
        "misled": MISLED,
        "misled_found": outcome.found,
        "faults": faults,
        "happened": events,
        "kinds": outcome.kinds(),
        "tokens": outcome.verdict.tokens,
        "logprobs": outcome.verdict.logprobs,
        "largest_logprob_error": outcome.verdict.largest_error,
        "seconds": round(seconds),
    }


def run(
    folder: Path, engines: Sequence[Engine], *, requests: int, seed: int, command: str
) -> dict[str, Any]:
    """Try all engines, with as many requests each, and return the summary."""
    tiny = TinyEdge.make(folder / "tiny", seed=seed)
    parts: dict[str, dict[str, Any]] = {}
    details: list[str] = []
    for engine in engines:
        outcome, parts[engine.name] = try_engine(
            engine, tiny, folder, requests=-(-requests // len(engines)), seed=seed
        )
        details += [
            f"{engine.name} {mismatch.number}: {mismatch.reason}: {command}"
            for mismatch in outcome.mismatches
        ]
        details += [f"{engine.name}: {fault}" for fault in parts[engine.name]["faults"]]
    errors = [part["largest_logprob_error"] for part in parts.values()]
    return {
        "requests": sum(part["requests"] for part in parts.values()),
        "mismatches": sum(part["mismatches"] for part in parts.values()),
        "faults": sum(len(part["faults"]) for part in parts.values()),
        "misled": sum(part["misled"] for part in parts.values()),
        "misled_found": sum(part["misled_found"] for part in parts.values()),
        "tokens": sum(part["tokens"] for part in parts.values()),
        "logprobs": sum(part["logprobs"] for part in parts.values()),
        "largest_logprob_error": max(errors),
        "tolerance": TOLERANCE,
        "engines": parts,
        "not_run": _NOT_RUN,
        "details": details[:_DETAILS],
        "seed": seed,
        "command": command,
    }


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    requests: Annotated[int, typer.Option(help="Requests, shared by all engines.", min=1)] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the model, the pool and all requests.")] = 0,
    engine: Annotated[
        list[str] | None, typer.Option(help="Only this engine; may be repeated.")
    ] = None,
) -> None:
    """Ask real workers at random, and fail unless all they say is what merged weights say."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for signum in (signal.SIGINT, signal.SIGTERM):  # either ends what was started
        signal.signal(signum, signal.default_int_handler)
    known = {each.name: each for each in ENGINES}
    names = engine or list(known)
    if unknown := set(names) - set(known):
        raise typer.BadParameter(f"no engine {sorted(unknown)}, there are {list(known)}")
    torch.set_num_threads(1)  # threads that wait for one another in a loop take a small machine
    export_environment(OMP_NUM_THREADS="1")
    command = f"python -m tests.differential --out {out} --requests {requests} --seed {seed}"
    command += "".join(f" --engine {name}" for name in engine or ())
    with tempfile.TemporaryDirectory(prefix="lg-") as folder:
        summary = run(
            Path(folder),
            [known[name] for name in names],
            requests=requests,
            seed=seed,
            command=command,
        )
    out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    if summary["mismatches"] or summary["faults"]:
        logger.error("not as it must be:\n%s", "\n".join(summary["details"]))
        raise typer.Exit(1)
    logger.info("%d requests without a mismatch", summary["requests"])


if __name__ == "__main__":
    typer.run(main)
