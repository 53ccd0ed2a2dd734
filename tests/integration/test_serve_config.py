"""KubeRay's Serve configuration, read as Ray reads it; no Ray is started."""

from pathlib import Path

import pytest
import yaml
from ray._common.utils import import_attr
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.deployment import Application
from ray.serve.schema import ServeDeploySchema

from k8s.check.render import render_here

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["cpu-dev", "gpu-prod"])
def config(request: pytest.FixtureRequest) -> ServeDeploySchema:
    (service,) = (
        each
        for each in render_here(ROOT / "k8s" / "overlays" / request.param)
        if each["kind"] == "RayService"
    )
    return ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))


def test_ray_builds_the_application_that_the_configuration_names(
    config: ServeDeploySchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("LORAGEN_CONFIG", "config/demo.yaml")
    monkeypatch.setenv("LORAGEN_GENERATOR__RAY_ADDRESS", "auto")
    monkeypatch.setenv("LORAGEN_GENERATOR_SECRET", "x")
    (application,) = config.applications
    builder = import_attr(application.import_path)
    built = call_user_app_builder_with_args_if_necessary(builder, application.args)
    assert isinstance(built, Application)
    assert config.http_options.port == 8100
