"""`python -m bench.soak`: does anything grow while tasks come and go?

The whole stack as a user starts it: Redis, router service (Ray), a worker, a gateway with keys.
Clients make tasks, ask them and delete them all the time; after a fifth of the time the gateway is
told to end, and worker and router service are killed, so that what is judged are lives that began
in the middle of traffic as well as those that saw it all. Every process is sampled: memory,
descriptors, threads, and the series of those that have metrics. `bench.growth` says what is growth.
"""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench.churn import Churn
from bench.growth import TOLERANCES, judged
from bench.lives import Life, Sampler
from bench.progress import say
from bench.provenance import provenance
from bench.tenant_stack import TenantStack, tenant_stack

TENANTS: Final = ["calm", "busy", "wide"]
RESTARTS: Final = {
    "server": signal.SIGTERM,
    "worker demo": signal.SIGKILL,
    "router_service": signal.SIGKILL,
}
"""What these parts are sent."""
RESTARTS_AT: Final = 0.2
WARM_SHARE: Final = 0.3
"""Of a life, from its beginning, that is not judged: caches fill, code is compiled."""
LEAST_SAMPLES: Final = 12
LEAST_SHARE: Final = 0.5
"""Lives that are shorter than this part of the soak are shown and not judged."""


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    minutes: Annotated[float, typer.Option(help="How long, restarts included.")] = 25.0,
    tasks: Annotated[int, typer.Option(help="Go on until so many tasks came.")] = 5_000,
    clients: Annotated[int, typer.Option(help="Clients at once.")] = 6,
    every: Annotated[float, typer.Option(help="Seconds between two samples.")] = 5.0,
) -> None:
    """Let tasks come and go under load and restarts; fail if anything grew beyond its tolerance."""
    with tenant_stack(TENANTS, {}, say) as stack:
        sampler = Sampler(stack, every_seconds=every)
        churn = Churn(stack, clients=clients)
        try:
            restarted = _soak(stack, sampler, churn, minutes=minutes, tasks=tasks)
        finally:
            churn.end()
            lives = sampler.end()
        seconds, done = sampler.now, churn.done
    report = {
        **provenance("bench.soak"),
        "seconds": round(seconds),
        "tasks": created(done),
        "calls": dict(sorted(done.items())),
        "restarts": restarted,
        "tolerances": {kind: (each.share, each.least) for kind, each in TOLERANCES.items()},
        **verdict(lives, seconds=seconds),
        "lives": [{"name": e.name, "pid": e.pid, "times": e.times, **e.values} for e in lives],
    }
    out.write_text(json.dumps(report) + "\n")
    say(f"{report['tasks']} tasks in {seconds:.0f} s; grew: {report['grew'] or 'nothing'}")
    if report["grew"]:
        raise typer.Exit(1)


def created(done: Counter[str]) -> int:
    """Return how many tasks came."""
    return sum(done[f"create {status}"] for status in (201, 202))


def verdict(lives: Sequence[Life], *, seconds: float) -> dict[str, Any]:
    """Return what was judged and how, and the names of what grew."""
    rows = []
    for life in lives:
        if not life.times or life.times[-1] - life.times[0] < LEAST_SHARE * seconds:
            continue
        warm = life.after(life.times[0] + WARM_SHARE * (life.times[-1] - life.times[0]))
        if len(warm.times) >= LEAST_SAMPLES:
            rows += [
                {"name": life.name, "pid": life.pid, "kind": kind}
                | judged(kind, warm.times, values)
                for kind, values in warm.values.items()
            ]
    grew = [f"{row['name']}: {row['kind']}" for row in rows if not row["holds"]]
    return {"grew": grew, "judged": rows}


def _soak(
    stack: TenantStack, sampler: Sampler, churn: Churn, *, minutes: float, tasks: int
) -> list[dict[str, Any]]:
    """Wait until it has lasted long enough; return what was restarted, and when."""
    restarted: list[dict[str, Any]] = []
    waiting = dict(RESTARTS)
    while sampler.now < 60 * minutes or created(churn.done) < tasks:
        time.sleep(5)
        if waiting and sampler.now > 60 * minutes * RESTARTS_AT:
            part, signum = waiting.popitem()
            pid = stack.pids()[part]
            os.kill(pid, signum)
            restarted.append(
                {"part": part, "signal": signum.name, "at": round(sampler.now, 1), "pid": pid}
            )
        say(f"{sampler.now:.0f} s: {created(churn.done)} tasks, {dict(churn.done.most_common(4))}")
    if lasted := [each["part"] for each in restarted if stack.pids()[each["part"]] == each["pid"]]:
        raise SystemExit(f"bench: {', '.join(lasted)} did not end")
    return restarted


if __name__ == "__main__":
    typer.run(main)
