"""`python -m bench.free`: how prompts like real tenants' fare, which no suite has.

Each prompt of `free_prompts.json` comes with questions and what a right answer contains; those of
`more_free_prompts.json` and `later_free_prompts.json` were written apart, one after the other, to
hold against them what the ones before led to. Each is compiled, measured and refined as the server
would, and answered by the gate's choice and with the prompt in context.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from transformers import AutoTokenizer

from loragen.errors import LoragenError
from loragen.method.edge import EdgeModel
from loragen.method.gatespace import stack_gates
from loragen.method.generator import Generator
from loragen.method.pool import Pool
from loragen.method.refine import RefineSpec
from loragen.recipe import Level, Recipe
from loragen.training.batches import Renderer
from loragen.training.checkpoint import Layout
from loragen.training.gate_evaluation import load_refiner
from loragen.training.gated import DEMO_GATE, Choice, choose

PROMPTS: Final = Path(__file__).parent / "free_prompts.json"


class Desk:
    """Where a prompt is compiled, measured, refined and asked."""

    def __init__(self, layout: Layout) -> None:
        folder = layout.generator(Level.DENSE)
        self._generator = Generator.load(folder)
        self._pool = Pool.load(folder / "pool.safetensors")
        self._edge = EdgeModel.load(layout.edge, self._pool)
        self._renderer = Renderer(AutoTokenizer.from_pretrained(layout.edge))
        self._refiner = load_refiner(layout, RefineSpec())

    def choose(self, prompt: str) -> Choice:
        """Return what serves a prompt, and what was measured.

        Raises:
            LoragenError: it cannot be compiled.
        """
        (recipe,) = self._generator.compile([prompt])
        return choose(self._refiner, prompt, recipe, DEMO_GATE)

    def answer(self, questions: Sequence[str], prompt: str, recipe: Recipe | None) -> list[str]:
        """Return greedy answers under a recipe, or with the prompt in context."""
        system = [{"role": "system", "content": prompt}] if recipe is None else []
        chats = [[*system, {"role": "user", "content": question}] for question in questions]
        ids = self._renderer.encode([self._renderer.template.render(chat) for chat in chats])
        gates = None
        if recipe is not None:
            gates = stack_gates([recipe] * len(questions), self._pool.id, self._pool.spec)
        decode = self._renderer.tokenizer.decode
        return [str(decode(answer)) for answer in self._edge.generate(ids, gates)]


def ask(desk: Desk, entry: dict[str, Any]) -> dict[str, Any]:
    """Return how one prompt fares."""
    prompt, asks = entry["system_prompt"], entry["asks"]
    questions = [each["question"] for each in asks]
    reason: str | None
    try:
        choice = desk.choose(prompt)
        reason = choice.refusal if choice.first is not None else "not_measured"
    except LoragenError as error:
        choice, reason = Choice(None, None), error.code
    recipe, first, second = choice.recipe, choice.first, choice.second
    served = desk.answer(questions, prompt, recipe)
    prompted = desk.answer(questions, prompt, None)
    return {
        "kind": entry["kind"],
        "mode": "prompt" if recipe is None else "compiled",
        "is_one_pass": choice.is_one_pass,
        "reason": reason,
        "fidelity": first and first.score,
        "doubt": first and first.doubt,
        "refined": second and second.score,
        "right": sum(each["right"] in said for each, said in zip(asks, served, strict=True)),
        "right_with_prompt": sum(
            each["right"] in said for each, said in zip(asks, prompted, strict=True)
        ),
        "same_as_with_prompt": sum(a == b for a, b in zip(served, prompted, strict=True)),
        "questions": len(asks),
    }


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder.")] = Path("checkpoints/demo"),
    prompts: Annotated[Path, typer.Option(help="JSON file of prompts and questions.")] = PROMPTS,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Ask every prompt its questions and count."""
    torch.set_num_threads(threads)
    desk = Desk(Layout(checkpoint))
    entries = json.loads(prompts.read_text("utf-8"))["prompts"]
    rows = []
    for number, entry in enumerate(entries, start=1):
        rows.append(ask(desk, entry))
        typer.echo(f"free: {number} of {len(entries)}, {rows[-1]['mode']}", err=True)
    compiled = [row for row in rows if row["mode"] == "compiled"]
    report = {
        "command": " ".join(["python -m bench.free", *sys.argv[1:]]),
        "prompts": len(rows),
        "compiled": len(compiled),
        "compiled_and_wrong": sum(row["right"] < row["questions"] for row in compiled),
        "rows": rows,
    }
    out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
