"""docs/metrics.md says what loragen/metrics.py declares."""

from k8s.monitoring.__main__ import PAGE
from k8s.monitoring.metrics_page import metrics_page, series


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == metrics_page(), "run `python -m k8s.monitoring`"


def test_a_histogram_is_known_by_its_three_series_and_a_counter_by_its_total() -> None:
    assert {"loragen_compile_seconds_bucket", "loragen_fallback_total"} <= series()
    assert "loragen_compile_seconds" not in series()
