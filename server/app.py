"""The gateway application: the only place where its parts are put together."""

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import httpx
from fastapi import FastAPI

from config.settings import Settings
from loragen import __version__, metrics
from loragen.background import end, keep
from loragen.drain import Drain
from loragen.errors import ConfigError, StoreUnavailable
from loragen.keys import TenantKeys
from loragen.secret_versions import parse_versions
from server import exposition, generation, names, responses, system, tasks, transfer, usage
from server.admin import build_admin
from server.authentication import Authenticator
from server.auto import Auto
from server.body_limit import BodyLimit
from server.compiler import Compiler
from server.conversation import ConversationRule
from server.crew import Crew, Limits
from server.discovery import Discovery
from server.dispatch import Dispatcher
from server.document import install_document
from server.drain import DrainMiddleware
from server.entrance import Entrance
from server.envelope import Envelope
from server.gatekeeper import Gatekeeper
from server.generator import Generator, HttpGenerator
from server.health import Health
from server.held_secrets import HeldSecrets
from server.http_errors import install_error_handlers
from server.identity import Identity
from server.measuring import Measuring
from server.memory import MemoryTier
from server.name_memory import NameMemory
from server.pool_control import PoolControl
from server.pools import Pools
from server.precedence import Precedence
from server.recipe_tier import RecipeTier
from server.refinement import Refinement
from server.renewal import Renewal
from server.resolve import Resolver
from server.services import Services
from server.shadow import Shadow
from server.shared import Shared
from server.standing import Standing
from server.store_watch import watch_store
from server.tenancy import Tenancy
from server.transport import worker_client
from server.upgrades import Upgrades
from server.usage_meter import UsageMeter

_ADMIN_SECRET_CHARS: Final = 16


def create_app(settings: Settings) -> FastAPI:
    """Return the application for these settings, with Redis, generators and workers by address.

    Raises:
        ConfigError: a secret or an edge model is missing.
    """
    if not settings.edge_models:
        raise ConfigError("edge_models: configure at least one")
    shared = Shared.connect(settings)
    secret = settings.generator_secret
    generator = HttpGenerator(
        str(settings.generator.url).rstrip("/"),
        secret=secret.get_secret_value() if secret else None,
        timeout_seconds=settings.server.compile_timeout_seconds,
        refine_timeout_seconds=settings.server.refine_timeout_seconds,
    )
    app = build_app(settings, shared=shared, generator=generator, workers=worker_client(settings))
    if settings.server.admin_port is not None:
        pools = app.state.services.pools
        app.state.admin = create_admin(settings, shared, pools, app.state.renewal)
    return app


def create_admin(
    settings: Settings, shared: Shared, pools: Pools, renewal: Renewal | None = None
) -> FastAPI:
    """Return the admin application over a shared state, which it leaves open.

    It shows how far the gateway's `renewal` is.

    Raises:
        ConfigError: the admin secret is missing or short.
    """
    if settings.admin_secret is None:
        raise ConfigError("admin_secret: set LORAGEN_ADMIN_SECRET, or no server.admin_port")
    secret = settings.admin_secret.get_secret_value()
    if len(secret) < _ADMIN_SECRET_CHARS:
        raise ConfigError(f"admin_secret needs {_ADMIN_SECRET_CHARS} characters or more")
    tenancy = Tenancy(shared, memory_seconds=settings.store.memory_ttl_seconds)
    control = PoolControl(
        pools,
        shared,
        [model.name for model in settings.edge_models],
        ready_share=settings.upgrades.ready_share,
    )
    return build_admin(tenancy, control, HeldSecrets.of(settings, renewal), secret=secret)


def build_app(
    settings: Settings, *, shared: Shared, generator: Generator, workers: httpx.AsyncClient
) -> FastAPI:
    """Return the application over a given shared state, generator and client of the workers.

    Raises:
        ConfigError: the master secret is missing or malformed.
    """
    if settings.master_secret is None:
        raise ConfigError("master_secret: set LORAGEN_MASTER_SECRET")
    masters = parse_versions(settings.master_secret.get_secret_value(), name="master_secret")
    keys = functools.lru_cache(maxsize=10_000)(functools.partial(TenantKeys, masters))
    identity = Identity(shared.store, keys)
    crews = {
        model.name: Crew(model.name, settings.worker_urls(model), Limits.of(model))
        for model in settings.edge_models
    }
    health = Health(
        crews,
        workers,
        interval_seconds=settings.server.probe_interval_seconds,
        discovery=Discovery.of(settings.edge_models),
    )
    authenticator = Authenticator(
        shared.tenants,
        is_open=settings.server.auth == "open",
        limits=settings.limits.default,
        entries=settings.store.memory_entries,
        ttl_seconds=settings.store.memory_ttl_seconds,
    )
    gatekeeper = Gatekeeper(
        shared.limiter,
        is_open_without_store=settings.limits.when_store_is_down == "allow",
        retry_seconds=settings.store.memory_ttl_seconds,
    )
    precedence = Precedence(shared.clocks, retry_seconds=settings.store.memory_ttl_seconds)
    meter = UsageMeter(shared.usage)
    recipes = RecipeTier(shared.store, keys)
    renewal = Renewal(
        shared,
        identity,
        recipes,
        is_rotated=len(masters) > 1,
        is_sealed=settings.encryption_key is not None,
    )
    refined = frozenset(each.name for each in settings.edge_models if each.pool_file is not None)
    standing = Standing(
        {each.name: each.bars for each in settings.edge_models},
        measured=refined if settings.server.measure else (),
    )
    pools = Pools(crews, shared.pools, standing.withheld)
    compiled = frozenset(each.name for each in settings.edge_models if each.generator is not None)
    memory = MemoryTier(
        entries=settings.store.memory_entries,
        max_bytes=settings.store.memory_bytes,
        ttl_seconds=settings.store.memory_ttl_seconds,
    )
    compiler = Compiler(
        dict.fromkeys(compiled, generator),
        shared,
        memory,
        recipes,
        pools,
        timeout_seconds=settings.server.compile_timeout_seconds,
        at_once=2 * settings.generator.batch_size * settings.generator.replicas,
    )
    resolver = Resolver(memory, shared, recipes, compiler, pools)
    refiners = dict.fromkeys(refined, generator)
    refinement = Refinement(refiners, shared, recipes, resolver, standing)
    measuring = Measuring(
        refiners,
        shared,
        resolver,
        refinement,
        standing,
        is_on=settings.server.measure,
        wait_seconds=settings.server.compile_timeout_seconds,
    )
    compiler.follow(measuring.start)
    shadow = Shadow(measuring, **settings.shadow.model_dump())
    upgrades = Upgrades(compiled, shared, pools, compiler, measuring, standing, settings.upgrades)
    dispatcher = Dispatcher(crews, workers, patience_seconds=settings.server.keep_alive_seconds)
    services = Services(
        settings=settings.server,
        store=shared.store,
        names=shared.names,
        name_memory=NameMemory(
            shared.names,
            shared.invalidations,
            entries=settings.store.memory_entries,
            retry_seconds=settings.store.memory_ttl_seconds,
        ),
        pools=pools,
        resolver=resolver,
        standing=standing,
        measuring=measuring,
        refinement=refinement,
        dispatcher=dispatcher,
        keys=keys,
        identity=identity,
        drain=Drain(),
        without_recipes=frozenset(
            model.name
            for model in settings.edge_models
            if model.force_prompt or settings.server.force_prompt
        ),
        auto=Auto(
            shared,
            resolver,
            dispatcher,
            identity,
            compiled=compiled,
            measured=compiled if settings.server.measure else (),
            max_prompt_bytes=settings.server.max_prompt_bytes,
            settings=settings.auto,
            take_compile=lambda owner: gatekeeper.take_compile(authenticator.tenant(owner)),
        ),
        conversations=ConversationRule(
            shared.conversations, keys, seconds=settings.auto.conversation_seconds
        ),
        switch=settings.auto.switch,
        sightings=shared.sightings,
        tenant=authenticator.tenant,
        gatekeeper=gatekeeper,
        precedence=precedence,
        usage=shared.usage,
        usage_meter=meter,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await health.probe()
        with suppress(StoreUnavailable):
            await pools.look()
        interval = settings.server.probe_interval_seconds
        watching = [
            keep(health.probe_forever),
            keep(lambda: watch_store(shared.store, metrics.STORE_UP, interval_seconds=interval)),
            keep(services.resolver.follow_invalidations),
            keep(services.name_memory.follow),
            keep(pools.follow),
            keep(upgrades.run_forever),
            keep(lambda: authenticator.follow(shared.invalidations)),
            keep(gatekeeper.renew_forever),
            keep(precedence.renew_forever),
            keep(meter.flush_forever),
            keep(shadow.expire_forever),
            keep(renewal.run),
        ]
        yield
        await end(watching)
        await services.measuring.close()
        await meter.close()
        await services.refinement.close()
        await services.resolver.close()
        await workers.aclose()
        await generator.close()
        await shared.close()

    app = FastAPI(
        title="LoRA-Gen Server",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,  # such an answer leads to whatever host the request names
    )
    app.state.services = services
    app.state.renewal = renewal
    install_error_handlers(app)
    install_document(app, auth=settings.server.auth)
    for part in (names, transfer, tasks, generation, responses, usage, system):
        app.include_router(part.router)
    if settings.server.metrics_port is None:
        app.include_router(exposition.router)
    metrics.start_series(crews)
    app.add_middleware(DrainMiddleware, drain=services.drain)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.server.max_body_bytes,
        exceptions={transfer.IMPORT_PATH: settings.server.max_import_bytes},
    )
    app.add_middleware(
        Entrance,
        authenticator=authenticator,
        gatekeeper=gatekeeper,
        meter=meter,
        precedence=precedence,
        shadow=shadow,
    )
    app.add_middleware(Envelope)
    return app
