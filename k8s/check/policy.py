"""Policy: what every pod and every object of ours keeps to, whoever it is."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from config.settings import SECRET_FIELDS
from k8s.check.objects import OURS, Manifests, Pods, title

_PROBES: Final = ("startupProbe", "readinessProbe", "livenessProbe")
_LABELS: Final = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "app.kubernetes.io/part-of",
)
_SECRET_NAME: Final = re.compile(
    "|".join(SECRET_FIELDS) + "|password|token|secret|api_?key|auth$", re.IGNORECASE
)


def policy_problems(manifests: Manifests) -> Iterator[str]:
    """Yield where pods may more than they need, or lack what operation needs."""
    for each in manifests.of_kind("Secret"):
        yield f"{title(each)}: secrets do not stand in manifests: name it, and document its command"
    for pods in manifests.pods:
        for problem in (
            *_label_problems(pods),
            *_pod_problems(pods),
            *_token_problems(manifests, pods),
            *_volume_problems(pods),
        ):
            yield f"{pods.owner}: {problem}"
        for container in pods.containers:
            where = f"{pods.owner}: container {container.get('name')}"
            for problem in _container_problems(pods, container):
                yield f"{where}: {problem}"
        if pods.kind not in ("Job", "CronJob"):
            for container in pods.main:
                for probe in _PROBES:
                    if probe not in container:
                        yield f"{pods.owner}: container {container.get('name')}: no {probe}"


def _label_problems(pods: Pods) -> Iterator[str]:
    for label in _LABELS:
        if label not in pods.labels:
            yield f"pods have no label {label}"


def _token_problems(manifests: Manifests, pods: Pods) -> Iterator[str]:
    account = pods.spec.get("serviceAccountName")
    has_a_role = any(
        subject.get("kind") == "ServiceAccount" and subject.get("name") == account
        for each in manifests.of_kind("RoleBinding")
        for subject in each.get("subjects") or []
    )
    if pods.spec.get("automountServiceAccountToken") is not False and not has_a_role:
        yield "automountServiceAccountToken is not false: the pod holds a key to the API server"


def _pod_problems(pods: Pods) -> Iterator[str]:
    spec = pods.spec
    if spec.get("enableServiceLinks") is not False:
        # Kubernetes would put LORAGEN_*- and VLLM_*-like variables of Services into the pod.
        yield "enableServiceLinks is not false: Services put variables into the environment"
    if "terminationGracePeriodSeconds" not in spec:
        yield "terminationGracePeriodSeconds is not set"
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"{name} is set"
    if pods.kind == "Deployment" and not spec.get("topologySpreadConstraints"):
        yield "no topologySpreadConstraints: one node may hold all replicas"


def _volume_problems(pods: Pods) -> Iterator[str]:
    for volume in pods.spec.get("volumes") or []:
        if "hostPath" in volume:
            yield f"volume {volume['name']} is a hostPath"
        if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit"):
            yield f"volume {volume['name']}: an emptyDir without sizeLimit can fill the node"


def _container_problems(pods: Pods, container: Mapping[str, Any]) -> Iterator[str]:
    yield from _security_problems(pods, container)
    yield from _image_problems(container.get("image", ""))
    resources = container.get("resources") or {}
    for kind, name in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
        if name not in (resources.get(kind) or {}):
            yield f"resources.{kind}.{name} is missing"
    for port in container.get("ports") or []:
        if "hostPort" in port:
            yield f"port {port['containerPort']} is a hostPort"
    for variable in container.get("env") or []:
        if "value" in variable and _SECRET_NAME.search(variable["name"]):
            yield f"env {variable['name']}: a secret value; take it from a Secret"
    if pods.component in OURS and "/tmp" not in _writable(pods, container):  # noqa: S108 - a path inside the pod
        yield "no emptyDir at /tmp, and the root file system is read-only"


def _security_problems(pods: Pods, container: Mapping[str, Any]) -> Iterator[str]:
    pod = pods.spec.get("securityContext") or {}
    own = container.get("securityContext") or {}
    context = {**pod, **own}
    if context.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if not isinstance(context.get("runAsUser"), int) or context["runAsUser"] == 0:
        yield "runAsUser is not a number above 0"
    if (context.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "seccompProfile is not RuntimeDefault"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "readOnlyRootFilesystem is not true"
    if own.get("privileged"):
        yield "privileged is set"
    capabilities = own.get("capabilities") or {}
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield "capabilities are not all dropped"


def _image_problems(image: str) -> Iterator[str]:
    name = image.rpartition("/")[2]
    tag = name.partition(":")[2]
    if "@sha256:" not in image and tag in ("", "latest"):
        yield f"image {image or 'missing'}: name a version, not latest"


def _writable(pods: Pods, container: Mapping[str, Any]) -> set[str]:
    empty = {each["name"] for each in pods.spec.get("volumes") or [] if "emptyDir" in each}
    mounts = container.get("volumeMounts") or []
    return {each.get("mountPath", "") for each in mounts if each.get("name") in empty}
