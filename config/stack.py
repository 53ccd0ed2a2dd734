"""Stack: which processes a configuration needs on this machine, and what each is told.

Settings reach them through LORAGEN_CONFIG, secrets through their environment only, and only those
that a process needs. What the configuration places elsewhere (Redis, workers, a generator) is not
started here.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from config.edge_model import EdgeModelSettings
from config.environment import child_environment
from config.ports import PortClaim, free_port
from config.probe import answers
from config.redis_server import HOST, RedisServer
from config.secret_store import SecretStore
from config.settings import SECRET_FIELDS, Settings
from config.state_folder import StateFolder
from config.supervisor import ChildSpec

DRAIN_MARGIN_SECONDS: Final = 10.0
"""What a service may take to end after the last answer."""
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Stack:
    """The children of one start, and where their services are."""

    children: tuple[ChildSpec, ...]
    url: str
    redis_url: str
    admin_url: str


class _Planner:
    """What the children of one stack have in common, while they are derived."""

    def __init__(
        self, settings: Settings, files: Sequence[Path], *, state: StateFolder, temp: Path
    ) -> None:
        self._settings = settings
        self._state = state
        self._secrets = SecretStore(state.path)
        self._common = child_environment(
            LORAGEN_CONFIG=",".join(str(file.resolve()) for file in files),
            LORAGEN_STATE_DIR=str(state.path),
            LORAGEN_GENERATOR__URL=generator_url(settings),
            TMPDIR=str(temp),
            PYTHONUNBUFFERED="1",
            # Without byte code every start compiles vLLM's and Ray's sources again: 8 s and more.
            PYTHONDONTWRITEBYTECODE="",
            # A folder named `config` or `server` where it is started would be taken for ours.
            PYTHONSAFEPATH="1",
        )
        for name in (*SECRET_FIELDS, "api_key"):  # each child is given its own, and no other
            self._common.pop(f"LORAGEN_{name.upper()}", None)

    def plan(self) -> Stack:
        """Return the stack; see `plan_stack`."""
        settings = self._settings
        redis_url, redis = self._redis()
        server_url = local_url(settings.server.host, settings.server.port)
        admin_port = settings.server.admin_port or free_port(settings.server.admin_host)
        children = [
            *redis,
            *([self._router_service()] if has_local_router_service(settings) else []),
            *(
                self._worker(model, name, port)
                for model in local_workers(settings)
                for name, port in model.local_workers.items()
            ),
            self._server(server_url, redis_url, admin_port),
        ]
        admin_url = local_url(settings.server.admin_host, admin_port)
        return Stack(tuple(children), server_url, redis_url, admin_url)

    def _redis(self) -> tuple[str, list[ChildSpec]]:
        if self._settings.redis_url is not None:
            return self._settings.redis_url.get_secret_value(), []
        password = self._secrets.value("redis_password", None)
        server = RedisServer(self._state.path / "redis", free_port(HOST), password)
        child = ChildSpec(
            name="redis",
            command=server.command(),
            environment=self._common,
            log=self._state.log("redis"),
            probe=server.is_ready,
            stage=0,  # the gateway writes until its end
        )
        return server.url, [child]

    def _router_service(self) -> ChildSpec:
        options = self._settings.generator
        return ChildSpec(
            name="router_service",
            command=(sys.executable, "-m", "router_service"),
            environment={
                **self._common,
                **self._secret("generator_secret", self._settings.generator_secret),
                **self._secret("ray_token", self._settings.ray_token),
            },
            log=self._state.log("router_service"),
            probe=answers(local_url(options.host, options.port) + "/health"),
            stage=1,
        )

    def _worker(self, model: EdgeModelSettings, name: str, port: int) -> ChildSpec:
        return ChildSpec(
            name=f"worker {name}",
            command=(
                *(sys.executable, "-m", "workers", "--edge-model", model.name),
                *("--port", str(port)),
                *(("--next",) if name in model.next_workers else ()),
            ),
            environment={
                **self._common,
                **self._secret("worker_secret", self._settings.worker_secret),
            },
            log=self._state.log(f"worker-{name}"),
            probe=answers(f"http://{HOST}:{port}/health"),
            stage=1,
            grace_seconds=model.drain_timeout_seconds + DRAIN_MARGIN_SECONDS,
        )

    def _server(self, url: str, redis_url: str, admin_port: int) -> ChildSpec:
        settings, options = self._settings, self._settings.server
        return ChildSpec(
            name="server",
            command=(sys.executable, "-m", "server"),
            environment={
                **self._common,
                "LORAGEN_REDIS_URL": redis_url,
                "LORAGEN_SERVER__ADMIN_PORT": str(admin_port),
                **self._secret("master_secret", settings.master_secret),
                **self._secrets.optional("encryption_key", settings.encryption_key),
                **self._secret("worker_secret", settings.worker_secret),
                **self._secret("generator_secret", settings.generator_secret),
                **self._secret("admin_secret", settings.admin_secret),
            },
            log=self._state.log("server"),
            probe=answers(url + "/ready"),
            stage=2,  # first to end: nothing new comes in
            grace_seconds=options.drain_delay_seconds
            + options.drain_timeout_seconds
            + DRAIN_MARGIN_SECONDS,
        )

    def _secret(self, name: str, given: SecretStr | None) -> Mapping[str, str]:
        return {f"LORAGEN_{name.upper()}": self._secrets.value(name, given)}


def plan_stack(
    settings: Settings, files: Sequence[Path], *, state: StateFolder, temp: Path
) -> Stack:
    """Return the stack of a configuration.

    Raises:
        ConfigError: a secret cannot be kept, or no Redis server is there.
    """
    return _Planner(settings, files, state=state, temp=temp).plan()


def port_claims(settings: Settings) -> tuple[PortClaim, ...]:
    """Return the ports that a start of this configuration binds."""
    server = settings.server
    claims = [PortClaim("server.port", server.host, server.port)]
    if server.admin_port is not None:
        claims.append(PortClaim("server.admin_port", server.admin_host, server.admin_port))
    if server.metrics_port is not None:
        claims.append(PortClaim("server.metrics_port", server.host, server.metrics_port))
    if has_local_router_service(settings):
        options = settings.generator
        claims.append(PortClaim("generator.port", options.host, options.port))
        if options.metrics_port is not None:
            claims.append(PortClaim("generator.metrics_port", HOST, options.metrics_port))
    claims += [
        PortClaim(f"edge_models {name}: port", HOST, port)
        for model in local_workers(settings)
        for name, port in model.local_workers.items()
    ]
    return tuple(claims)


def has_local_router_service(settings: Settings) -> bool:
    """Whether some edge model has a pool, and the router service is on this machine."""
    wanted = any(model.pool_file is not None for model in settings.edge_models)
    url = settings.generator.url
    return wanted and (
        "url" not in settings.generator.model_fields_set
        or (url.host in LOOPBACK and url.port == settings.generator.port)
    )


def local_workers(settings: Settings) -> list[EdgeModelSettings]:
    """Return the edge models whose worker is started here: those that name no place for it."""
    return [
        model
        for model in settings.edge_models
        if not model.worker_urls and model.worker_service is None
    ]


def generator_url(settings: Settings) -> str:
    """Return where the gateway finds the router service of this start."""
    if has_local_router_service(settings):
        return local_url(settings.generator.host, settings.generator.port)
    return str(settings.generator.url).rstrip("/")


def local_url(host: str, port: int) -> str:
    """Return the address of a service of this machine as seen from it."""
    reachable = {"0.0.0.0": HOST, "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
