"""`python -m bench.shadowing`: what clients notice of live messages that measure their task again.

Two tenants have the same task; one lets live messages measure it (ADR 0021), the other does not.
Both ask one question after the other, in pairs of halves that alternate: seconds of whole answers,
on the real stack of the small checkpoint. On a machine that does other work the figures are that
work's.
"""

import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final

import httpx
import typer
from prometheus_client.parser import text_string_to_metric_families

from bench.paired import quantile_differences
from bench.progress import say
from bench.tenant_stack import TenantStack, tenant_stack
from loragen.suite.identities import SIGNOFF
from loragen.suite.small import SMALL
from loragen.suite.splits import Prompt, Split

SAMPLED, UNSAMPLED = "sampled", "unsampled"
_SETTLE_SECONDS: Final = 2.0
"""Before each half, for measures of the one before to end."""


class Asking:
    """The clients of both tenants, and what they saw."""

    def __init__(self, stack: TenantStack, prompt: Prompt, questions: int) -> None:
        self._stack = stack
        self._prompt = prompt
        self._questions = questions
        self._chance = Random(0)
        self.modes: Counter[str] = Counter()
        self._client = httpx.Client(base_url=stack.url, timeout=120)
        self._tasks = {
            tenant: self._create(tenant, policy)
            for tenant, policy in ((SAMPLED, "allow"), (UNSAMPLED, "never"))
        }

    def half(self, tenant: str) -> list[float]:
        """Return the seconds of each answer to a tenant."""
        time.sleep(_SETTLE_SECONDS)
        return [self._ask(tenant) for _ in range(self._questions)]

    def metric(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """Yield labels and value of a metric's samples at the gateway."""
        text = self._client.get("/metrics").raise_for_status().text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name:
                    yield sample.labels, sample.value

    def _create(self, tenant: str, policy: str) -> str:
        body = {
            "model": "demo",
            "system_prompt": self._prompt.text,
            "policy": {"shadow": policy, "refine": "manual"},
        }
        reply = self._client.post("/v1/tasks", json=body, headers=self._stack.headers(tenant))
        return str(reply.raise_for_status().json()["id"])

    def _ask(self, tenant: str) -> float:
        body = {
            "model": "demo",
            "task_id": self._tasks[tenant],
            "messages": [{"role": "user", "content": self._prompt.ask(self._chance).question}],
            "temperature": 0,
        }
        started = time.perf_counter()
        reply = self._client.post(
            "/v1/chat/completions", json=body, headers=self._stack.headers(tenant)
        ).raise_for_status()
        took = time.perf_counter() - started
        self.modes[reply.headers["x-loragen-mode"]] += 1
        return took


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    pairs: Annotated[int, typer.Option(help="Pairs of a time with shadowing and one without.")] = 9,
    questions: Annotated[int, typer.Option(help="Questions in each half of a pair.")] = 120,
    per_minute: Annotated[int, typer.Option(help="Budget (shadow.per_minute).")] = 30,
    messages: Annotated[int, typer.Option(help="Messages of a measure (shadow.messages).")] = 16,
) -> None:
    """Measure what clients notice of live messages that measure their task."""
    settings: dict[str, Any] = {
        "server": {"measure": True},
        "shadow": {"share": 1.0, "per_minute": per_minute, "messages": messages},
    }
    prompt = SMALL.draw(SIGNOFF, Split.UNSEEN_PROMPTS, 0)  # a family whose recipes pass
    with tenant_stack([SAMPLED, UNSAMPLED], {}, say, settings) as stack:
        asking = Asking(stack, prompt, questions)
        asking.half(UNSAMPLED)  # warms up
        started = time.monotonic()
        sides = [_pair(asking, number, pairs) for number in range(pairs)]
        minutes = (time.monotonic() - started) / 60
        taken = _by_outcome(asking)
        measures = dict(_measures(asking))
    report = {
        "command": " ".join(["python -m bench.shadowing", *sys.argv[1:]]),
        "machine": {
            "cpus": os.cpu_count(),
            "platform": platform.platform(),
            "load": os.getloadavg(),
        },
        "stack": "gateway, Redis, router service and worker: all real, the small checkpoint",
        "protocol": {"pairs": pairs, "questions": questions, **settings["shadow"]},
        "answer_p50": quantile_differences(sides, 0.5),
        "answer_p99": quantile_differences(sides, 0.99),
        "modes": dict(asking.modes),
        "budget": {
            "minutes": round(minutes, 2),
            "messages": taken,
            "holds": taken.get("taken", 0) <= per_minute * (int(minutes) + 2),
        },
        "measures": measures,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    say(json.dumps({name: report[name] for name in ("answer_p99", "modes", "budget", "measures")}))


def _pair(asking: Asking, number: int, pairs: int) -> tuple[list[float], list[float]]:
    """Return the seconds of answers without and with shadowing; which half is first alternates."""
    order = (UNSAMPLED, SAMPLED) if number % 2 else (SAMPLED, UNSAMPLED)
    halves = {tenant: asking.half(tenant) for tenant in order}
    say(f"pair {number + 1}/{pairs}")
    return halves[UNSAMPLED], halves[SAMPLED]


def _by_outcome(asking: Asking) -> dict[str, int]:
    samples = asking.metric("loragen_shadow_messages_total")
    return {labels["outcome"]: int(value) for labels, value in samples}


def _measures(asking: Asking) -> Iterator[tuple[str, int]]:
    for labels, value in asking.metric("loragen_measures_total"):
        yield "/".join(labels.values()), int(value)


if __name__ == "__main__":
    typer.run(main)
