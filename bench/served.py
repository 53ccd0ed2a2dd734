"""`python -m bench.served`: the demo's checkpoint through the running server, beside in process.

The tasks and questions of `make eval-demo`, the first of each family, are registered and asked over
HTTP: with the recipe of one pass and no prompt, and with the prompt in context. In process the same
questions are scored as that evaluation does. Compiles are timed one after the other, from the
request to the task; so is refining, from the request until the task says that it is done.
"""

import json
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import numpy as np
import torch
import typer
import yaml

from bench.progress import say
from bench.provenance import provenance
from bench.tenant_stack import ROOT, TenantStack, tenant_stack
from loragen.recipe import Level
from loragen.suite.splits import Split
from loragen.suite.tenants import TENANTS
from loragen.training.batches import Row
from loragen.training.checkpoint import Layout
from loragen.training.evaluation import SPLITS, Evaluator
from loragen.training.questions import question_rows
from loragen.training.resampling import interval

TENANT: Final = "bench"
CLIENTS: Final = 8
MODES: Final = {"recipe": "compiled", "full_prompt": "prompt"}
_PATIENCE: Final = 120.0


@dataclass(frozen=True, slots=True)
class Registered:
    """A task at the server, what it is asked, and the seconds that its compile took."""

    id: str
    row: Row
    seconds: float
    recipe_bytes: int


class Client:
    """A client of the running stack."""

    def __init__(self, stack: TenantStack) -> None:
        self._http = httpx.Client(
            base_url=stack.url, headers=stack.headers(TENANT), timeout=_PATIENCE
        )

    def register(self, row: Row) -> Registered:
        """Register a prompt whose recipe serves whatever it is worth."""
        body = {"model": "demo", "system_prompt": row.prompt, "min_fidelity": 0}
        started = time.perf_counter()
        task = self._checked("POST", "/v1/tasks", body)
        seconds = time.perf_counter() - started
        if task["status"] != "ready":
            raise RuntimeError(f"not compiled: {task['fallback_reason']}")
        return Registered(str(task["id"]), row, seconds, int(task["recipe"]["bytes"]))

    def hits(self, task: Registered, mode: str) -> list[bool]:
        """Return which of a task's questions are answered right, word for word."""
        return [
            self._answer(task.id, turn.question, mode) == turn.answer
            for (turn,) in task.row.segments
        ]

    def refine(self, task: Registered) -> float:
        """Refine a task and return the seconds until it is known what came of it."""
        started = time.perf_counter()
        self._checked("POST", f"/v1/tasks/{task.id}/refine", {})
        while time.perf_counter() - started < _PATIENCE:
            found = self._checked("GET", f"/v1/tasks/{task.id}", None)["refine"]
            if found["status"] in ("done", "kept"):  # kept: the refined recipe is no better
                return time.perf_counter() - started
            if found["status"] == "failed":
                raise RuntimeError(f"refine failed: {found}")
            time.sleep(0.05)
        raise RuntimeError("a refine took too long")

    def _answer(self, task_id: str, question: str, mode: str) -> str | None:
        body = {
            "model": "demo",
            "messages": [{"role": "user", "content": question}],
            "task_id": task_id,
            "temperature": 0,
            "max_tokens": 64,
            "loragen": {"mode": mode},
        }
        choice = self._checked("POST", "/v1/chat/completions", body)["choices"][0]
        content: str | None = choice["message"]["content"]
        return content if choice["finish_reason"] == "stop" else None

    def _checked(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        reply = self._http.request(method, path, json=body)
        if reply.is_error:
            raise RuntimeError(reply.text)
        content: dict[str, Any] = reply.json()
        return content


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    tasks: Annotated[int, typer.Option(help="Tasks per split, at least.", min=120)] = 120,
    refined: Annotated[int, typer.Option(help="Tasks to time a refine with.", min=1)] = 20,
) -> None:
    """Ask the running server what `make eval-demo` asks in process."""
    layout = Layout(ROOT / "checkpoints" / "demo")
    (model,) = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text("utf-8"))["edge_models"]
    evaluator = Evaluator(layout, Level.DENSE, TENANTS)
    report: dict[str, Any] = {**provenance("bench.served"), "splits": {}}
    with tenant_stack([TENANT], model, say) as stack:
        client = Client(stack)
        client.register(_rows(Split.TRAIN, 1)[0])  # the first one loads what the others find
        everyone: list[Registered] = []
        for split in SPLITS:
            prompts = TENANTS.prompts_per_family(split, tasks)
            registered = [client.register(row) for row in _rows(split, prompts)]
            say(f"{split}: {len(registered)} tasks registered")
            everyone += registered
            report["splits"][str(split)] = {
                "tasks": len(registered),
                "served": _served(client, registered),
                "in_process": _in_process(evaluator, split, prompts),
            }
        report["compile_ms"] = _quantiles([1_000 * task.seconds for task in everyone])
        report["recipe_bytes"] = statistics.fmean(task.recipe_bytes for task in everyone)
        client.refine(everyone.pop())  # the first one loads the refiner
        step = max(1, len(everyone) // refined)
        report["refine_seconds"] = _quantiles(
            [client.refine(task) for task in everyone[::step][:refined]]
        )
    out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    say(json.dumps(report["splits"]))


def _rows(split: Split, prompts: int) -> list[Row]:
    return [
        row
        for family in TENANTS.families(split)
        for row in question_rows(
            family, split, [TENANTS.draw(family, split, index) for index in range(prompts)]
        )
    ]


def _served(client: Client, tasks: Sequence[Registered]) -> dict[str, Any]:
    """Return the share of right answers by the way a task is served, with 95 % intervals."""
    shares: dict[str, Any] = {}
    with ThreadPoolExecutor(CLIENTS) as pool:
        for way, mode in MODES.items():
            hits = list(pool.map(lambda task, mode=mode: client.hits(task, mode), tasks))
            means = [statistics.fmean(each) for each in hits]
            shares[way] = round(statistics.fmean(means), 4)
            shares[f"{way}_ci95"] = interval(torch.tensor(means))
    return shares


def _in_process(evaluator: Evaluator, split: Split, prompts: int) -> dict[str, Any]:
    figures = evaluator.score(split, prompts)
    return {
        key: value
        for way in MODES
        for key, value in ((way, figures[way]), (f"{way}_ci95", figures["ci95"][way]))
    }


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2), "of": len(values)}


if __name__ == "__main__":
    typer.run(main)
