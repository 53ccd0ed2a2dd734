"""`python -m bench.readme`: write the figures of README.md from bench/results, and nothing else.

`--check` only compares; a test runs it, so that no number in the README can drift from its file.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench.serving_page import table

RESULTS: Final = Path(__file__).parent / "results"
README: Final = Path(__file__).parents[1] / "README.md"
BLOCK: Final = re.compile(r"(<!-- figures:[^\n]*-->\n).*?(<!-- end of figures -->)", re.DOTALL)

EVAL_ROWS: Final = {
    "full_prompt": "full prompt in context",
    "recipe": "**recipe, no prompt**",
    "none": "no prompt, no recipe",
    "same_family_other_recipe": "recipe of another prompt of the same family",
    "other_recipe": "recipe of another family",
    "mean_recipe": "mean recipe",
    "multitask_lora": "one multi-task LoRA",
}
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
        evaluation(load("demo_eval")),
        free(load("free_prompts")),
        footprint(load("footprint")),
        summary(load("serving_summary")),
        serving(load("serving")),
    ]
    return BLOCK.sub(lambda block: block[1] + "\n".join(parts) + block[2], text)


def load(name: str) -> dict[str, Any]:
    """Return one result file."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return content


def evaluation(results: dict[str, Any]) -> str:
    """Return the accuracy table."""
    shipped = results["shipped"]
    lines = [
        "Accuracy of the shipped checkpoint (`make eval-demo`): greedy exact match on prompts with",
        "values that never occurred in training, in wordings that never occurred, and in families",
        "that never occurred. Recipes are read in one pass and stored as int8.",
        "",
        "| | unseen prompts | unseen wordings | unseen families |",
        "|---|---|---|---|",
    ]
    splits = ("unseen_prompts", "unseen_wordings", "unseen_families")
    for key, label in EVAL_ROWS.items():
        cells = " | ".join(f"{100 * shipped[split][key]:.1f}%" for split in splits)
        lines.append(f"| {label} | {cells} |")
    paper = results["L0"]["unseen_prompts"]["recipe"]
    lines += [
        "",
        f"The paper's own recipe (L0, one pass, same data) reaches {100 * paper:.1f}% on unseen",
        "prompts.",
        "",
        *gate(results["gate"]),
    ]
    return "\n".join(lines)


def gate(splits: dict[str, Any]) -> list[str]:
    """Return the table of what measured and refined tasks get."""
    tasks = ", ".join(str(figures["tasks"]) for figures in splits.values())
    seconds = [
        max(figures[f"{what}_seconds_per_task"] for figures in splits.values())
        for what in ("measure", "refine")
    ]
    rows = {
        "full_prompt": "full prompt in context",
        "recipe": "recipe of one pass",
        "refined": "refined recipe",
        "served": "**as served**",
    }
    lines = [
        "Tasks measured and refined as the server does it, on self-generated probes",
        f"({tasks} tasks; at most {seconds[0]:.1f} s to measure and {seconds[1]:.1f} s to refine a",
        "task, on one core):",
        "",
        "| | unseen prompts | unseen wordings | unseen families |",
        "|---|---|---|---|",
    ]
    for key, label in rows.items():
        cells = " | ".join(f"{100 * figures[key]:.1f}%" for figures in splits.values())
        lines.append(f"| {label} | {cells} |")
    shares = " | ".join(
        f"{100 * (1 - figures['ways'].get('full_prompt', 0) / figures['tasks']):.0f}%"
        for figures in splits.values()
    )
    return [*lines, f"| of these without the prompt | {shares} |", ""]


def free(results: dict[str, Any]) -> str:
    """Return what becomes of prompts that no suite has."""
    rows = results["rows"]
    right = sum(row["right_with_prompt"] for row in rows)
    questions = sum(row["questions"] for row in rows)
    unsure = sum(row["reason"] == "model_unsure" for row in rows)
    return (
        f"Prompts of other kinds: of {results['prompts']} written like real ones (`python -m "
        f"bench.free`), which the toy does not follow\nin context either ({right} of {questions} "
        f"questions right), {results['compiled']} are served compiled and "
        f"{results['compiled_and_wrong']} of these answer a question wrong; {unsure}\nkeep their "
        "prompts because the model is unsure of its own answers under them (`model_unsure`).\n"
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
            "Serving (`make bench`; where it loses, how it is measured and plots:",
            "[results](docs/results.md)):",
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
