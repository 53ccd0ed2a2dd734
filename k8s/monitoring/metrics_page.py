"""Metrics page: docs/metrics.md, written from the declarations."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from loragen import metrics

Metric = Counter | Gauge | Histogram

_HEAD: Final = """\
# Metrics

<!-- Written by `python -m k8s.monitoring`; a test keeps it in step with loragen/metrics.py. -->

What the gateway counts, at `GET /metrics` on the API port, or on `server.metrics_port` alone where
that is set. Every number is of one gateway: sum over `instance`. No label holds a task, a tenant
or anything a client chose. A histogram `x` is read through `x_bucket`, `x_sum` and `x_count`.

| metric | type | labels | meaning |
|---|---|---|---|
"""

_TAIL: Final = """
Two neighbours export their own, scraped as they are: the workers vLLM's `vllm:*` at `/metrics` of
their port, without a key; Ray its `ray_*` at `generator.metrics_port`, of a cluster at the port
KubeRay gives it (8080). [Operations](operations.md#metrics-alerts-dashboard) has the rest.
"""


def metrics_page() -> str:
    """Return docs/metrics.md."""
    rows = (
        f"| `{name}` | {kind} | {labels} | {meaning} |\n" for name, kind, labels, meaning in _rows()
    )
    return _HEAD + "".join(rows) + _TAIL


def declared() -> dict[str, Metric]:
    """Return every metric of `loragen.metrics` by its name in Prometheus."""
    found = (each for each in vars(metrics).values() if isinstance(each, Metric))
    return {_name(each): each for each in found}


def series() -> set[str]:
    """Return the names of all time series these metrics have in Prometheus."""
    return {
        name + suffix
        for name, metric in declared().items()
        for suffix in (("_bucket", "_sum", "_count") if isinstance(metric, Histogram) else ("",))
    }


def _rows() -> Iterator[tuple[str, str, str, str]]:
    for name, metric in declared().items():
        description = next(iter(metric.describe()))
        labels = ", ".join(f"`{label}`" for label in metric._labelnames) or "none"
        yield name, description.type, labels, description.documentation


def _name(metric: Metric) -> str:
    name: str = next(iter(metric.describe())).name
    return name + "_total" if isinstance(metric, Counter) else name
