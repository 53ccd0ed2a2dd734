"""Rendering without kubectl gives what kubectl gives, and refuses what it cannot do."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from k8s.check.render import render, render_here
from loragen.errors import ConfigError

K8S = Path(__file__).parents[3] / "k8s"
OVERLAYS = sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml"))


def by_name(objects: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on PATH to compare with")
@pytest.mark.parametrize("folder", [K8S / "base", *OVERLAYS], ids=lambda path: str(path.name))
def test_rendering_here_is_rendering_by_kubectl(folder: Path) -> None:
    theirs, by = render(folder)
    assert by == "kubectl"
    assert by_name(render_here(folder)) == by_name(theirs)


def test_without_kubectl_the_folder_is_rendered_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    objects, by = render(OVERLAYS[0])
    assert by == "k8s.check"
    assert by_name(objects) == by_name(render_here(OVERLAYS[0]))


@pytest.mark.parametrize(
    ("kustomization", "says"),
    [
        ("resources: [nothing.yaml]", "nothing.yaml"),
        ("replacements: []", "replacements: only kubectl renders this"),
        ("patches: [{target: {kind: Pod}, patch: '[]'}]", "no Pod"),
        ("patches: [{target: {kind: Pod}, patch: '{}'}]", "only JSON patches"),
        ("configMapGenerator: [{name: a, literals: [a=b]}]", "literals"),
        ("resources: [{", "YAML|Error"),
    ],
)
def test_what_cannot_be_rendered_is_refused(kustomization: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(kustomization)
    with pytest.raises(ConfigError, match=says):
        render_here(tmp_path)
