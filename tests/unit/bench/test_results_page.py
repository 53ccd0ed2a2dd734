"""docs/results.md says what the result files say."""

from bench.results_page import PAGE, page


def test_every_figure_of_the_page_is_that_of_its_result_file() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: python -m bench.results_page"
