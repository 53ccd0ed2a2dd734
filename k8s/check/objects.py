"""Objects: the rendered manifests, and the pods that they make."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from k8s.check.transform import Object

COMPONENT: Final = "app.kubernetes.io/component"
EDGE_MODEL: Final = "loragen.io/edge-model"
NEXT: Final = "-next"
"""Behind the edge model in that label, on the workers of its next pool."""
OURS: Final = frozenset({"server", "worker", "router-service", "redis"})
"""The components of the system itself; what else stands in the manifests keeps to general rules."""
WORKLOADS: Final = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")


def title(each: Object) -> str:
    """Return an object's kind and name, as problems name it."""
    return f"{each['kind']} {each['metadata']['name']}"


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods that one template makes."""

    owner: str
    kind: str
    template: Mapping[str, Any]

    @property
    def labels(self) -> Mapping[str, str]:
        """Their labels."""
        return self.template.get("metadata", {}).get("labels") or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        """Their annotations."""
        return self.template.get("metadata", {}).get("annotations") or {}

    @property
    def spec(self) -> Mapping[str, Any]:
        """Their specification."""
        return self.template.get("spec") or {}

    @property
    def component(self) -> str:
        """The part of the system that they are, or nothing."""
        return self.labels.get(COMPONENT, "")

    @property
    def main(self) -> Sequence[Mapping[str, Any]]:
        """The containers that run all the time."""
        return self.spec.get("containers") or []

    @property
    def containers(self) -> Sequence[Mapping[str, Any]]:
        """All containers."""
        return [*(self.spec.get("initContainers") or []), *self.main]

    def ports(self) -> Iterator[Mapping[str, Any]]:
        """Yield the ports of the containers."""
        for container in self.main:
            yield from container.get("ports") or []

    def port(self, name_or_number: str | int) -> int | None:
        """Return the number of a port that a container has, by name or number."""
        for port in self.ports():
            if name_or_number in (port.get("name"), port.get("containerPort")):
                return int(port["containerPort"])
        return None


class Manifests:
    """All objects of one rendered folder."""

    def __init__(self, objects: Sequence[Object]) -> None:
        self.objects = objects
        self.pods = tuple(pods for each in objects for pods in _pods(each))

    def of_kind(self, kind: str) -> list[Object]:
        """Return the objects of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def find(self, kind: str, name: str) -> Object | None:
        """Return one object."""
        for each in self.of_kind(kind):
            if each["metadata"]["name"] == name:
                return each
        return None

    def of_component(self, component: str) -> list[Pods]:
        """Return the pods that are one part of the system."""
        return [pods for pods in self.pods if pods.component == component]


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects these labels; an empty one selects all."""
    selector = selector or {}
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _meets(each, labels) for each in selector.get("matchExpressions") or []
    )


def _meets(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case _:
            return value is None


def _pods(each: Object) -> Iterator[Pods]:
    spec = each.get("spec") or {}
    if each["kind"] in WORKLOADS:
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        yield Pods(title(each), each["kind"], spec.get("template") or {})
    elif each["kind"] == "RayService":
        cluster = spec.get("rayClusterConfig") or {}
        head = cluster.get("headGroupSpec") or {}
        yield Pods(f"{title(each)}: head", each["kind"], head.get("template") or {})
        for group in cluster.get("workerGroupSpecs") or []:
            owner = f"{title(each)}: {group.get('groupName', 'group')}"
            yield Pods(owner, each["kind"], group.get("template") or {})
