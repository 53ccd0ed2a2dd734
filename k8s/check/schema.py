"""Schema: every object against Kubernetes' own schemas; a RayService against KubeRay's.

KubeRay's definition (a CustomResourceDefinition) is used where its file is given. Without it a
RayService is held to the fields that our manifests use, and its pods to Kubernetes' pod schema.
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from k8s.check.objects import Manifests, title
from k8s.check.transform import Object
from loragen.errors import ConfigError

KUBERNETES: Final = "1.32.0"
"""The oldest version that the manifests are meant for; schemas only grow."""
_POD_TEMPLATE: Final = "io.k8s.api.core.v1.PodTemplateSpec"
_ANY: Final[Mapping[str, Any]] = {}


def schema_problems(manifests: Manifests, crd: Path | None) -> Iterator[str]:
    """Yield what the schemas refuse."""
    for each in manifests.objects:
        if each["kind"] == "RayService":
            validators = [_crd_validator(crd)] if crd else [_ray_service_validator()]
        else:
            validator = _validator(each["apiVersion"], each["kind"])
            if validator is None:
                yield f"{title(each)}: Kubernetes {KUBERNETES} has no {each['apiVersion']}"
                continue
            validators = [validator]
        for validator in validators:
            yield from _problems(validator, each)


def _problems(validator: Draft202012Validator, each: Object) -> Iterator[str]:
    for error in validator.iter_errors(each):
        deepest = best_match(error.context) if error.context else error
        deepest = deepest or error
        where = ".".join(str(part) for part in [*error.absolute_path])
        yield f"{title(each)}: {where or 'object'}: {deepest.message[:200]}"


@functools.cache
def _definitions() -> dict[str, Any]:
    path = f"kubernetes-json-schema/v{KUBERNETES}-local-strict/_definitions.json"
    definitions: dict[str, Any] = schema_contents(path, KUBERNETES)
    return definitions


@functools.cache
def _registry() -> Registry[Any]:
    definitions = _definitions()
    resource = Resource.from_contents(definitions, default_specification=DRAFT202012)
    registry: Registry[Any] = Registry().with_resource(definitions["$id"], resource)
    return registry


@functools.cache
def _validator(api_version: str, kind: str) -> Draft202012Validator | None:
    group, _, version = api_version.rpartition("/")
    wanted = {"group": group, "version": version, "kind": kind}
    for name, definition in _definitions()["$defs"].items():
        if wanted in definition.get("x-kubernetes-group-version-kind", []):
            return Draft202012Validator(_reference(name), registry=_registry())
    return None


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"{_definitions()['$id']}#/$defs/{name}"}


@functools.cache
def _ray_service_validator() -> Draft202012Validator:
    text = {"type": "string"}
    count = {"type": "integer", "minimum": 0}
    flag = {"type": "boolean"}
    parameters = {"type": "object", "additionalProperties": text}
    group = {"rayStartParams": parameters, "template": _reference(_POD_TEMPLATE)}
    head = _closed(group, "template")
    workers = _closed(
        {
            **group,
            "groupName": text,
            "replicas": count,
            "minReplicas": count,
            "maxReplicas": count,
        },
        "groupName",
        "minReplicas",
        "maxReplicas",
        "template",
    )
    auth = _closed(
        {"mode": {"enum": ["disabled", "token"]}, "secretName": text, "enableK8sTokenAuth": flag}
    )
    cluster = _closed(
        {
            "rayVersion": text,
            "enableInTreeAutoscaling": flag,
            "authOptions": auth,
            "headGroupSpec": head,
            "workerGroupSpecs": {"type": "array", "items": workers},
        },
        "headGroupSpec",
    )
    spec = _closed(
        {
            "serveConfigV2": text,
            "excludeHeadPodFromServeSvc": flag,
            "serviceUnhealthySecondThreshold": count,
            "deploymentUnhealthySecondThreshold": count,
            "rayClusterDeletionDelaySeconds": count,
            "upgradeStrategy": _closed({"type": {"enum": ["NewCluster", "None"]}}),
            "rayClusterConfig": cluster,
        },
        "serveConfigV2",
        "rayClusterConfig",
    )
    service = _closed(
        {"apiVersion": {"const": "ray.io/v1"}, "kind": _ANY, "metadata": _ANY, "spec": spec}, "spec"
    )
    return Draft202012Validator(service, registry=_registry())


def _closed(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


@functools.cache
def _crd_validator(path: Path) -> Draft202012Validator:
    try:
        definition = yaml.safe_load(path.read_text(encoding="utf-8"))
        (version,) = (each for each in definition["spec"]["versions"] if each["name"] == "v1")
        schema = version["schema"]["openAPIV3Schema"]
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is not KubeRay's definition of a RayService") from error
    return Draft202012Validator(_strict(schema))


def _strict(schema: Any) -> Any:
    """Return an OpenAPI schema that knows no other properties than those it lists."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    lists = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if lists and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    return strict
