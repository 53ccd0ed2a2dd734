"""Settings: the configuration that pods mount, as the processes in them would read it."""

import functools
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from config.environment import CONFIG_VARIABLE
from config.load import load_settings
from config.settings import SECRET_FIELDS, Settings
from k8s.check.objects import Manifests, Pods
from loragen.errors import ConfigError

PREFIX: Final = "LORAGEN_"
_NEEDED_SECRETS: Final[Mapping[str, frozenset[str]]] = {
    "server": frozenset(
        {
            *("master_secret", "encryption_key", "admin_secret"),
            *("worker_secret", "generator_secret", "redis_url"),
        }
    ),
    "worker": frozenset({"worker_secret"}),
    "router-service": frozenset({"generator_secret"}),
}
_OPTIONAL_SECRETS: Final = frozenset({"ray_token"})


def settings_of(manifests: Manifests, pods: Pods) -> Settings | None:
    """Return what the pods are configured with; None where they read no configuration.

    Raises:
        ConfigError: a file is not mounted, or its content is wrong.
    """
    for container in pods.main:
        named = _variables(container).get(CONFIG_VARIABLE)
        if named is not None:
            paths = [Path(each) for each in named.split(",")]
            files = tuple(_mounted(manifests, pods, container, path) for path in paths)
            return _load(files, _given(container))
    return None


def environment_problems(manifests: Manifests) -> Iterator[str]:
    """Yield variables that mean nothing, and secrets that a process lacks or should not have."""
    for pods in manifests.pods:
        if pods.component not in _NEEDED_SECRETS:
            continue
        given: set[str] = set()
        for container in pods.main:
            where = f"{pods.owner}: container {container['name']}"
            for name in _variables(container):
                if name.startswith(PREFIX) and name != CONFIG_VARIABLE:
                    if not is_setting(name):
                        yield f"{where}: env {name}: no such setting"
                    given.add(name.removeprefix(PREFIX).lower())
            if CONFIG_VARIABLE not in _variables(container):
                yield f"{where}: env {CONFIG_VARIABLE} is missing: it would run on defaults"
        secrets = given & set(SECRET_FIELDS)
        needed = _NEEDED_SECRETS[pods.component]
        for name in sorted(needed - secrets):
            yield f"{pods.owner}: env {PREFIX}{name.upper()} is missing"
        for name in sorted(secrets - needed - _OPTIONAL_SECRETS):
            yield f"{pods.owner}: env {PREFIX}{name.upper()}: this process needs no such secret"


def configuration_problems(manifests: Manifests) -> Iterator[str]:
    """Yield what is wrong with the configuration that pods mount."""
    found: set[str] = set()
    for pods in manifests.pods:
        try:
            settings_of(manifests, pods)
        except ConfigError as error:
            found |= {f"{pods.owner}: configuration: {each}" for each in error.message.split("; ")}
    yield from sorted(found)


def is_setting(variable: str) -> bool:
    """Whether an environment variable names a field of the settings."""
    if not variable.startswith(PREFIX):
        return False
    model: Any = Settings
    for part in variable.removeprefix(PREFIX).lower().split("__"):
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return False
        if part not in model.model_fields:
            return False
        model = model.model_fields[part].annotation
    return True


def _variables(container: Mapping[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container.get("env") or []}


def _mounted(
    manifests: Manifests, pods: Pods, container: Mapping[str, Any], path: Path
) -> tuple[str, str]:
    """Return name and content of the ConfigMap file that a container sees at `path`."""
    for mount in container.get("volumeMounts") or []:
        if Path(mount["mountPath"]) != path.parent:
            continue
        for volume in pods.spec.get("volumes") or []:
            if volume["name"] == mount["name"]:
                name = (volume.get("configMap") or {}).get("name", "")
                data = (manifests.find("ConfigMap", name) or {}).get("data") or {}
                if path.name in data:
                    return path.name, data[path.name]
    raise ConfigError(f"{CONFIG_VARIABLE} names {path}, which no ConfigMap puts there")


def _given(container: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the settings that a container has as plain variables."""
    return tuple(
        (each["name"], each["value"])
        for each in container.get("env") or []
        if each.get("value") and each["name"] != CONFIG_VARIABLE and is_setting(each["name"])
    )


def _nested(variables: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Return variables as settings: their sections by name, JSON where it is no plain value."""
    settings: dict[str, Any] = {}
    for name, value in variables:
        *way, last = name.removeprefix(PREFIX).lower().split("__")
        section = settings
        for part in way:
            section = section.setdefault(part, {})
        section[last] = json.loads(value) if value.startswith(("[", "{")) else value
    return settings


@functools.cache
def _load(files: tuple[tuple[str, str], ...], variables: tuple[tuple[str, str], ...]) -> Settings:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}-{name}" for index, (name, _) in enumerate(files)]
        for path, (_, text) in zip(paths, files, strict=True):
            path.write_text(text, encoding="utf-8")
        try:
            return load_settings(paths, **_nested(variables))
        except (ConfigError, json.JSONDecodeError) as error:
            raise ConfigError(str(error).replace(f"{folder}/", "")) from error
