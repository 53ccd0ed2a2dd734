"""`python -m bench.readme`: write the figures of README.md from bench/results, and nothing else.

`--check` only compares; a test runs it, so that no number in the README can drift from its file.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench.accuracy_page import gate, systems
from bench.serving_page import table

FREE: Final = ("free_prompts", "more_free_prompts", "later_free_prompts")
RESULTS: Final = Path(__file__).parent / "results"
README: Final = Path(__file__).parents[1] / "README.md"
BLOCK: Final = re.compile(r"(<!-- figures:[^\n]*-->\n).*?(<!-- end of figures -->)", re.DOTALL)

CASES: Final = {
    "bare": "bare engine, no prompt",
    "gate_none": "gate-space worker, requests without a task",
    "gate_1_task": "gate-space, 1 task in the batch",
    "gate_32_tasks": "gate-space, 32 tasks in the batch",
    "gate_new_tasks": "gate-space, 32 tasks never seen before",
    "prompt_1_task_cached": "full prompt, 1 task, prefix cache warm",
    "prompt_new_tasks": "full prompt, 32 tasks, not in the prefix cache",
}


def main(
    check: Annotated[bool, typer.Option("--check", help="Compare, write nothing.")] = False,
) -> None:
    """Bring the figures of README.md up to date."""
    text = README.read_text("utf-8")
    wanted = render(text)
    if check:
        raise typer.Exit(int(text != wanted))
    README.write_text(wanted, "utf-8")


def render(text: str) -> str:
    """Return the README with the figures of the results."""
    parts = [
        evaluation(load("demo_eval"), load("small_eval")),
        served(load("served")),
        free([load(name) for name in FREE]),
        footprint(load("footprint")),
        summary(load("serving_summary")),
        serving(load("serving")),
    ]
    return BLOCK.sub(lambda block: block[1] + "\n".join(parts) + block[2], text)


def load(name: str) -> dict[str, Any]:
    """Return one result file."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return content


def evaluation(results: dict[str, Any], small: dict[str, Any]) -> str:
    """Return the accuracy tables of the demo's checkpoint, and the paper's recipe on the small."""
    ours, paper = (small[key]["unseen_prompts"]["recipe"] for key in ("shipped", "L0"))
    lines = [
        "Accuracy of the demo's checkpoint (`make eval-demo`; intervals, tables by rows and the",
        "small checkpoint: [results](docs/results.md)): greedy exact match on prompts with values",
        "that never occurred in training, in wordings that never occurred, and in families that",
        "never occurred. Recipes are stored as int8.",
        "",
        *systems(results["shipped"]),
        "",
        *(gate(results["gate"]) if "gate" in results else ()),
        "The paper's own recipe (L0, one pass) was trained for the small checkpoint alone: there",
        f"it reaches {100 * paper:.1f}% on unseen prompts, ours {100 * ours:.1f}%.",
        "",
    ]
    return "\n".join(lines)


def served(results: dict[str, Any]) -> str:
    """Return what the running server does with the same tasks, and how long it takes."""
    pairs = [
        f"{100 * part['served'][way]:.1f}% ({100 * part['in_process'][way]:.1f}%)"
        for part in results["splits"].values()
        for way in ("full_prompt", "recipe")
    ]
    tasks = ", ".join(str(part["tasks"]) for part in results["splits"].values())
    compiled, refined = results["compile_ms"], results["refine_seconds"]
    return "\n".join(
        [
            f"Through the running server (`python -m bench.served`), {tasks} of the tasks of the",
            "first table; in brackets the same questions in process:",
            "",
            "| | unseen prompts | unseen wordings | unseen families |",
            "|---|---|---|---|",
            f"| full prompt in context | {' | '.join(pairs[0::2])} |",
            f"| recipe of one pass | {' | '.join(pairs[1::2])} |",
            "",
            f"A recipe has {results['recipe_bytes']:.0f} bytes. From `POST /v1/tasks` to the "
            "compiled task it takes",
            f"{compiled['p50']:.0f} ms, and {compiled['p95']:.0f} ms at most for 95 of 100 "
            f"({compiled['of']} tasks); a refine takes",
            f"{refined['p50']:.1f} s and {refined['p95']:.1f} s ({refined['of']} tasks), one after "
            "the other on two cores.",
            "",
        ]
    )


def free(sets: Sequence[dict[str, Any]]) -> str:
    """Return what becomes of prompts that no suite has; the last were written after the bars."""
    rows = [row for results in sets for row in results["rows"]]
    compiled = [row for row in rows if row["mode"] == "compiled"]
    wrong = sum(row["right"] < row["questions"] for row in compiled)
    right = sum(row["right_with_prompt"] for row in rows)
    questions = sum(row["questions"] for row in rows)
    unsure = sum(row["reason"] == "model_unsure" for row in rows)
    last = sets[-1]
    return (
        f"**The toy does not follow prompts like yours.** Of {len(rows)} written like real ones "
        "(`python -m bench.free`)\nit answers, with the prompt in context, "
        f"{right} of {questions} questions right. A server must notice: this\n"
        f"one kept {len(rows) - len(compiled)} of these prompts in context ({unsure} because the "
        "model is unsure of its own answers\nunder them, `model_unsure`). Served by a recipe: "
        f"{len(compiled)}; with a question answered wrong: {wrong}. Of\nthe last "
        f"{last['prompts']}, written after the gate's bars were set: {last['compiled']} "
        f"and {last['compiled_and_wrong']}.\n"
    )


def footprint(results: dict[str, Any]) -> str:
    """Return the sentence on memory."""
    return (
        f"A task costs {results['recipe_bytes_per_task']:.0f} bytes of recipe and "
        f"{results['other_bytes_per_task']:.0f} bytes of everything else in Redis, its prompt "
        f"apart\n(`MEMORY USAGE`, {results['tasks']} tasks, `python -m bench.footprint`).\n"
    )


def summary(results: dict[str, Any]) -> str:
    """Return the eight figures of serving."""
    return "\n".join(
        [
            "Serving (what `make bench` measures; where it loses, the commands of these runs and",
            "plots: [results](docs/results.md)):",
            "",
            *table(results),
            "",
        ]
    )


def serving(results: dict[str, Any]) -> str:
    """Return the serving table."""
    protocol, model = results["protocol"], results["model"]
    lines = [
        f"Waves (`python -m bench.serving`): {protocol['batch']} concurrent requests of "
        f"{protocol['max_tokens']} tokens on {results['machine']['cpus']} CPU cores, a random "
        "Llama of",
        f"width {model['hidden']} and {model['layers']} layers, prompts of "
        f"{protocol['prompt_tokens']} tokens, ratios to the bare engine paired within "
        f"{protocol['rounds']} rounds",
        "(median, 95% interval; a shared, noisy machine). CPU only: nothing here says how a GPU",
        "behaves.",
        "",
        "| | throughput | time to first token |",
        "|---|---|---|",
    ]
    for case, label in CASES.items():
        figures = results["ratios"][case]
        cells = " | ".join(
            f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
            for ratio in (figures["throughput_over_bare"], figures["first_token_over_bare"])
        )
        lines.append(f"| {label} | {cells} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    typer.run(main)
