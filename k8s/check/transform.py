"""Transform: what a kustomization does to objects, for the features our manifests use.

An object that changes its name keeps the old one under `renamed` until references are fixed.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from loragen.errors import ConfigError

Object = dict[str, Any]

_CLUSTER_WIDE: Final = frozenset(
    {"Namespace", "ClusterRole", "ClusterRoleBinding", "PriorityClass"}
)
_TEMPLATE: Final = ("spec", "template", "metadata", "labels")
_SELECTORS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "Service": (("spec", "selector"),),
    "PodDisruptionBudget": (("spec", "selector", "matchLabels"),),
    "NetworkPolicy": (("spec", "podSelector", "matchLabels"),),
    "Deployment": (("spec", "selector", "matchLabels"), _TEMPLATE),
    "StatefulSet": (("spec", "selector", "matchLabels"), _TEMPLATE),
}
_SPREAD: Final = ("spec", "template", "spec", "topologySpreadConstraints")
# kustomize writes hashes without vowels and ambiguous digits.
_HASH_LETTERS: Final = str.maketrans({"0": "g", "1": "h", "3": "k", "a": "m", "e": "t"})


@dataclass(frozen=True, slots=True)
class Reference:
    """A place in objects of kind `holder` that names an object of kind `target`."""

    target: str
    holder: str
    path: tuple[str, ...]


def _in_pods(target: str, *path: str) -> Iterator[Reference]:
    for holder in ("Deployment", "StatefulSet"):
        yield Reference(target, holder, ("spec", "template", "spec", *path))


DEFAULT_REFERENCES: Final = (
    *_in_pods("ConfigMap", "volumes", "configMap", "name"),
    *_in_pods("ServiceAccount", "serviceAccountName"),
    Reference("Service", "StatefulSet", ("spec", "serviceName")),
    Reference("Deployment", "HorizontalPodAutoscaler", ("spec", "scaleTargetRef", "name")),
)


def config_map(spec: Mapping[str, Any], folder: Path) -> Object:
    """Return the ConfigMap of a `configMapGenerator` entry, named with the hash of its content."""
    options = spec.get("options", {})
    unknown = sorted(
        set(spec) - {"name", "files", "options"}
        | set(options) - {"labels", "disableNameSuffixHash"}
    )
    if unknown:
        raise ConfigError(f"{folder}: configMapGenerator: {', '.join(unknown)}: not rendered here")
    data = {}
    for entry in spec["files"]:
        key, _, path = entry.rpartition("=")
        data[key or Path(path).name] = (folder / path).read_text(encoding="utf-8")
    made: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": spec["name"]},
        "data": data,
    }
    if "labels" in options:
        made["metadata"]["labels"] = dict(options["labels"])
    if not options.get("disableNameSuffixHash", False):
        _rename(made, f"{spec['name']}-{_content_hash(data)}")
    return made


def patch(objects: Sequence[Object], spec: Mapping[str, Any]) -> None:
    """Apply a JSON patch to the objects that its target names."""
    target = spec["target"]
    steps = yaml.safe_load(spec["patch"])
    unknown = sorted(set(spec) - {"target", "patch"} | set(target) - {"kind", "name"})
    if unknown or not isinstance(steps, list):
        raise ConfigError("patches: only JSON patches by kind and name are rendered here")
    matching = [
        each
        for each in objects
        if each["kind"] == target["kind"]
        and ("name" not in target or target["name"] in _names(each))
    ]
    if not matching:
        raise ConfigError(f"patches: no {target['kind']} {target.get('name', '')}".rstrip())
    for each in matching:
        for step in steps:
            _apply(each, step)


def place(objects: Sequence[Object], namespace: str) -> None:
    """Put every object that lives in a namespace into this one."""
    for each in objects:
        if each["kind"] == "Namespace":
            each["metadata"]["name"] = namespace
        elif each["kind"] not in _CLUSTER_WIDE:
            each["metadata"]["namespace"] = namespace
        for subject in each.get("subjects", []):
            if subject["kind"] == "ServiceAccount":
                subject["namespace"] = namespace


def add_suffix(objects: Sequence[Object], suffix: str) -> None:
    """Rename every object; what names them follows in `fix_references`."""
    for each in objects:
        if each["kind"] != "Namespace":
            _rename(each, each["metadata"]["name"] + suffix)
    fix_references(objects, DEFAULT_REFERENCES)


def label(objects: Sequence[Object], spec: Mapping[str, Any]) -> None:
    """Add labels to objects and, as asked, to their pod templates and selectors."""
    pairs = spec["pairs"]
    for each in objects:
        each["metadata"].setdefault("labels", {}).update(pairs)
        if spec.get("includeSelectors", False):
            for path in _SELECTORS.get(each["kind"], ()):
                _make(each, path).update(pairs)
            for spread in _find(each, _SPREAD):
                for constraint in spread:
                    _make(constraint, ("labelSelector", "matchLabels")).update(pairs)
        elif spec.get("includeTemplates", False) and each["kind"] in ("Deployment", "StatefulSet"):
            _make(each, _TEMPLATE).update(pairs)
        if {"includeSelectors", "includeTemplates"} & {key for key in spec if spec[key]}:
            for claims in _find(each, ("spec", "volumeClaimTemplates")):
                for claim in claims:
                    _make(claim, ("metadata", "labels")).update(pairs)


def set_images(objects: Sequence[Object], images: Sequence[Mapping[str, str]]) -> None:
    """Replace names and tags of images wherever containers stand."""
    for container in _containers(list(objects)):
        name, _, tag = container["image"].rpartition(":")
        for image in images:
            if image["name"] == name:
                container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"


def fix_references(objects: Sequence[Object], references: Sequence[Reference]) -> None:
    """Let every reference to a renamed object name it as it is called."""
    for reference in references:
        called = {
            old: each["metadata"]["name"]
            for each in objects
            if each["kind"] == reference.target
            for old in each.get("renamed", ())
        }
        for each in objects:
            if each["kind"] == reference.holder:
                for parent in _find(each, reference.path[:-1]):
                    _replace(parent, reference.path[-1], called)


def _replace(parent: Any, key: str, called: Mapping[str, str]) -> None:
    for each in parent if isinstance(parent, list) else [parent]:
        if each.get(key) in called:
            each[key] = called[each[key]]


def _names(each: Object) -> tuple[str, ...]:
    return (each["metadata"]["name"], *each.get("renamed", ()))


def _rename(each: Object, name: str) -> None:
    each["renamed"] = _names(each)
    each["metadata"]["name"] = name


def _content_hash(data: Mapping[str, str]) -> str:
    text = json.dumps(
        {"data": dict(data), "kind": "ConfigMap", "name": ""},  # kustomize hashes no name
        separators=(",", ":"),
        sort_keys=True,
        ensure_ascii=False,
    )
    for character in "<>&":  # Go's encoder writes these for the sake of HTML
        text = text.replace(character, f"\\u{ord(character):04x}")
    return hashlib.sha256(text.encode()).hexdigest()[:10].translate(_HASH_LETTERS)


def _find(node: Any, path: Sequence[str]) -> Iterator[Any]:
    """Yield what stands at `path`, through every element of the lists on the way."""
    if isinstance(node, list):
        for each in node:
            yield from _find(each, path)
    elif not path:
        yield node
    elif isinstance(node, dict) and path[0] in node:
        below = node[path[0]]
        if len(path) == 1:
            yield below
        else:
            yield from _find(below, path[1:])


def _make(node: Object, path: Sequence[str]) -> Object:
    for key in path:
        node = node.setdefault(key, {})
    return node


def _containers(node: Any) -> Iterator[Object]:
    if isinstance(node, list):
        for each in node:
            yield from _containers(each)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("containers", "initContainers") and isinstance(value, list):
                yield from (each for each in value if "image" in each)
            else:
                yield from _containers(value)


def _apply(document: Object, step: Mapping[str, Any]) -> None:
    """Apply one step of a JSON patch (RFC 6902): add, replace or remove."""
    *way, last = (
        part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]
    )
    parent: Any = document
    for part in way:
        parent = parent[int(part)] if isinstance(parent, list) else parent[part]
    if isinstance(parent, list):
        if step["op"] == "add":
            parent.insert(len(parent) if last == "-" else int(last), step["value"])
        elif step["op"] == "replace":
            parent[int(last)] = step["value"]
        else:
            del parent[int(last)]
    elif step["op"] in ("add", "replace"):
        if step["op"] == "replace" and last not in parent:
            raise ConfigError(f"patches: nothing at {step['path']}")
        parent[last] = step["value"]
    else:
        del parent[last]
