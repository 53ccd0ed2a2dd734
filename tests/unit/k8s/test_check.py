"""k8s-check passes our manifests and names each mistake that is planted in them."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.check.check import problems
from k8s.check.references import GUIDE, DocumentedSecrets
from k8s.check.render import render_here

ROOT = Path(__file__).parents[3]
OVERLAYS = sorted(path.parent for path in (ROOT / "k8s").glob("overlays/*/kustomization.yaml"))
SECRETS = DocumentedSecrets.read((ROOT / GUIDE).read_text())

Object = dict[str, Any]


class Cluster:
    """The objects of the small overlay, to plant mistakes in."""

    def __init__(self, objects: list[Object]) -> None:
        self.objects = objects

    def get(self, kind: str, name: str) -> Object:
        (found,) = (
            each
            for each in self.objects
            if each["kind"] == kind and each["metadata"]["name"].startswith(name)
        )
        return found

    def pods(self, kind: str, name: str) -> Object:
        template: Object = self.get(kind, name)["spec"]["template"]
        return template

    def container(self, kind: str, name: str) -> Object:
        container: Object = self.pods(kind, name)["spec"]["containers"][0]
        return container

    @property
    def server(self) -> Object:
        return self.container("Deployment", "server")

    @property
    def worker(self) -> Object:
        return self.container("Deployment", "worker-demo")

    @property
    def ray(self) -> Object:
        cluster: Object = self.get("RayService", "router-service")["spec"]["rayClusterConfig"]
        return cluster

    @property
    def ray_worker(self) -> Object:
        container: Object = self.ray["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
        return container

    def policy(self, name: str) -> Object:
        spec: Object = self.get("NetworkPolicy", name)["spec"]
        return spec

    def configure(self, old: str, new: str) -> None:
        data = self.get("ConfigMap", "loragen-config")["data"]
        assert old in data["loragen.yaml"]
        data["loragen.yaml"] = data["loragen.yaml"].replace(old, new)

    def serve(self, **changes: Any) -> None:
        spec = self.get("RayService", "router-service")["spec"]
        config = yaml.safe_load(spec["serveConfigV2"])
        for path, value in changes.items():
            *way, last = path.split("__")
            place = config
            for part in way:
                place = place[int(part)] if isinstance(place, list) else place[part]
            place[last] = value
        spec["serveConfigV2"] = yaml.safe_dump(config)

    def variable(self, container: Object, name: str) -> Object:
        (found,) = (each for each in container["env"] if each["name"] == name)
        variable: Object = found
        return variable


@pytest.fixture(scope="module")
def rendered() -> list[Object]:
    return render_here(ROOT / "k8s" / "overlays" / "cpu-dev")


@pytest.fixture
def cluster(rendered: list[Object]) -> Cluster:
    return Cluster(copy.deepcopy(rendered))


@pytest.mark.parametrize("folder", OVERLAYS, ids=lambda path: str(path.name))
def test_our_overlays_have_no_problem(folder: Path) -> None:
    assert problems(render_here(folder), SECRETS) == []


MISTAKES: dict[str, tuple[Callable[[Cluster], Any], str]] = {
    # Form
    "unknown field": (
        lambda c: c.server.update(imagePullPolice="Always"),
        "Deployment server: spec.template.spec.containers.0: .*imagePullPolice",
    ),
    "wrong type": (
        lambda c: c.get("Deployment", "worker-demo")["spec"].update(replicas="two"),
        "Deployment worker-demo: spec.replicas: 'two' is not of type",
    ),
    "unknown RayService field": (
        lambda c: c.get("RayService", "router")["spec"].update(serveConfigV3="x"),
        "RayService router-service: spec: .*serveConfigV3",
    ),
    "unknown field in a Ray pod": (
        lambda c: c.ray_worker.update(comand=["ray"]),
        "RayService router-service: .*comand",
    ),
    # Policy
    "root user": (
        lambda c: c.pods("Deployment", "server")["spec"]["securityContext"].update(runAsUser=0),
        "Deployment server: container server: runAsUser",
    ),
    "may be root": (
        lambda c: c.ray_worker["securityContext"].update(runAsNonRoot=False),
        "RayService router-service: generators: container ray-worker: runAsNonRoot",
    ),
    "writable root": (
        lambda c: c.worker["securityContext"].update(readOnlyRootFilesystem=False),
        "Deployment worker-demo: container worker: readOnlyRootFilesystem",
    ),
    "capabilities kept": (
        lambda c: c.server["securityContext"].update(capabilities={"drop": ["NET_RAW"]}),
        "Deployment server: container server: capabilities",
    ),
    "no seccomp": (
        lambda c: c.pods("StatefulSet", "redis")["spec"]["securityContext"].pop("seccompProfile"),
        "StatefulSet redis: container redis: seccompProfile",
    ),
    "API token mounted": (
        lambda c: c.pods("Deployment", "worker")["spec"].pop("automountServiceAccountToken"),
        "Deployment worker-demo: automountServiceAccountToken",
    ),
    "service links": (
        lambda c: c.pods("Deployment", "server")["spec"].pop("enableServiceLinks"),
        "Deployment server: enableServiceLinks",
    ),
    "missing limits": (
        lambda c: c.worker["resources"].pop("limits"),
        "Deployment worker-demo: container worker: resources.limits.memory",
    ),
    "no probe": (
        lambda c: c.worker.pop("readinessProbe"),
        "Deployment worker-demo: container worker: no readinessProbe",
    ),
    "image tag latest": (
        lambda c: c.server.update(image="registry.example.com:5000/loragen-server:latest"),
        "Deployment server: container server: image .*latest",
    ),
    "image without tag": (
        lambda c: c.worker.update(image="registry.example.com:5000/loragen-worker"),
        "Deployment worker-demo: container worker: image",
    ),
    "secret value": (
        lambda c: c.variable(c.server, "LORAGEN_MASTER_SECRET").update(value="ab", valueFrom=None),
        "Deployment server: container server: env LORAGEN_MASTER_SECRET: a secret value",
    ),
    "no emptyDir for tmp": (
        lambda c: c.server["volumeMounts"].pop(),
        "Deployment server: container server: no emptyDir at /tmp",
    ),
    # References
    "selector mismatch": (
        lambda c: c.get("Service", "server")["spec"]["selector"].update(tier="front"),
        "Service server: selector .* selects no pods",
    ),
    "selector of another's pods": (
        lambda c: c.get("Deployment", "server")["spec"].update(
            selector={"matchLabels": {"app.kubernetes.io/part-of": "loragen"}}
        ),
        "Deployment server: selector also selects the pods of Deployment worker-demo",
    ),
    "target port": (
        lambda c: c.get("Service", "server")["spec"]["ports"][0].update(targetPort="web"),
        "Service server: targetPort web",
    ),
    "headless port": (
        lambda c: c.get("Service", "worker-demo")["spec"]["ports"][0].update(port=80),
        "Service worker-demo: port 80: headless",
    ),
    "PDB target": (
        lambda c: c.get("PodDisruptionBudget", "server")["spec"]["selector"].update(
            matchLabels={"app.kubernetes.io/component": "gateway"}
        ),
        "PodDisruptionBudget server: selector selects no pods",
    ),
    "HPA target": (
        lambda c: c.get("HorizontalPodAutoscaler", "server")["spec"]["scaleTargetRef"].update(
            name="gateway"
        ),
        "HorizontalPodAutoscaler server: scaleTargetRef Deployment gateway",
    ),
    "HPA metric": (
        lambda c: c.server["resources"]["requests"].pop("cpu"),
        "HorizontalPodAutoscaler server: metric cpu: container server requests none",
    ),
    "replicas beside an HPA": (
        lambda c: c.get("Deployment", "server")["spec"].update(replicas=2),
        "HorizontalPodAutoscaler server: Deployment server sets replicas",
    ),
    "missing secret": (
        lambda c: c.variable(c.server, "LORAGEN_REDIS_URL")["valueFrom"]["secretKeyRef"].update(
            name="redis-credentials"
        ),
        "Deployment server: .*env LORAGEN_REDIS_URL: Secret redis-credentials",
    ),
    "missing secret key": (
        lambda c: c.variable(c.worker, "LORAGEN_WORKER_SECRET")["valueFrom"]["secretKeyRef"].update(
            key="token"
        ),
        "Deployment worker-demo: .*Secret loragen-worker: .* no key token",
    ),
    "missing ConfigMap": (
        lambda c: c.objects.remove(c.get("ConfigMap", "redis-config")),
        "StatefulSet redis: volume config: ConfigMap redis-config",
    ),
    "missing service account": (
        lambda c: c.objects.remove(c.get("ServiceAccount", "redis")),
        "StatefulSet redis: serviceAccountName redis",
    ),
    "missing volume": (
        lambda c: c.pods("Deployment", "worker")["spec"]["volumes"].pop(),
        "Deployment worker-demo: container worker: volume shm",
    ),
    "scrape port": (
        lambda c: c.pods("Deployment", "server")["metadata"]["annotations"].update(
            {"prometheus.io/port": "8000"}
        ),
        "Deployment server: annotations prometheus.io: the metrics are on port 9000",
    ),
    # Network
    "network policy peer": (
        lambda c: c.policy("redis")["ingress"][0]["from"][0]["podSelector"].update(
            matchLabels={"app.kubernetes.io/component": "gateway"}
        ),
        "NetworkPolicy redis: peer .*gateway.* is no pod",
    ),
    "network policy cuts off": (
        lambda c: c.policy("server")["egress"].pop(0),
        "NetworkPolicy: Deployment server cannot reach port http of Deployment worker-demo",
    ),
    "network policy opens": (
        lambda c: c.policy("router-service")["ingress"][1].pop("ports"),
        "NetworkPolicy: Deployment server can reach port any other port of RayService",
    ),
    "network policy port": (
        lambda c: c.policy("worker")["ingress"][0]["ports"][0].update(port="grpc"),
        "NetworkPolicy worker: port grpc",
    ),
    "network policy lets everyone in": (
        lambda c: c.policy("redis")["ingress"][0].pop("from"),
        "NetworkPolicy redis: an ingress rule lets everyone in",
    ),
    "other namespaces reach Redis": (
        lambda c: c.policy("redis")["ingress"][0]["from"].append({"namespaceSelector": {}}),
        "NetworkPolicy redis: lets other namespaces reach port redis of StatefulSet redis",
    ),
    "no default deny": (
        lambda c: c.objects.remove(c.get("NetworkPolicy", "default-deny")),
        "NetworkPolicy: none denies everything by default",
    ),
    # The code
    "wrong port": (
        lambda c: c.server["ports"][0].update(containerPort=8080),
        "Deployment server: containerPort api is 8080, but server.port is 8000",
    ),
    "wrong worker port": (
        lambda c: c.configure("dtype: float32", "port: 8009\n    dtype: float32"),
        "Deployment worker-demo: containerPort http is 8001, .* demo is 8009",
    ),
    "probe path": (
        lambda c: c.server["readinessProbe"]["httpGet"].update(path="/healthz"),
        "Deployment server: readinessProbe: the process answers no path /healthz",
    ),
    "worker's probe path": (
        lambda c: c.worker["livenessProbe"]["httpGet"].update(path="/ready"),
        "Deployment worker-demo: livenessProbe: the process answers no path /ready",
    ),
    "probe on another port": (
        lambda c: c.ray_worker["readinessProbe"]["httpGet"].update(port="agent"),
        "RayService router-service: .*readinessProbe: /-/healthz is answered on port serve",
    ),
    "env name": (
        lambda c: c.variable(c.server, "LORAGEN_MASTER_SECRET").update(name="LORAGEN_MASTER_KEY"),
        "Deployment server: container server: env LORAGEN_MASTER_KEY: no such setting",
    ),
    "secret that a process lacks": (
        lambda c: c.server["env"].remove(c.variable(c.server, "LORAGEN_WORKER_SECRET")),
        "Deployment server: env LORAGEN_WORKER_SECRET is missing",
    ),
    "secret that a process does not need": (
        lambda c: c.worker["env"].append(c.variable(c.server, "LORAGEN_MASTER_SECRET")),
        "Deployment worker-demo: env LORAGEN_MASTER_SECRET: this process needs no such secret",
    ),
    "variable over the file": (
        lambda c: c.server["env"].append({"name": "LORAGEN_SERVER__PORT", "value": "8080"}),
        "Deployment server: containerPort api is 8000, but server.port is 8080",
    ),
    "variable of a wrong type": (
        lambda c: c.worker["env"].append({"name": "LORAGEN_LOGS__LEVEL", "value": "loud"}),
        "Deployment worker-demo: configuration: logs.level: Input should be 'DEBUG'",
    ),
    "config key": (
        lambda c: c.configure("metrics_port", "metric_port"),
        "Deployment server: configuration: server.metric_port: Extra inputs",
    ),
    "config file": (
        lambda c: c.variable(c.server, "LORAGEN_CONFIG").update(value="/etc/loragen/prod.yaml"),
        "Deployment server: configuration: LORAGEN_CONFIG names /etc/loragen/prod.yaml",
    ),
    "closed gateway": (
        lambda c: c.configure("auth: keys", "auth: open"),
        "Deployment server: server.auth is open",
    ),
    "admin API on every address": (
        lambda c: c.configure("admin_port: 8010", "admin_port: 8010\n  admin_host: 0.0.0.0"),
        "Deployment server: server.admin_host is 0.0.0.0",
    ),
    "admin API as a port of the pod": (
        lambda c: c.server["ports"].append({"name": "admin", "containerPort": 8010}),
        "Deployment server: containerPort 8010 is the admin API's",
    ),
    "grace shorter than the drain": (
        lambda c: c.pods("Deployment", "server")["spec"].update(terminationGracePeriodSeconds=30),
        "Deployment server: terminationGracePeriodSeconds 30: .* is 70",
    ),
    "grace shorter than a worker's drain": (
        lambda c: c.pods("Deployment", "worker")["spec"].update(terminationGracePeriodSeconds=20),
        "Deployment worker-demo: terminationGracePeriodSeconds 20: drain_timeout_seconds .* is 50",
    ),
    "command that does not exist": (
        lambda c: c.server.update(command=["python", "-m", "gateway"]),
        "Deployment server: command: no module gateway",
    ),
    "command of another process": (
        lambda c: c.server.update(command=["python", "-m", "workers", "--edge-model=demo"]),
        "Deployment server: command: workers is not server",
    ),
    "command that is none of ours": (
        lambda c: c.worker.update(command=["vllm", "serve"]),
        "Deployment worker-demo: command .*vllm.* start with python -m",
    ),
    "configuration that makes no gateway": (
        lambda c: c.get("ConfigMap", "loragen-config")["data"].update(
            {"loragen.yaml": "server: {host: 0.0.0.0, auth: keys}"}
        ),
        "Deployment server: configuration: edge_models: configure at least one",
    ),
    "option that does not exist": (
        lambda c: c.worker["command"].insert(3, "--tensor-parallel=2"),
        "Deployment worker-demo: command: No such option.*--tensor-parallel",
    ),
    "edge model that is not configured": (
        lambda c: c.worker.update(args=["other"]),
        "Deployment worker-demo: no edge model 'other'",
    ),
    "edge model without workers": (
        lambda c: c.configure(
            "generator:\n  url", "  - {name: second, model: /m}\ngenerator:\n  url"
        ),
        "edge model second: no Deployment of workers serves it",
    ),
    "worker service": (
        lambda c: c.configure("http://worker-demo:8001", "http://workers:8001"),
        "edge model demo: worker_service: no Service workers",
    ),
    "worker service that is not headless": (
        lambda c: c.get("Service", "worker-demo")["spec"].pop("clusterIP"),
        "edge model demo: worker_service: Service worker-demo is not headless",
    ),
    "next worker service": (
        lambda c: c.configure(
            "    dtype: float32",
            "    next_worker_service: http://worker-next:8001\n    dtype: float32",
        ),
        "edge model demo: next_worker_service: no Service worker-next",
    ),
    "workers of a next pool that is not configured": (
        lambda c: c.worker.update(args=["demo", "--next"]),
        "Deployment worker-demo: --next: edge model demo has no next_generator",
    ),
    "workers of the next pool beside those of now": (
        lambda c: c.worker.update(args=["demo", "--next"]),
        "Deployment worker-demo: label loragen.io/edge-model is not demo-next",
    ),
    # RayService
    "import path": (
        lambda c: c.serve(applications__0__import_path="router_service.app:app"),
        "RayService router-service: import_path router_service.app:app",
    ),
    "unknown Serve field": (
        lambda c: c.serve(applications__0__import_pth="x"),
        "RayService router-service: serveConfigV2: applications: .*import_pth",
    ),
    "Serve port": (
        lambda c: c.serve(http_options__port=8000),
        "RayService router-service: http_options.port 8000: generator.port is 8100",
    ),
    "Serve timeout": (
        lambda c: c.serve(http_options__request_timeout_s=30),
        "RayService router-service: http_options.request_timeout_s 30",
    ),
    "generator address": (
        lambda c: c.configure("http://router-service-serve-svc:8100", "http://generator:8100"),
        "generator.url http://generator:8100/: no RayService makes the Service",
    ),
    "Ray without token": (
        lambda c: c.ray.pop("authOptions"),
        "RayService router-service: authOptions.mode is not token",
    ),
    "Ray version": (
        lambda c: c.ray.update(rayVersion="2.40.0"),
        "RayService router-service: rayVersion 2.40.0: the lock has ray 2.60",
    ),
    "too few CPUs for the generators": (
        lambda c: c.configure("ray_address: auto", "ray_address: auto\n  replicas: 4"),
        "RayService router-service: the worker groups offer 2 CPUs",
    ),
    "too few CPUs for the refiners": (
        lambda c: c.configure(
            "generator:\n  url", "  - {name: second, model: /m, pool: /p}\ngenerator:\n  url"
        ),
        "generator.replicas x threads is 1 x 1, and 2 refiners take 1 each",
    ),
    "generators on loopback": (
        lambda c: c.configure("  ray_address: auto\n", ""),
        "RayService router-service: .*generator.ray_address is not set",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_named(cluster: Cluster, name: str) -> None:
    plant, says = MISTAKES[name]
    plant(cluster)
    found = problems(cluster.objects, SECRETS)
    assert any(re.search(says, line) for line in found), found


def test_every_secret_that_a_pod_names_is_created_by_a_documented_command() -> None:
    assert {"loragen-master", "loragen-redis", "loragen-ray"} <= set(SECRETS.keys)
    assert SECRETS.keys["loragen-redis"] == {"password", "url"}
