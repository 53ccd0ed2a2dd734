"""`python -m k8s.check`: a line per problem, and an exit status that CI understands."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from k8s.check.__main__ import main

ROOT = Path(__file__).parents[3]
OVERLAY = ROOT / "k8s" / "overlays" / "cpu-dev"


def check(*arguments: str) -> Result:
    application = typer.Typer()
    application.command()(main)
    return CliRunner().invoke(application, list(arguments))


def overlay(folder: Path, patch: str) -> Path:
    """Make an operator's own overlay on top of ours."""
    made = folder / "mine"
    made.mkdir()
    lines = ("resources: [ours]", "patches:", f"  - {patch}")
    (made / "kustomization.yaml").write_text("\n".join(lines))
    (made / "ours").symlink_to(OVERLAY)
    return made


@pytest.fixture(autouse=True)
def without_kubectl(monkeypatch: pytest.MonkeyPatch) -> None:
    # It refuses links, and a copy of ours would lie where its relative paths lead nowhere.
    monkeypatch.setenv("PATH", "")


def test_without_problems_it_says_ok_and_what_it_skipped() -> None:
    result = check(str(OVERLAY))
    assert result.exit_code == 0
    assert "cpu-dev: ok, " in result.output
    assert "SKIPPED" in result.output


def test_an_operators_overlay_is_checked_like_ours(tmp_path: Path) -> None:
    patch = (
        "{target: {kind: Service, name: server}, "
        "patch: '[{op: replace, path: /spec/ports/0/targetPort, value: http}]'}"
    )
    result = check(str(overlay(tmp_path, patch)))
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == (
        "mine: Service server: targetPort http: Deployment server has no such port"
    )


def test_what_cannot_be_rendered_is_another_exit_status(tmp_path: Path) -> None:
    result = check(str(tmp_path))
    assert result.exit_code == 2
    assert "kustomization.yaml" in result.output
