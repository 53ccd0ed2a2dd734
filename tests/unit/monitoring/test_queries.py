"""Rules and dashboard ask for metrics and labels that exist; every alert says what to do."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import promql_parser
import pytest

from k8s.monitoring.dashboard import dashboard_json
from k8s.monitoring.metrics_page import declared, series
from k8s.monitoring.queries import DASHBOARD, panel_queries, rules
from loragen.task import FallbackReason

RULES = rules()
RECORDED = {rule["record"]: rule for rule in RULES if "record" in rule}
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
EXPRESSIONS = [
    *((rule.get("record") or rule["alert"], rule["expr"]) for rule in RULES),
    *panel_queries(),
]
FOREIGN = {
    "ray_serve_deployment_queued_queries",
    "ray_serve_deployment_replica_healthy",
    "up",
    "vllm:generation_tokens_total",
    "vllm:kv_cache_usage_perc",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:prompt_tokens_total",
}
LABELS = {
    *(label for metric in declared().values() for label in metric._labelnames),
    *("application", "deployment", "instance", "job", "le", "model_name"),
}
OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"

each_query = pytest.mark.parametrize(("title", "expr"), EXPRESSIONS)


def nodes(expr: str) -> list[promql_parser.Expr]:
    """Return every part of an expression, which must parse."""
    found: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(expr), found.append)
    return found


def selectors(expr: str) -> Iterator[promql_parser.VectorSelector]:
    return (node for node in nodes(expr) if isinstance(node, promql_parser.VectorSelector))


@each_query
def test_every_metric_is_declared_recorded_or_known_of_a_neighbour(title: str, expr: str) -> None:
    assert {each.name for each in selectors(expr)} <= series() | set(RECORDED) | FOREIGN


@each_query
def test_every_label_is_one_that_a_metric_has(title: str, expr: str) -> None:
    compared = {each.name for found in selectors(expr) for each in found.matchers.matchers}
    grouped = {
        label
        for node in nodes(expr)
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier
        for label in node.modifier.labels
    }
    assert compared | grouped <= LABELS


@each_query
def test_every_compared_reason_exists(title: str, expr: str) -> None:
    for found in selectors(expr):
        for each in found.matchers.matchers:
            for pattern in each.value.split("|") if each.name == "reason" else ():
                assert any(re.fullmatch(pattern, reason) for reason in get_args(FallbackReason))


def test_recorded_names_have_their_prefix_and_their_window() -> None:
    for name, rule in RECORDED.items():
        assert re.fullmatch(r"loragen:[a-z0-9_]+:(rate|ratio|increase|p99)_5m", name)
        assert "[5m]" in rule["expr"] or "_5m" in rule["expr"]


@pytest.mark.parametrize("rule", ALERTS.values(), ids=ALERTS)
def test_an_alert_says_how_bad_what_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Loragen")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    page, anchor = rule["annotations"]["runbook"].split("#")
    assert (page, anchor) == ("docs/operations.md", rule["alert"].lower())
    assert f"\n### {rule['alert']}\n" in OPERATIONS.read_text(encoding="utf-8")


def test_the_dashboard_is_current() -> None:
    assert DASHBOARD.read_text(encoding="utf-8") == dashboard_json(), (
        "run `python -m k8s.monitoring`"
    )
