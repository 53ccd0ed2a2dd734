"""The training commands explain themselves."""

from typer.testing import CliRunner

from loragen.training.__main__ import app


def test_help_names_commands_and_options() -> None:
    runner = CliRunner()
    assert "evaluate-refine" in runner.invoke(app, ["--help"]).output
    for command, option in (
        ("demo", "--seed"),
        ("small", "--stage"),
        ("evaluate", "--catalogue"),
        ("generator", "--minutes"),
    ):
        result = runner.invoke(app, [command, "--help"], terminal_width=200)
        assert result.exit_code == 0
        assert option in result.output
