"""Queries: the PromQL of the dashboard and of the rule files, ready for Prometheus."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

COMPONENT: Final = Path(__file__).parents[1] / "components" / "monitoring"
DASHBOARD: Final = COMPONENT / "dashboards" / "loragen.json"
RULE_FILES: Final = tuple(COMPONENT / "rules" / name for name in ("recording.yaml", "alerts.yaml"))

_VARIABLES: Final[Mapping[str, str]] = {"$model": ".*", "$__rate_interval": "1m"}


def rules() -> list[dict[str, Any]]:
    """Return all recording and alert rules."""
    return [
        rule
        for file in RULE_FILES
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


def panel_queries(variables: Mapping[str, str] = _VARIABLES) -> Iterator[tuple[str, str]]:
    """Yield the title and an expression of every panel, its variables filled in."""
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            expr: str = target["expr"]
            for name, value in variables.items():
                expr = expr.replace(name, value)
            yield panel["title"], expr
