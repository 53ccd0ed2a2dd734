"""Processes: what the pods start exists in the code, listens there, and answers its probes."""

import functools
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import typer
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import AnyHttpUrl, SecretStr
from typer.main import get_command

import server.__main__
import workers.__main__
from config.edge_model import EdgeModelSettings
from config.settings import Settings
from config.stack import LOOPBACK
from k8s.check.objects import EDGE_MODEL, NEXT, Manifests, Pods
from k8s.check.settings import settings_of
from loragen.errors import ConfigError
from server.app import create_app
from workers.middleware import OPEN_PATHS

_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - compared, not bound
_COMMANDS: Final[Mapping[str, Callable[..., None]]] = {
    "server": server.__main__.main,
    "workers": workers.__main__.serve,
}
_MODULES: Final[Mapping[str, str]] = {"server": "server", "worker": "workers"}
_ENDING_SECONDS: Final = 5
"""What a process needs after its last answer."""
_PROBES: Final = ("startupProbe", "readinessProbe", "livenessProbe")
# Of Ray 2.60: the agent of every node, and Serve's proxy.
_RAY_PATHS: Final[Mapping[str, str]] = {"/api/healthz": "agent", "/-/healthz": "serve"}
_STAND_INS: Final = {
    "redis_url": SecretStr("redis://redis:6379/0"),
    "master_secret": SecretStr("00" * 32),
    "encryption_key": SecretStr("00" * 32),
    "admin_secret": SecretStr("00" * 32),
}
"""For secrets, which are not in the manifests."""


def process_problems(manifests: Manifests) -> Iterator[str]:
    """Yield commands, ports and paths that the code does not have."""
    for pods in manifests.pods:
        try:
            settings = settings_of(manifests, pods)
        except ConfigError:
            continue  # said elsewhere
        for problem in _command_problems(pods):
            yield f"{pods.owner}: {problem}"
        if settings is None:
            continue
        check = _CHECKS.get(pods.component)
        for problem in check(settings, pods) if check else ():
            yield f"{pods.owner}: {problem}"
    yield from _model_problems(manifests)


def arguments(pods: Pods) -> list[str]:
    """Return the command of the first container, as one list."""
    container = pods.main[0]
    return [*(container.get("command") or []), *(container.get("args") or [])]


def options(pods: Pods) -> Mapping[str, Any]:
    """Return what the pods tell our process on its command line; empty where it is not ours."""
    _, _, module, *given = [*arguments(pods), "", "", ""]
    if module not in _COMMANDS:
        return {}
    return _parse(module, tuple(each for each in given if each))


@functools.cache
def _parse(module: str, given: tuple[str, ...]) -> Mapping[str, Any]:
    application = typer.Typer(add_completion=False)
    application.command()(_COMMANDS[module])
    command = get_command(application)
    return command.make_context(module, list(given)).params


def _command_problems(pods: Pods) -> Iterator[str]:
    expected = _MODULES.get(pods.component)
    command = arguments(pods)
    if expected is None and command[:1] != ["python"]:
        return  # a process of others
    if command[:2] != ["python", "-m"] or len(command) < 3:
        yield f"command {command}: our processes start with python -m"
        return
    module = command[2]
    if _missing(module):
        yield f"command: no module {module} to run"
    elif expected is not None and module != expected:
        yield f"command: {module} is not {expected}, the process of component {pods.component}"
    elif module in _COMMANDS:
        try:
            _parse(module, tuple(command[3:]))
        except typer.TyperException as error:
            yield f"command: {error}"


def _missing(module: str) -> bool:
    try:
        return importlib.util.find_spec(f"{module}.__main__") is None
    except ModuleNotFoundError:
        return True


def _server(settings: Settings, pods: Pods) -> Iterator[str]:
    yield from _port_problems(pods, "api", settings.server.port, "server.port")
    if settings.server.metrics_port is not None:
        yield from _port_problems(
            pods, "metrics", settings.server.metrics_port, "server.metrics_port"
        )
    if settings.server.host != _EVERYWHERE:
        yield f"server.host is {settings.server.host}: neither probes nor the Service reach it"
    elif settings.server.auth == "open" and not settings.server.allow_open_network:
        yield "server.auth is open: beyond loopback the gateway refuses to start"
    yield from _admin_problems(settings, pods)
    try:
        routes = _routes(settings)
    except ConfigError as error:
        yield f"configuration: {error.message}"
        return
    yield from _probe_problems(pods, dict.fromkeys(routes, "api"))
    scraped = settings.server.metrics_port or settings.server.port
    yield from _scrape_problems(pods, scraped)
    drain = settings.server.drain_delay_seconds + settings.server.drain_timeout_seconds
    yield from _grace_problems(pods, drain, "server.drain_delay_seconds + .drain_timeout_seconds")
    if settings.server.drain_delay_seconds == 0:
        yield "server.drain_delay_seconds is 0: requests still on their way meet a closed port"


def _admin_problems(settings: Settings, pods: Pods) -> Iterator[str]:
    """A Service reaches whatever a pod binds beyond loopback, declared or not."""
    host, port = settings.server.admin_host, settings.server.admin_port
    if port is not None and host not in LOOPBACK:
        yield f"server.admin_host is {host}: the admin API is for the pod's own loopback"
    if port is not None and pods.port(port) is not None:
        yield f"containerPort {port} is the admin API's, which is not to be reached"


def _worker(settings: Settings, pods: Pods) -> Iterator[str]:
    try:
        given = options(pods)
        model = settings.edge_model(given.get("edge_model") or "")
    except typer.TyperException:
        return  # said of the command
    except ConfigError as error:
        yield error.message
        return
    if given["use_next"] and model.next_generator is None:
        yield f"--next: edge model {model.name} has no next_generator"
    if given["host"] != _EVERYWHERE:
        yield f"--host {given['host']}: neither probes nor the gateway reach it"
    port = given["port"] or model.port
    yield from _port_problems(pods, "http", port, f"the port of edge model {model.name}")
    yield from _probe_problems(pods, dict.fromkeys(OPEN_PATHS, "http"))
    yield from _scrape_problems(pods, port)
    drain = model.drain_timeout_seconds
    yield from _grace_problems(pods, drain, f"drain_timeout_seconds of edge model {model.name}")


def _router_service(settings: Settings, pods: Pods) -> Iterator[str]:
    yield from _port_problems(pods, "serve", settings.generator.port, "generator.port")
    yield from _probe_problems(pods, _RAY_PATHS)
    if settings.generator.ray_address is None:
        yield "generator.ray_address is not set: actors would keep to loopback, as on one machine"


_CHECKS: Final[Mapping[str, Callable[[Settings, Pods], Iterator[str]]]] = {
    "server": _server,
    "worker": _worker,
    "router-service": _router_service,
}


def _port_problems(pods: Pods, name: str, expected: int, setting: str) -> Iterator[str]:
    number = pods.port(name)
    if number != expected:
        yield f"containerPort {name} is {number}, but {setting} is {expected}"


def _probe_problems(pods: Pods, paths: Mapping[str, str]) -> Iterator[str]:
    """`paths`: what the process answers, and on which port by name."""
    for container in pods.main:
        for probe in _PROBES:
            asked = (container.get(probe) or {}).get("httpGet")
            if asked is None:
                continue
            if asked["path"] not in paths:
                yield f"{probe}: the process answers no path {asked['path']}"
            elif pods.port(asked["port"]) != pods.port(paths[asked["path"]]):
                yield f"{probe}: {asked['path']} is answered on port {paths[asked['path']]}"


def _scrape_problems(pods: Pods, port: int) -> Iterator[str]:
    notes = pods.annotations
    if (
        notes.get("prometheus.io/port") != str(port)
        or notes.get("prometheus.io/path") != "/metrics"
    ):
        yield f"annotations prometheus.io: the metrics are on port {port} at /metrics"


def _grace_problems(pods: Pods, seconds: float, setting: str) -> Iterator[str]:
    grace = pods.spec.get("terminationGracePeriodSeconds", 30)
    if grace < seconds + _ENDING_SECONDS:
        yield f"terminationGracePeriodSeconds {grace}: {setting} is {seconds:g}"


def _model_problems(manifests: Manifests) -> Iterator[str]:
    """Yield edge models without workers, and addresses that lead to no worker."""
    for pods in manifests.of_component("server"):
        try:
            settings = settings_of(manifests, pods)
        except ConfigError:
            continue
        for model in settings.edge_models if settings else ():
            for problem in _address_problems(manifests, model):
                yield f"edge model {model.name}: {problem}"
    for pods in manifests.of_component("worker"):
        label = _label(pods)
        if pods.labels.get(EDGE_MODEL) != label:
            yield f"{pods.owner}: label {EDGE_MODEL} is not {label}"


def _address_problems(manifests: Manifests, model: EdgeModelSettings) -> Iterator[str]:
    if not any(_edge_model(pods) == model.name for pods in manifests.of_component("worker")):
        if not model.worker_urls:
            yield "no Deployment of workers serves it"
        return
    if model.worker_service is None:
        yield "worker_service is not set: the gateway would look on its own machine"
        return
    services = {"worker_service": (model.worker_service, model.name)}
    if model.next_worker_service is not None:
        services["next_worker_service"] = (model.next_worker_service, model.name + NEXT)
    for setting, (url, label) in services.items():
        for problem in _service_problems(manifests, url, label):
            yield f"{setting}: {problem}"


def _service_problems(manifests: Manifests, url: AnyHttpUrl, label: str) -> Iterator[str]:
    host = url.host or ""
    service = manifests.find("Service", host.partition(".")[0])
    if service is None:
        yield f"no Service {host}"
        return
    if service["spec"].get("clusterIP") != "None":
        yield f"Service {host} is not headless: it hides the single workers"
    if url.port not in [each["port"] for each in service["spec"]["ports"]]:
        yield f"Service {host} has no port {url.port}"
    chosen = service["spec"].get("selector") or {}
    if chosen.get(EDGE_MODEL) != label:
        yield f"Service {host} selects workers of other models too"


def _label(pods: Pods) -> str | None:
    """Return what the workers' label is to be: those of the next pool have one of their own."""
    name = _edge_model(pods)
    return name if name is None or not options(pods).get("use_next") else name + NEXT


def _edge_model(pods: Pods) -> str | None:
    try:
        name: str | None = options(pods).get("edge_model")
    except typer.TyperException:
        return None
    return name


def _routes(settings: Settings) -> frozenset[str]:
    return _application_routes(settings.model_dump_json())


@functools.cache
def _application_routes(settings: str) -> frozenset[str]:
    """Return what the gateway answers to GET with this configuration."""
    whole = Settings.model_validate_json(settings).model_copy(update=_STAND_INS)
    application: FastAPI = create_app(whole)
    return frozenset(
        route.path
        for route in application.routes
        if isinstance(route, APIRoute) and "GET" in route.methods
    )
