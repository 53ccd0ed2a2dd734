"""`python -m k8s.monitoring`: write docs/metrics.md and the dashboard."""

from pathlib import Path
from typing import Final

import typer

from k8s.monitoring.metrics_page import metrics_page

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "metrics.md"


def main() -> None:
    """Write the files that come from code."""
    PAGE.write_text(metrics_page(), encoding="utf-8")
    typer.echo(f"wrote {PAGE}")


if __name__ == "__main__":
    typer.run(main)
