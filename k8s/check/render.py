"""Render: a kustomization folder into the objects that `kubectl apply -k` would send.

`kubectl` does it where it is on PATH. Elsewhere the part of kustomize that our own manifests use is
done here; whatever else a kustomization says is refused, never skipped. A test holds both equal.
"""

import copy
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from k8s.check.transform import (
    DEFAULT_REFERENCES,
    Object,
    Reference,
    add_suffix,
    config_map,
    fix_references,
    label,
    patch,
    place,
    set_images,
)
from loragen.errors import ConfigError

FILE: Final = "kustomization.yaml"
_KNOWN: Final = frozenset(
    {
        "apiVersion",
        "kind",
        "namespace",
        "nameSuffix",
        "resources",
        "components",
        "configurations",
        "configMapGenerator",
        "labels",
        "images",
        "patches",
    }
)


@dataclass(slots=True)
class _Build:
    """What has come together so far: objects, and where they name each other."""

    objects: list[Object] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)


def render(folder: Path) -> tuple[list[Object], str]:
    """Return the objects of a kustomization folder, and by what they were rendered.

    Raises:
        ConfigError: it cannot be rendered; the message says why.
    """
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return render_here(folder), "k8s.check"
    done = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ConfigError(f"{folder}: {done.stderr.strip()}")
    return [each for each in yaml.safe_load_all(done.stdout) if each], "kubectl"


def render_here(folder: Path) -> list[Object]:
    """Return the same without kubectl.

    Raises:
        ConfigError: a file is missing or wrong, or says what only kubectl can do.
    """
    try:
        build = _Build()
        _add(folder, build)
        fix_references(build.objects, [*DEFAULT_REFERENCES, *build.references])
    except (OSError, yaml.YAMLError, LookupError, TypeError) as error:
        raise ConfigError(f"{folder}: {type(error).__name__}: {error}") from error
    return [{key: each[key] for key in each if key != "renamed"} for each in build.objects]


def _add(folder: Path, build: _Build) -> None:
    """Put what one kustomization describes on top of `build`."""
    spec = _load(folder)
    for entry in spec.get("resources", []):
        path = folder / entry
        if path.is_dir():
            below = _Build()
            _add(path, below)
            build.objects += below.objects
            build.references += below.references
        else:
            build.objects += _objects(path)
    for entry in spec.get("components", []):
        _add(folder / entry, build)  # a component works on all that stands so far
    for entry in spec.get("configurations", []):
        build.references += _references(folder / entry)
    build.objects += [config_map(each, folder) for each in spec.get("configMapGenerator", [])]
    _transform(spec, build.objects)


def _transform(spec: Mapping[str, Any], objects: list[Object]) -> None:
    for each in spec.get("patches", []):
        patch(objects, each)
    if "namespace" in spec:
        place(objects, spec["namespace"])
    if "nameSuffix" in spec:
        add_suffix(objects, spec["nameSuffix"])
    for each in spec.get("labels", []):
        label(objects, each)
    set_images(objects, spec.get("images", []))


def _load(folder: Path) -> Mapping[str, Any]:
    content = yaml.safe_load((folder / FILE).read_text(encoding="utf-8"))
    unknown = sorted(set(content) - _KNOWN)
    if unknown:
        raise ConfigError(
            f"{folder / FILE}: {', '.join(unknown)}: only kubectl renders this; put it on PATH"
        )
    loaded: Mapping[str, Any] = content
    return loaded


def _objects(path: Path) -> list[Object]:
    documents = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    return [copy.deepcopy(each) for each in documents if each]


def _references(path: Path) -> Iterator[Reference]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    unknown = sorted(set(content) - {"nameReference"})
    if unknown:
        raise ConfigError(f"{path}: {', '.join(unknown)}: only kubectl renders this")
    for each in content["nameReference"]:
        for at in each["fieldSpecs"]:
            yield Reference(each["kind"], at["kind"], tuple(at["path"].split("/")))
