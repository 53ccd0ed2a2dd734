"""RayService: the Serve application that KubeRay is told to run is ours, and fits its settings."""

import ast
import importlib.metadata
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from config.settings import Settings
from k8s.check.objects import Manifests, Pods, title
from k8s.check.references import GUIDE, DocumentedSecrets
from k8s.check.settings import settings_of
from k8s.check.transform import Object
from loragen.errors import ConfigError

TOKEN_KEY: Final = "auth_token"  # noqa: S105 - the name of a key, not a secret
_SERVICE_SUFFIX: Final = "-serve-svc"
"""What KubeRay adds to the name of a RayService for the Service of its applications."""
_CONFIG_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "serveConfigV2": frozenset(
        {"proxy_location", "http_options", "grpc_options", "logging_config", "applications"}
    ),
    "http_options": frozenset(
        {"host", "port", "root_path", "request_timeout_s", "keep_alive_timeout_s"}
    ),
    "applications": frozenset(
        {"name", "route_prefix", "import_path", "runtime_env", "args", "deployments"}
    ),
}


def ray_service_problems(manifests: Manifests, secrets: DocumentedSecrets) -> Iterator[str]:
    """Yield where a RayService and the code or the configuration differ."""
    services = manifests.of_kind("RayService")
    for each in services:
        settings = _settings(manifests, each)
        cluster = each["spec"].get("rayClusterConfig") or {}
        for problem in (
            *_serve_problems(each["spec"], settings),
            *_auth_problems(cluster.get("authOptions") or {}, secrets),
            *_version_problems(cluster),
            *_capacity_problems(cluster, settings),
        ):
            yield f"{title(each)}: {problem}"
    for pods in manifests.of_component("server"):
        try:
            configured = settings_of(manifests, pods)
        except ConfigError:
            continue
        if configured is not None:
            yield from _url_problems(configured, services)


def _settings(manifests: Manifests, each: Object) -> Settings | None:
    for pods in manifests.pods:
        if pods.owner.startswith(title(each)):
            try:
                return settings_of(manifests, pods)
            except ConfigError:
                return None
    return None


def _serve_problems(spec: Mapping[str, Any], settings: Settings | None) -> Iterator[str]:
    try:
        config = yaml.safe_load(spec.get("serveConfigV2") or "")
    except yaml.YAMLError as error:
        yield f"serveConfigV2 is not YAML: {error}"
        return
    if not isinstance(config, dict):
        yield "serveConfigV2 is empty"
        return
    yield from _unknown("serveConfigV2", config)
    yield from _application_problems(config.get("applications") or [])
    yield from _http_problems(config.get("http_options") or {}, settings)


def _application_problems(applications: list[dict[str, Any]]) -> Iterator[str]:
    if not applications:
        yield "serveConfigV2 has no applications"
    for application in applications:
        yield from _unknown("applications", application)
        if application.get("route_prefix", "/") != "/":
            yield f"route_prefix {application['route_prefix']}: the gateway calls /compile"
        if not _importable(application.get("import_path", "")):
            yield f"import_path {application.get('import_path')}: no such application in the code"


def _http_problems(http: Mapping[str, Any], settings: Settings | None) -> Iterator[str]:
    yield from _unknown("http_options", http)
    if http.get("host") != "0.0.0.0":  # noqa: S104 - compared, not bound
        yield f"http_options.host {http.get('host')}: the gateway cannot reach it"
    if settings is None:
        return
    if http.get("port") != settings.generator.port:
        yield f"http_options.port {http.get('port')}: generator.port is {settings.generator.port}"
    limit = http.get("request_timeout_s")
    for name in ("timeout_seconds", "refine_timeout_seconds"):
        seconds = getattr(settings.generator, name)
        if limit is not None and limit <= seconds:
            yield (
                f"http_options.request_timeout_s {limit}: must be longer than "
                f"generator.{name}, {seconds:g}"
            )


def _unknown(section: str, fields: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(set(fields) - _CONFIG_FIELDS[section]):
        yield f"serveConfigV2: {section}: Ray Serve ignores the unknown field {name}"


def _importable(path: str) -> bool:
    """Whether `module:name` is defined, without importing Ray to see."""
    module, _, name = path.partition(":")
    try:
        spec = importlib.util.find_spec(module) if module else None
    except ModuleNotFoundError:
        return False
    if spec is None or spec.origin is None:
        return False
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name for node in tree.body
    )


def _auth_problems(auth: Mapping[str, Any], secrets: DocumentedSecrets) -> Iterator[str]:
    if auth.get("mode") != "token":
        yield "authOptions.mode is not token: whoever reaches Ray runs code there"
    name = auth.get("secretName", "")
    if TOKEN_KEY not in secrets.keys.get(name, frozenset()):
        yield f"authOptions.secretName {name}: {GUIDE} creates no such Secret with key {TOKEN_KEY}"


def _version_problems(cluster: Mapping[str, Any]) -> Iterator[str]:
    installed = importlib.metadata.version("ray")
    if cluster.get("rayVersion") != installed:
        yield f"rayVersion {cluster.get('rayVersion')}: the lock has ray {installed}"


def _capacity_problems(cluster: Mapping[str, Any], settings: Settings | None) -> Iterator[str]:
    head = (cluster.get("headGroupSpec") or {}).get("rayStartParams") or {}
    if head.get("num-cpus") != "0":
        yield "headGroupSpec: num-cpus is not 0: generators would run beside the cluster's state"
    if settings is None:
        return
    offered = 0.0
    for group in cluster.get("workerGroupSpecs") or []:
        cpus = (group.get("rayStartParams") or {}).get("num-cpus", "0")
        offered += float(cpus) * group.get("replicas", group.get("minReplicas", 0))
    options = settings.generator
    next_ones = sum(model.next_generator is not None for model in settings.edge_models)
    refiners = next_ones + sum(model.pool_file is not None for model in settings.edge_models)
    clouds = 1 + bool(next_ones)
    if offered < clouds * options.replicas * options.threads + refiners * options.refine_threads:
        yield (
            f"the worker groups offer {offered:g} CPUs, but generator.replicas x threads is "
            f"{clouds * options.replicas} x {options.threads}, and {refiners} refiners take "
            f"{options.refine_threads} each: some actors would never start"
        )


def _url_problems(settings: Settings, services: list[Object]) -> Iterator[str]:
    if not any(model.pool_file is not None for model in settings.edge_models):
        return
    url = settings.generator.url
    name = (url.host or "").partition(".")[0].removesuffix(_SERVICE_SUFFIX)
    chosen = [each for each in services if each["metadata"]["name"] == name]
    if not chosen and services:
        yield f"generator.url {url}: no RayService makes the Service {url.host}"
    for each in chosen:
        head = (each["spec"].get("rayClusterConfig") or {}).get("headGroupSpec") or {}
        number = Pods(title(each), "RayService", head.get("template") or {}).port("serve")
        if number != url.port:
            yield f"generator.url {url}: {title(each)} serves on port {number}"
