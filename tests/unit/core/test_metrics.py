"""Metrics keep their conventions: prefix, units, labels from closed sets."""

from prometheus_client import Counter, Gauge, Histogram

from loragen import metrics

DECLARED = {
    name: value
    for name, value in vars(metrics).items()
    if isinstance(value, Counter | Gauge | Histogram)
}
LABELS = {
    "source",
    *("tier", "cause", "outcome", "reason", "model", "mode", "route", "code", "worker", "limit"),
    *("expert", "backend"),
}


def test_every_metric_has_our_prefix_and_a_help_sentence() -> None:
    assert DECLARED
    for metric in DECLARED.values():
        described = next(iter(metric.describe()))
        assert described.name.startswith("loragen_")
        assert described.documentation.endswith(".")


def test_durations_are_in_seconds_and_nothing_is_in_milliseconds() -> None:
    for name, metric in DECLARED.items():
        described = next(iter(metric.describe())).name
        assert isinstance(metric, Histogram) == name.endswith(("SECONDS", "FIDELITY"))
        assert not described.endswith(("_ms", "_millis", "_percent"))


def test_no_label_can_hold_a_task_or_a_tenant() -> None:
    labels = {label for metric in DECLARED.values() for label in metric._labelnames}
    assert labels <= LABELS
