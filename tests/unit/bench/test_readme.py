"""The README says what the result files say."""

from bench.readme import README, render


def test_every_figure_of_the_readme_is_that_of_its_result_file() -> None:
    text = README.read_text("utf-8")
    assert render(text) == text
