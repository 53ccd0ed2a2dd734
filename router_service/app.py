"""App: the Ray Serve application; the only place where classes become deployments.

    HTTP proxy -> front (1 replica) -> generator-<cloud model> (replicas, batches) ...
                                    -> refiner-<edge model> (1 replica, batches) ...

A Serve config file names it as `import_path: router_service.app:application`.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette

from config.generator import GeneratorSettings
from config.load import load_settings
from config.secret_store import SecretStore
from config.settings import Settings
from loragen.errors import ArtifactCorrupt, LoragenError
from loragen.families import compiled_template
from loragen.logs import configure_logs
from loragen.own_template import OwnTemplate
from loragen.wire import (
    CompileReply,
    CompileRequest,
    Head,
    MeasureReply,
    MeasureRequest,
    RefineReply,
    RefineRequest,
)
from router_service.front import Front
from router_service.generator_actor import Compiler, GeneratorActor, Outcome
from router_service.loopback import bind_replica_to_loopback
from router_service.plan import CloudPlan, RefinerPlan, ServicePlan, plan_service
from router_service.refiner_actor import Outcome as RefineOutcome
from router_service.refiner_actor import Refiner, RefinerActor
from router_service.remote import RemoteGenerators, RemoteRefiners

APPLICATION: Final = "loragen"
FRONT_CONCURRENCY: Final = 10_000
"""Never the limit: generators queue and refuse, so that /health is answered in any case."""


class ServedGenerator:
    """A generator actor whose single compiles wait for each other in batches."""

    def __init__(self, folders: Mapping[str, Path], options: GeneratorSettings, level: str) -> None:
        _settle(options, level)
        _use_threads(options.threads)
        self._actor = GeneratorActor(folders, _load)
        self._batched.set_max_batch_size(options.batch_size)
        self._batched.set_batch_wait_timeout_s(options.batch_wait_seconds)

    async def compile(self, request: CompileRequest) -> CompileReply:
        """Compile one prompt, in a batch with others that wait.

        Raises:
            LoragenError: why it cannot be compiled.
        """
        outcome: Outcome = await self._batched(request)
        if isinstance(outcome, LoragenError):
            raise outcome
        return outcome

    async def heads(self) -> tuple[Head, ...]:
        """Return what this actor compiles for."""
        return await self._actor.heads()

    @serve.batch  # type: ignore[untyped-decorator]
    async def _batched(self, requests: Sequence[CompileRequest]) -> list[Outcome]:
        return await self._actor.compile_batch(requests)


class ServedRefiner:
    """A refiner actor whose single refines wait for each other in batches."""

    def __init__(self, plan: RefinerPlan, options: GeneratorSettings, level: str) -> None:
        _settle(options, level)
        self._actor = RefinerActor(plan.model.name, lambda: _load_refiner(plan, options))
        self._timeout_seconds = options.refine_timeout_seconds
        self._batched.set_max_batch_size(options.refine_batch_size)
        self._batched.set_batch_wait_timeout_s(options.batch_wait_seconds)

    async def refine(self, request: RefineRequest) -> RefineReply:
        """Refine one task, in a batch with others that wait.

        Raises:
            LoragenError: why it cannot be refined.
        """
        self._actor.require_pool(request.start)
        deadline = time.monotonic() + self._timeout_seconds
        outcome: RefineOutcome = await self._batched((request, deadline))
        if isinstance(outcome, LoragenError):
            raise outcome
        return outcome

    async def measure(self, request: MeasureRequest) -> MeasureReply:
        """Measure the recipe of one task.

        Raises:
            LoragenError: why it cannot be measured.
        """
        self._actor.require_pool(request.recipe)
        return await self._actor.measure(request)

    @serve.batch  # type: ignore[untyped-decorator]
    async def _batched(self, asked: Sequence[tuple[RefineRequest, float]]) -> list[RefineOutcome]:
        requests, deadlines = zip(*asked, strict=True)
        return await self._actor.refine_batch(requests, deadline=max(deadlines))


class ServedFront:
    """The HTTP interface over the handles of all other deployments."""

    def __init__(
        self,
        generator_handles: Mapping[str, Sequence[DeploymentHandle]],
        refiner_handles: Mapping[str, Sequence[DeploymentHandle]],
        options: GeneratorSettings,
        *,
        level: str,
        secret: str,
        max_body_bytes: int,
    ) -> None:
        _settle(options, level)
        generators = RemoteGenerators(
            generator_handles,
            timeout_seconds=options.timeout_seconds,
            max_pending=options.replicas * _capacity(options),
        )
        refiners = RemoteRefiners(
            refiner_handles,
            timeout_seconds=options.refine_timeout_seconds,
            max_pending=_refine_capacity(options),
        )
        front = Front(generators, refiners, secret=secret, max_body_bytes=max_body_bytes)
        self._app = front.create()

    def __serve_build_asgi_app__(self) -> Starlette:
        """Return the application that Serve mounts."""
        return self._app


def build(settings: Settings, plan: ServicePlan) -> Application:
    """Return the Serve application of a plan."""
    options, level = settings.generator, settings.logs.level
    generators: dict[str, list[Any]] = defaultdict(list)
    for cloud in plan.clouds:
        deployed = _generator_deployment(cloud, options).bind(dict(cloud.folders), options, level)
        for edge_model in cloud.folders:
            generators[edge_model].append(deployed)
    refiners: dict[str, list[Any]] = defaultdict(list)
    for each in plan.refiners:
        deployed = _refiner_deployment(each, options).bind(each, options, level)
        refiners[each.model.name].append(deployed)
    front = serve.deployment(
        serve.ingress()(ServedFront),
        name="front",
        max_ongoing_requests=FRONT_CONCURRENCY,
        ray_actor_options={"num_cpus": 0},
    )
    # Only what it needs, not the settings: they hold other services' secrets.
    return front.bind(
        dict(generators),
        dict(refiners),
        options,
        level=level,
        secret=SecretStore(settings.state_dir).value("generator_secret", settings.generator_secret),
        max_body_bytes=settings.server.max_body_bytes,
    )


def application(_: Mapping[str, str]) -> Application:
    """Return the Serve application of the configuration in the environment.

    Raises:
        StartupError: the configuration or a generator's files are wrong.
    """
    settings = load_settings()
    return build(settings, plan_service(settings))


def _generator_deployment(plan: CloudPlan, options: GeneratorSettings) -> serve.Deployment:
    return serve.deployment(
        ServedGenerator,
        name=plan.deployment,
        num_replicas=options.replicas,
        max_ongoing_requests=_capacity(options),
        health_check_period_s=2,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=0.2,
        ray_actor_options={"num_cpus": options.threads},
    )


def _refiner_deployment(plan: RefinerPlan, options: GeneratorSettings) -> serve.Deployment:
    return serve.deployment(
        ServedRefiner,
        name=plan.deployment,
        max_ongoing_requests=2 * _refine_capacity(options),  # refines, and as many measures
        health_check_period_s=2,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=0.2,
        ray_actor_options={"num_cpus": options.refine_threads},
    )


def _refine_capacity(options: GeneratorSettings) -> int:
    return options.refine_batch_size + options.max_queued


def _capacity(options: GeneratorSettings) -> int:
    """Return what one actor takes: a running batch and the queue behind it."""
    return options.batch_size + options.max_queued


def _settle(options: GeneratorSettings, level: str) -> None:
    """Prepare the process of a replica: its logs, and its port on a single machine."""
    # Serve has put stderr into its own log file; our lines belong into the service's log.
    sys.stderr = sys.__stderr__
    configure_logs(level)
    if options.ray_address is None:
        bind_replica_to_loopback()


def _load(folder: Path) -> Compiler:
    from loragen.method.generator import Generator  # torch only in the actor

    return Generator.load(folder)


def _load_refiner(plan: RefinerPlan, options: GeneratorSettings) -> Refiner:
    from loragen.method.refine import BOOTSTRAP_LR, RefineSpec  # torch only in the actor
    from loragen.method.refiner import Refiner as EdgeRefiner

    _use_threads(options.refine_threads)
    model = plan.model
    own = OwnTemplate.load(model.model, model.chat_template)
    compiled = compiled_template(own, model.model, model.compiled_template)
    if compiled is None:
        raise ArtifactCorrupt(f"edge model {model.name!r}: no compiled template")
    spec = RefineSpec(
        steps=options.refine_steps,
        rounds=options.refine_rounds,
        self_probes=options.refine_probes,
        measure_probes=options.measure_probes,
    )
    if model.generator is None:
        spec = replace(spec, lr=BOOTSTRAP_LR)
    return EdgeRefiner.load(model.model, plan.pool, own=own, compiled=compiled, spec=spec)


def _use_threads(threads: int) -> None:
    import torch  # torch only in the actor

    torch.set_num_threads(threads)
