"""The section of docs/results.md on how wide a pool has to be for how many families."""

from typing import Any, Final

PARTS: Final = {
    "own": "On unseen prompts of a cell's own families",
    "shared": "On the families that all cells share",
}


def grid(results: dict[str, Any]) -> list[str]:
    """Return the section."""
    settings, cells = results["settings"], results["cells"]
    fewest, most = (pick(cell["families"] for cell in cells) for pick in (min, max))
    return [
        "## Width of the pool and kinds of rules",
        "",
        f"`{results['command']}`",
        "",
        "Each cell is a generator trained from scratch for an edge model of the demo's, the one of",
        f"fingerprint `{results['edge_fingerprint'][:8]}`: so many families",
        f"of rules, a pool of so many rank-one experts, {settings['steps']} steps of "
        f"{settings['rows']} prompts, which are",
        f"rules alone, and {settings['segments']} questions of each. Recipes of one pass, in "
        "percent of what the full prompt gets",
        "right, with 95% intervals over prompts; in brackets the share of right answers.",
        "",
        *(line for part, title in PARTS.items() for line in _table(cells, part, title)),
        *_verdict(cells),
        _controls(cells),
        f"- **Limits**: one seed, {settings['seed']}, and no interval says what another gives. "
        f"All cells have the same few steps: with {most} families each is seen "
        f"{fewest / most:.0%} as often as with {fewest}, so that only widths within a row compare, "
        "and a pool that carries less may be slow to learn rather than full. No tables, no "
        "sentences around rules.",
        "",
    ]


def _table(cells: list[dict[str, Any]], part: str, title: str) -> list[str]:
    widths = sorted({cell["width"] for cell in cells})
    found = {(cell["families"], cell["width"]): cell[part] for cell in cells}
    rows = [
        f"| {families} | {' | '.join(_cell(found.get((families, width))) for width in widths)} |"
        for families in sorted({cell["families"] for cell in cells})
    ]
    prompts = sorted({cell[part]["prompts"] for cell in cells})
    return [
        f"{title} ({' to '.join(map(str, prompts))} prompts, four questions each):",
        "",
        f"| families | {' | '.join(f'{width} experts' for width in widths)} |",
        f"|{'---|' * (len(widths) + 1)}",
        *rows,
        "",
    ]


def _cell(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "not measured"
    low, high = figures["recipe_of_full_prompt_ci95"]
    share = figures["recipe_of_full_prompt"]
    return f"{share:.1%} ({100 * low:.1f} to {100 * high:.1f}) [{figures['recipe']:.1%}]"


def _verdict(cells: list[dict[str, Any]]) -> list[str]:
    """Return, per row, whether the widest pool carries more than the narrowest."""
    lines = []
    for families in sorted({cell["families"] for cell in cells}):
        row = sorted(
            (cell for cell in cells if cell["families"] == families),
            key=lambda cell: int(cell["width"]),
        )
        narrow, wide = row[0], row[-1]
        gap = _gap(narrow["own"], wide["own"])
        lines.append(
            f"- **{families} families**: {narrow['width']} experts reach "
            f"{narrow['own']['recipe_of_full_prompt']:.1%} of the full prompt, {wide['width']} "
            f"reach {wide['own']['recipe_of_full_prompt']:.1%}: {gap}."
        )
    return lines


def _gap(narrow: dict[str, Any], wide: dict[str, Any]) -> str:
    (narrow_low, narrow_high), (wide_low, wide_high) = (
        figures["recipe_of_full_prompt_ci95"] for figures in (narrow, wide)
    )
    if narrow_high < wide_low:
        return "after these steps a narrow pool carries less"
    if wide_high < narrow_low:
        return "after these steps a wide pool carries less"
    return "the intervals overlap, so no difference is shown"


def _controls(cells: list[dict[str, Any]]) -> str:
    def span(system: str) -> str:
        values = [cell["own"][system] for cell in cells]
        return f"{min(values):.1%} to {max(values):.1%}"

    return (
        f"- **Controls**, over all cells: full prompt {span('full_prompt')}, the recipe of another "
        f"prompt of the same family {span('same_family_other_recipe')}, neither prompt nor recipe "
        f"{span('none')}."
    )
