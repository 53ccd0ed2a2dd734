"""References: what one object says of another is true."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from k8s.check.objects import WORKLOADS, Manifests, Pods, selects, title
from k8s.check.transform import Object

GUIDE: Final = Path("docs/kubernetes.md")
_COMMAND: Final = re.compile(
    r"create secret generic ([a-z0-9-]+)((?:\s*\\?\s*--from-literal=\S+)+)"
)
_LITERAL: Final = re.compile(r"--from-literal=([A-Za-z0-9_.-]+)=")


@dataclass(frozen=True, slots=True)
class DocumentedSecrets:
    """The Secrets whose creation a text documents: name to keys."""

    keys: Mapping[str, frozenset[str]]

    @classmethod
    def read(cls, text: str) -> "DocumentedSecrets":
        """Find the `kubectl create secret generic` commands of a text."""
        found = {
            name: frozenset(_LITERAL.findall(literals)) for name, literals in _COMMAND.findall(text)
        }
        return cls(found)


def reference_problems(manifests: Manifests, secrets: DocumentedSecrets) -> Iterator[str]:
    """Yield references that lead nowhere, or to the wrong place."""
    yield from _duplicates(manifests)
    for each in manifests.objects:
        check = _CHECKS.get(each["kind"])
        if check is not None:
            for problem in check(manifests, each):
                yield f"{title(each)}: {problem}"
    for pods in manifests.pods:
        for problem in _pod_problems(manifests, pods, secrets):
            yield f"{pods.owner}: {problem}"


def _duplicates(manifests: Manifests) -> Iterator[str]:
    titles = [title(each) for each in manifests.objects]
    for name in sorted({each for each in titles if titles.count(each) > 1}):
        yield f"{name}: there are two"


def _service(manifests: Manifests, each: Object) -> Iterator[str]:
    if each["spec"].get("type") == "ExternalName":
        return
    selector = {"matchLabels": each["spec"].get("selector")}
    chosen = [pods for pods in manifests.pods if selects(selector, pods.labels)]
    if not chosen or not each["spec"].get("selector"):
        yield f"selector {each['spec'].get('selector')} selects no pods"
    for port in each["spec"].get("ports") or []:
        target = port.get("targetPort", port.get("port"))
        for pods in chosen:
            number = pods.port(target)
            if number is None:
                yield f"targetPort {target}: {pods.owner} has no such port"
            elif each["spec"].get("clusterIP") == "None" and number != port["port"]:
                # A headless Service only names addresses: nothing translates the port.
                yield f"port {port['port']}: headless, but {pods.owner} listens on {number}"


def _workload(manifests: Manifests, each: Object) -> Iterator[str]:
    selector = each["spec"].get("selector")
    own = title(each)
    for pods in manifests.pods:
        if pods.owner == own and not selects(selector, pods.labels):
            yield "selector does not match the labels of its own pods"
        elif pods.owner != own and selects(selector, pods.labels):
            yield f"selector also selects the pods of {pods.owner}"
    claims = each["spec"].get("serviceName")
    if each["kind"] == "StatefulSet" and manifests.find("Service", claims or "") is None:
        yield f"serviceName {claims}: no such Service"


def _budget(manifests: Manifests, each: Object) -> Iterator[str]:
    spec = each["spec"]
    if not any(selects(spec.get("selector"), pods.labels) for pods in manifests.pods):
        yield "selector selects no pods"
    if ("minAvailable" in spec) == ("maxUnavailable" in spec):
        yield "set one of minAvailable and maxUnavailable"


def _autoscaler(manifests: Manifests, each: Object) -> Iterator[str]:
    target = each["spec"]["scaleTargetRef"]
    workload = manifests.find(target["kind"], target["name"])
    if workload is None or workload["apiVersion"] != target.get("apiVersion"):
        yield f"scaleTargetRef {target['kind']} {target['name']}: no such object"
        return
    if "replicas" in workload["spec"]:
        yield f"{title(workload)} sets replicas, which every apply would reset"
    if each["spec"].get("minReplicas", 1) > each["spec"]["maxReplicas"]:
        yield "minReplicas is above maxReplicas"
    (pods,) = (pods for pods in manifests.pods if pods.owner == title(workload))
    for metric in each["spec"].get("metrics") or []:
        resource = (metric.get("resource") or {}).get("name")
        for container in pods.main if resource else ():
            if resource not in ((container.get("resources") or {}).get("requests") or {}):
                yield f"metric {resource}: container {container['name']} requests none"


_CHECKS: Final = {
    "Service": _service,
    "PodDisruptionBudget": _budget,
    "HorizontalPodAutoscaler": _autoscaler,
    "Deployment": _workload,
    "StatefulSet": _workload,
}


def _pod_problems(manifests: Manifests, pods: Pods, secrets: DocumentedSecrets) -> Iterator[str]:
    account = pods.spec.get("serviceAccountName", "")
    if manifests.find("ServiceAccount", account) is None:
        yield f"serviceAccountName {account or 'missing'}: no such ServiceAccount"
    port = pods.annotations.get("prometheus.io/port")
    if port is not None and (not port.isdigit() or pods.port(int(port)) is None):
        yield f"annotation prometheus.io/port {port}: no container has this port"
    yield from _volume_problems(manifests, pods, secrets)
    for container in pods.containers:
        where = f"container {container.get('name')}"
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            target = ((container.get(probe) or {}).get("httpGet") or {}).get("port")
            if target is not None and pods.port(target) is None:
                yield f"{where}: {probe}: port {target}: no container has this port"
        for variable in container.get("env") or []:
            for problem in _source_problems(manifests, variable.get("valueFrom") or {}, secrets):
                yield f"{where}: env {variable['name']}: {problem}"


def _source_problems(
    manifests: Manifests, source: Mapping[str, Any], secrets: DocumentedSecrets
) -> Iterator[str]:
    if "secretKeyRef" in source:
        yield from _secret_problems(source["secretKeyRef"], secrets)
    if "configMapKeyRef" in source:
        reference = source["configMapKeyRef"]
        found = manifests.find("ConfigMap", reference["name"])
        if found is None or reference["key"] not in (found.get("data") or {}):
            yield f"no ConfigMap {reference['name']} with key {reference['key']}"


def _secret_problems(reference: Mapping[str, str], secrets: DocumentedSecrets) -> Iterator[str]:
    name, key = reference["name"], reference.get("key")
    if name not in secrets.keys:
        yield f"Secret {name}: {GUIDE} has no command that creates it"
    elif key is not None and key not in secrets.keys[name]:
        yield f"Secret {name}: the command in {GUIDE} gives it no key {key}"


def _volume_problems(manifests: Manifests, pods: Pods, secrets: DocumentedSecrets) -> Iterator[str]:
    volumes = {each["name"] for each in pods.spec.get("volumes") or []}
    volumes |= _claimed(manifests, pods)
    for container in pods.containers:
        for mount in container.get("volumeMounts") or []:
            if mount["name"] not in volumes:
                yield f"container {container.get('name')}: volume {mount['name']}: no such volume"
    for volume in pods.spec.get("volumes") or []:
        config = (volume.get("configMap") or {}).get("name")
        if config is not None and manifests.find("ConfigMap", config) is None:
            yield f"volume {volume['name']}: ConfigMap {config}: no such object"
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim is not None and manifests.find("PersistentVolumeClaim", claim) is None:
            yield f"volume {volume['name']}: PersistentVolumeClaim {claim}: no such object"
        secret = (volume.get("secret") or {}).get("secretName")
        if secret is not None:
            for problem in _secret_problems({"name": secret}, secrets):
                yield f"volume {volume['name']}: {problem}"


def _claimed(manifests: Manifests, pods: Pods) -> set[str]:
    owners = [each for kind in WORKLOADS for each in manifests.of_kind(kind)]
    return {
        claim["metadata"]["name"]
        for each in owners
        if title(each) == pods.owner
        for claim in each["spec"].get("volumeClaimTemplates") or []
    }
