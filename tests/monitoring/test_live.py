"""The shipped rules and the shipped dashboard on the real stack under load.

Three things are broken for real, one after the other; each raises its alert. Nobody mends them:
what was killed is started again, what was lost is compiled again, and the alerts clear.
"""

from collections.abc import Callable

import pytest

from k8s.monitoring.queries import panel_queries, rules
from tests.e2e.stack import MODEL, Stack, wait_until
from tests.monitoring.prometheus import Prometheus, faster

EMPTIED = {"LoragenRecipeCacheEmptied"}
BROKEN = {"LoragenGeneratorBroken"}
DOWN = {"LoragenWorkerDown", "LoragenEdgeModelDown"}
FIRE_SECONDS = 120.0
CLEAR_SECONDS = 240.0
"""What was killed has to start again first."""

EMPTY = {
    *("Fidelity of recipes", "Time to measure and to refine"),
    "Ready for a pool that is coming",
}
"""Of nothing: the stack under this load measures no recipe, which would take the cores from all
else, and no pool is coming. The contract tests of measuring, refining and upgrades move these."""
UNMEASURED = EMPTY | {
    "Recipes measured", "Refines", "Negative transfer", "Tasks that changed their mode",
    "Live messages sampled",
}  # fmt: skip
QUERIES = [
    (title, expr)
    for title, expr in panel_queries({"$model": ".*", "$__rate_interval": faster("5m")})
    if title not in EMPTY
]
TITLES = list(dict.fromkeys(title for title, _ in QUERIES if title not in UNMEASURED))
AFTER_FAILURES = {"Server errors", "Fallback share", "Recipes lost", "Compile failures"}
LIGHT = {
    "Compiles in flight",
    "Compiles queued at the generator",
    "Requests at workers",
    "KV cache in use",
}
"""Zero at most scrapes of a light load."""
NEVER = {
    *("Waiting in the gateway", "Requests refused", "Prompts not stripped"),
    "Compiled for a pool that is coming",
}
"""They take a load that would make all else slow, a broken template or an upgrade."""


def test_every_rule_is_loaded_and_evaluates(prometheus: Prometheus) -> None:
    shipped = {rule.get("record") or rule["alert"] for rule in rules()}
    wait_until(lambda: set(prometheus.rules().values()) == {"ok"}, 30)
    assert prometheus.rules().keys() == shipped


def test_every_target_is_scraped(prometheus: Prometheus) -> None:
    wait_until(lambda: prometheus.query('up{job=~"loragen-.+"}') == [1, 1, 1], 30)


@pytest.mark.parametrize(("title", "expr"), QUERIES)
def test_every_query_of_the_dashboard_has_data(
    prometheus: Prometheus, title: str, expr: str
) -> None:
    wait_until(lambda: bool(prometheus.query(expr)), 60)


@pytest.mark.parametrize("title", [t for t in TITLES if t not in AFTER_FAILURES | LIGHT | NEVER])
def test_every_panel_shows_the_load(prometheus: Prometheus, title: str) -> None:
    moves(prometheus, title)


def test_all_is_quiet_while_all_is_well(prometheus: Prometheus) -> None:
    # How slow the first token is, is the machine's affair.
    assert prometheus.firing() <= {"LoragenFirstTokenSlow"}


def test_an_emptied_cache_is_noticed(stack: Stack, prometheus: Prometheus) -> None:
    client = stack.redis()
    for key in client.scan_iter("*:recipe:*"):
        client.delete(key)
    fires(prometheus, EMPTIED)
    moves(prometheus, "Recipes lost")


def test_a_broken_generator_is_noticed(stack: Stack, prometheus: Prometheus) -> None:
    def break_it() -> None:
        if "router_service" in stack.run()["pids"]:
            stack.kill("router_service")

    fires(prometheus, BROKEN, meanwhile=break_it)
    moves(prometheus, "Compile failures")
    moves(prometheus, "Fallback share")


def test_a_dead_worker_is_noticed(stack: Stack, prometheus: Prometheus) -> None:
    stack.kill(f"worker {MODEL}")
    fires(prometheus, DOWN)
    moves(prometheus, "Server errors")


def test_all_of_them_clear(prometheus: Prometheus) -> None:
    alerts = {*EMPTIED, *BROKEN, *DOWN}
    try:
        wait_until(lambda: not prometheus.firing() & alerts, CLEAR_SECONDS)
    except AssertionError:
        raise AssertionError(f"still firing: {prometheus.firing()}") from None
    moves(prometheus, "Compiles")


def fires(
    prometheus: Prometheus, alerts: set[str], *, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Return once the alerts fire; `meanwhile` breaks again what comes back sooner."""

    def have_fired() -> bool:
        meanwhile()
        return prometheus.firing() >= alerts

    try:
        wait_until(have_fired, FIRE_SECONDS)
    except AssertionError:
        raise AssertionError(f"{alerts} do not fire, {prometheus.firing()} do") from None


def moves(prometheus: Prometheus, panel: str) -> None:
    """Return once some query of a panel shows more than zero."""
    expressions = [expr for title, expr in QUERIES if title == panel]
    try:
        wait_until(lambda: any(max(prometheus.query(e), default=0) > 0 for e in expressions), 60)
    except AssertionError:
        raise AssertionError(f"panel {panel!r} shows nothing above zero") from None
