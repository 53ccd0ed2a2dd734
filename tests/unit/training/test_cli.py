"""The training commands explain themselves."""

from pathlib import Path

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


def test_a_grid_of_too_many_families_is_refused_before_anything_trains(tmp_path: Path) -> None:
    options = ["--checkpoint", str(tmp_path), "--out", str(tmp_path / "grid.json")]
    result = CliRunner().invoke(app, ["grid", *options, "--families", "6", "--families", "99"])
    assert result.exit_code == 2
    assert "24" in result.output
    assert not [*tmp_path.iterdir()]
