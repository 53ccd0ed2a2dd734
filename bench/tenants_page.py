"""The section of docs/results.md on recipes of the tenants suite."""

from typing import Any, Final

SYSTEMS: Final = {
    "full_prompt": "full prompt in context",
    "recipe": "recipe of one pass",
    "same_family_other_recipe": "recipe of a prompt of the same family",
    "other_recipe": "recipe of a prompt of another family",
    "mean_recipe": "mean recipe",
    "multitask_lora": "one LoRA for all prompts",
    "none": "no prompt",
}
SPLITS: Final = ("unseen_prompts", "unseen_wordings", "unseen_families")


def tenants(results: dict[str, Any]) -> list[str]:
    """Return the section on recipes of the tenants suite."""
    shipped = results["shipped"]
    tasks = ", ".join(str(shipped[split]["prompts"]) for split in SPLITS)
    lines = [
        "## Recipes of the tenants suite",
        "",
        f"`{results['command']}`",
        "",
        f"The checkpoint in `checkpoints/tenants`, {tasks} tasks, four questions each; one seed. "
        "Greedy exact match,",
        "with 95 % intervals over tasks. Recipes are read in one pass and stored as int8.",
        "",
        "| | unseen prompts | unseen wordings | unseen families |",
        "|---|---|---|---|",
    ]
    for key, label in SYSTEMS.items():
        cells = [_cell(shipped[split][key], shipped[split]["ci95"][key]) for split in SPLITS]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", *_parts(shipped["unseen_prompts"]), ""]
    return lines


def _parts(split: dict[str, Any]) -> list[str]:
    lines = [
        "On unseen prompts, by kind of rule:",
        "",
        "| | tasks | full prompt | recipe | recipe of full prompt |",
        "|---|---|---|---|---|",
        _row("rules without a table", split["others"]),
        _row("tables", split["tables"]),
    ]
    for rows, part in split["tables_by_rows"].items():
        lines.append(_row(f"tables of {rows} rows", part))
    return lines


def _row(label: str, part: dict[str, Any]) -> str:
    share = _cell(part["recipe_of_full_prompt"], part["recipe_of_full_prompt_ci95"])
    shares = [f"{100 * part[key]:.1f}%" for key in ("full_prompt", "recipe")]
    return f"| {label} | {part['prompts']} | {' | '.join(shares)} | {share} |"


def _cell(share: float, interval: list[float]) -> str:
    low, high = interval
    return f"{100 * share:.1f}% ({100 * low:.1f} to {100 * high:.1f})"
