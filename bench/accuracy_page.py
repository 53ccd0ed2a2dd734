"""What README.md and docs/results.md say of the accuracy of recipes."""

from typing import Any, Final

SPLITS: Final = ("unseen_prompts", "unseen_wordings", "unseen_families")
SYSTEMS: Final = {
    "full_prompt": "full prompt in context",
    "recipe": "**recipe of one pass, no prompt**",
    "none": "no prompt, no recipe",
    "same_family_other_recipe": "recipe of another prompt of the same family",
    "other_recipe": "recipe of another family",
    "mean_recipe": "mean recipe",
    "multitask_lora": "one multi-task LoRA",
}
WAYS: Final = {
    "full_prompt": "full prompt in context",
    "recipe": "recipe of one pass",
    "refined": "refined recipe",
    "served": "**as served**",
}
STARTS: Final = {
    "recipe": "recipe of one pass, not refined",
    "refined": "refined, from the recipe",
    "refined_from_zeros": "refined, from zeros",
}
_HEAD: Final = ("| | unseen prompts | unseen wordings | unseen families |", "|---|---|---|---|")


def demo(results: dict[str, Any]) -> list[str]:
    """Return the section on the demo's checkpoint."""
    shipped = results["shipped"]
    return [
        "## Accuracy of the demo's checkpoint",
        "",
        *_measured(results),
        *systems(shipped, with_intervals=True),
        "",
        *_parts(shipped["unseen_prompts"]),
        "",
        *(gate(results["gate"]) if "gate" in results else ()),
    ]


def small(results: dict[str, Any]) -> list[str]:
    """Return the section on the small checkpoint, which has a generator of the paper's too."""
    paper = results["L0"]["unseen_prompts"]["recipe"]
    return [
        "## Accuracy of the small checkpoint",
        "",
        *_measured(results),
        *systems(results["shipped"], with_intervals=True),
        "",
        f"The paper's own recipe (L0, one pass, same data) reaches {100 * paper:.1f}% on unseen",
        "prompts.",
        "",
        *gate(results["gate"]),
    ]


def systems(shipped: dict[str, Any], *, with_intervals: bool = False) -> list[str]:
    """Return the table of a generator and its controls."""

    def cell(split: dict[str, Any], key: str) -> str:
        interval = f" {_range(split['ci95'][key])}" if with_intervals else ""
        return f"{100 * split[key]:.1f}%{interval}"

    rows = (
        f"| {label} | {' | '.join(cell(shipped[split], key) for split in SPLITS)} |"
        for key, label in SYSTEMS.items()
    )
    return [*_HEAD, *rows]


def gate(splits: dict[str, Any]) -> list[str]:
    """Return the table of what measured and refined tasks get."""
    tasks = ", ".join(str(figures["tasks"]) for figures in splits.values())
    seconds = [
        max(figures[f"{what}_seconds_per_task"] for figures in splits.values())
        for what in ("measure", "refine")
    ]
    rows = (
        f"| {label} | {' | '.join(f'{100 * part[key]:.1f}%' for part in splits.values())} |"
        for key, label in WAYS.items()
    )
    shares = " | ".join(_compiled(figures) for figures in splits.values())
    return [
        "Tasks measured and refined as the server does it, on self-generated probes",
        f"({tasks} tasks; at most {seconds[0]:.1f} s to measure and {seconds[1]:.1f} s to refine a",
        "task, on one core):",
        "",
        *_HEAD,
        *rows,
        f"| of these without the prompt | {shares} |",
        "",
    ]


def _compiled(figures: dict[str, Any]) -> str:
    """Return the share of tasks that are served without the prompt."""
    share = f"{100 * (1 - figures['ways'].get('full_prompt', 0) / figures['tasks']):.0f}%"
    if "compiled_share_ci95" not in figures:  # written by an older version
        return share
    low, high = figures["compiled_share_ci95"]
    return f"{share} ({100 * low:.0f} to {100 * high:.0f})"


def refining(results: dict[str, Any]) -> list[str]:
    """Return the section on what fitting one task's gates brings, and on how long it takes."""
    own, full = results["bootstrap"], results["full_prompt"]
    return [
        "",
        "## Refining the demo's tasks",
        "",
        f"`{results['command']}`",
        "",
        f"{results['tasks']} unseen prompts, of all seen families; gates fitted on a client's",
        f"messages, scored on others. Full prompt in context {_share(full)}; CPU seconds of one",
        "core by task, in batches of 32 and alone.",
        "",
        "| | right | of full prompt | worst family, of full prompt | s in a batch | s alone |",
        "|---|---|---|---|---|---|",
        *(_start(label, results[key], full) for key, label in STARTS.items()),
        "",
        f"On a pool of {own['columns']} of the edge model's own singular directions, without any",
        f"generator, gates fitted from zeros in rounds of {own['steps']} steps, {own['rounds']} at",
        f"most, reach {_share(own)} on the {own['tasks']} tasks whose prompt makes 20 points",
        f"or more of a difference: {_share(own, 'of_full_prompt')} of the full prompt's",
        f"{100 * own['full_prompt']:.1f}%, in {own['cpu_seconds_per_task']:.1f} s in a batch and",
        f"{own['cpu_seconds_alone'][1]:.1f} s",
        f"alone at most. A recipe is {own['recipe_bytes']:,} bytes of base64.",
        "",
    ]


def _start(label: str, part: dict[str, Any], full: dict[str, Any]) -> str:
    """Return the row of a start. Families that the prompt itself does not decide are left out."""
    shares = {
        family: part["per_family"][family] / right
        for family, right in full["per_family"].items()
        if right > 0
    }
    worst = min(shares, key=lambda family: shares[family])
    seconds = (
        [f"{part['cpu_seconds_per_task']:.1f}", f"{part['cpu_seconds_alone'][1]:.1f}"]
        if "cpu_seconds_per_task" in part
        else ["", ""]
    )
    cells = [
        label,
        _share(part),
        _share(part, "of_full_prompt"),
        f"{worst} {100 * shares[worst]:.0f}%",
        *seconds,
    ]
    return f"| {' | '.join(cells)} |"


def _measured(results: dict[str, Any]) -> list[str]:
    """Return what was asked of what, by which command."""
    tasks = ", ".join(str(results["shipped"][split]["prompts"]) for split in SPLITS)
    return [
        f"`{results['command']}`",
        "",
        f"{tasks} tasks, four questions each; a generator of one seed. Greedy exact match, with",
        "95 % intervals over tasks. Recipes are read in one pass and stored as int8.",
        "",
    ]


def _parts(split: dict[str, Any]) -> list[str]:
    lines = [
        "On unseen prompts, by kind of rule:",
        "",
        "| | tasks | full prompt | recipe | recipe of full prompt |",
        "|---|---|---|---|---|",
        _part("rules without a table", split["others"]),
        _part("tables", split["tables"]),
    ]
    for rows, part in split["tables_by_rows"].items():
        lines.append(_part(f"tables of {rows} rows", part))
    return lines


def _part(label: str, part: dict[str, Any]) -> str:
    ratio, interval = part["recipe_of_full_prompt"], part["recipe_of_full_prompt_ci95"]
    shares = [f"{100 * part[key]:.1f}%" for key in ("full_prompt", "recipe")]
    return (
        f"| {label} | {part['prompts']} | {' | '.join(shares)} "
        f"| {100 * ratio:.1f}% {_range(interval)} |"
    )


def _share(part: dict[str, Any], key: str = "mean") -> str:
    interval = part["ci95" if key == "mean" else f"{key}_ci95"]
    return f"{100 * part[key]:.1f}% {_range(interval)}"


def _range(interval: list[float]) -> str:
    low, high = interval
    return f"({100 * low:.1f} to {100 * high:.1f})"
