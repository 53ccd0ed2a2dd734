"""A RayService is held to KubeRay's definition where that is given; it is not ours to ship."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.check.objects import Manifests
from k8s.check.render import render_here
from k8s.check.schema import schema_problems
from loragen.errors import ConfigError

ROOT = Path(__file__).parents[3]

Object = dict[str, Any]


@pytest.fixture(scope="module")
def service() -> Object:
    (found,) = (
        each
        for each in render_here(ROOT / "k8s" / "overlays" / "gpu-prod")
        if each["kind"] == "RayService"
    )
    return found


def against(crd: Path, service: Object) -> list[str]:
    return list(schema_problems(Manifests([service]), crd))


def definition(spec: Object) -> Object:
    schema = {"type": "object", "properties": {"spec": spec}, "additionalProperties": True}
    version = {"name": "v1", "schema": {"openAPIV3Schema": schema}}
    return {"spec": {"versions": [{"name": "v1alpha1"}, version]}}


def test_a_definition_is_strict_where_it_lists_properties(tmp_path: Path, service: Object) -> None:
    spec = {
        "type": "object",
        "properties": {"serveConfigV2": {"type": "string"}, "excludeHeadPodFromServeSvc": {}},
    }
    crd = tmp_path / "crd.yaml"
    crd.write_text(yaml.safe_dump(definition(spec)))
    assert [line for line in against(crd, service) if "rayClusterConfig" in line]
    spec["properties"] |= {"rayClusterConfig": {"type": "object"}, "upgradeStrategy": {}}  # type: ignore[operator]
    crd = tmp_path / "wider.yaml"
    crd.write_text(yaml.safe_dump(definition(spec)))
    assert against(crd, service) == []


def test_what_is_no_definition_is_refused(tmp_path: Path, service: Object) -> None:
    crd = tmp_path / "crd.yaml"
    crd.write_text("kind: ConfigMap")
    with pytest.raises(ConfigError, match="not KubeRay's definition"):
        against(crd, service)


@pytest.mark.parametrize(
    ("mistake", "says"),
    [({"serveConfigV3": "x"}, "serveConfigV3"), ({"excludeHeadPodFromServeSvc": "no"}, "boolean")],
)
def test_kuberay_takes_ours_and_refuses_a_mistake(
    request: pytest.FixtureRequest, service: Object, mistake: Object, says: str
) -> None:
    given = request.config.getoption("--kuberay-crd")
    if given is None:
        pytest.skip("KubeRay's definition is not given: pytest --kuberay-crd FILE")
    crd = Path(given)
    assert against(crd, service) == []
    wrong = copy.deepcopy(service)
    wrong["spec"] |= mistake
    assert any(says in line for line in against(crd, wrong))
