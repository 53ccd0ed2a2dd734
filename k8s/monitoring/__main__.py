"""`python -m k8s.monitoring`: write docs/metrics.md and the dashboard."""

from pathlib import Path
from typing import Final

import typer

from k8s.monitoring.dashboard import dashboard_json
from k8s.monitoring.metrics_page import metrics_page
from k8s.monitoring.queries import DASHBOARD

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "metrics.md"


def main() -> None:
    """Write the files that come from code."""
    for path, content in ((PAGE, metrics_page()), (DASHBOARD, dashboard_json())):
        path.write_text(content, encoding="utf-8")
        typer.echo(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    typer.run(main)
