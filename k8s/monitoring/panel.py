"""Panel: one graph of the dashboard, and how queries over all gateways are written.

`$model` filters what knows an edge model; `$__rate_interval` is Grafana's window for rates, never
shorter than four scrapes.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are called in the legend."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph, or one big number if `is_stat`."""

    title: str
    unit: str
    """Of Grafana: `s`, `bytes`, `reqps`, `percentunit`, `short` …"""
    description: str
    queries: tuple[Query, ...]
    is_stat: bool = False


def rate(metric: str, by: str, *, where: str = "") -> str:
    """Return the query for how fast a counter grows, summed over gateways by some labels."""
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}(rate({metric}{where}[$__rate_interval]))"


def quantiles(metric: str, by: str, *, where: str = "") -> tuple[Query, ...]:
    """Return p50 and p99 of a histogram."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", ") if label)
    grouped = f"{by}, le" if by else "le"
    return tuple(
        Query(
            f"histogram_quantile({quantile}, {rate(metric + '_bucket', grouped, where=where)})",
            f"p{quantile[2:]:0<2} {legend}".strip(),
        )
        for quantile in ("0.5", "0.99")
    )
