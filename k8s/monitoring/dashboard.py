"""Dashboard: `panels` as the JSON that Grafana imports."""

import itertools
from typing import Final

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
)

from k8s.monitoring.panel import Panel
from k8s.monitoring.panels import ROWS

_WIDTH: Final = 24
_STAT_HEIGHT: Final = 4
_GRAPH_HEIGHT: Final = 8
_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")


def dashboard_json() -> str:
    """Return k8s/components/monitoring/dashboards/loragen.json."""
    board = (
        dashboard.Dashboard("LoRA-Gen Server")
        .uid("loragen")
        .description("Requests, latency, recipes, compiles and workers of all gateways.")
        .tags(["loragen"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .with_variable(_model_variable())
    )
    ids = itertools.count(1)
    for title, panels in ROWS:
        board = board.with_row(dashboard.Row(title).id(next(ids)))
        for panel in panels:
            built = _stat(panel) if panel.is_stat else _graph(panel, len(panels))
            board = board.with_panel(built.id(next(ids)))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def _model_variable() -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable("model")
        .label("Edge model")
        .datasource(_SOURCE)
        .query("label_values(loragen_healthy_workers, model)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _stat(panel: Panel) -> stat.Panel:
    built = (
        stat.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(_SOURCE)
        .unit(panel.unit)
        .graph_mode(BigValueGraphMode.AREA)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .height(_STAT_HEIGHT)
        .span(_WIDTH // 6)
    )
    for query in _queries(panel):
        built = built.with_target(query)
    return built


def _graph(panel: Panel, in_row: int) -> timeseries.Panel:
    built = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(_SOURCE)
        .unit(panel.unit)
        .min(0)
        .fill_opacity(10)
        .legend(VizLegendOptions().placement(LegendPlacement.BOTTOM).show_legend(True))
        .height(_GRAPH_HEIGHT)
        .span(_WIDTH // (4 if in_row == 4 else 3))
    )
    for query in _queries(panel):
        built = built.with_target(query)
    return built


def _queries(panel: Panel) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery()
        .expr(query.expr)
        .legend_format(query.legend)
        .ref_id(chr(ord("A") + i))
        for i, query in enumerate(panel.queries)
    ]
