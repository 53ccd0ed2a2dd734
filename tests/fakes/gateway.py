"""The gateway over a real Redis-protocol server, a fake worker and a stub generator."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
from prometheus_client import REGISTRY

from config.edge_model import EdgeModelSettings
from config.settings import ServerSettings, Settings, StoreSettings
from loragen.keys import TenantKeys
from loragen.recipe import Recipe
from loragen.redis_store import RedisStore
from loragen.store import Store
from server.app import build_app
from server.shared import Shared
from server.transport import worker_client
from tests.fakes.fake_worker import FakeWorker
from tests.fakes.live import LiveServer, live, wait_until
from tests.fakes.shared_state import shared_state
from tests.fakes.stub_generator import StubGenerator, recipe_of

MASTER_SECRET = "5a" * 32
WORKER_KEY = "worker-key"
MODEL = "demo"
PATIENT = {
    "measure": False,  # or every created task would change behind a test's back
    "probe_interval_seconds": 0.02,
    "keep_alive_seconds": 5.0,
    "connect_timeout_seconds": 10.0,  # a busy machine is not a lost worker
}


@dataclass
class Gateway:
    """A running gateway and everything around it."""

    server: LiveServer
    workers: list[FakeWorker]
    worker_servers: list[LiveServer]
    generator: StubGenerator
    namespace: str
    http: httpx.Client = field(repr=False)

    @property
    def worker(self) -> FakeWorker:
        """The only, or first, worker."""
        return self.workers[0]

    @property
    def worker_server(self) -> LiveServer:
        """Where it runs."""
        return self.worker_servers[0]

    @property
    def client(self) -> openai.OpenAI:
        """The official client, without its own retries."""
        return openai.OpenAI(base_url=self.server.url + "/v1", api_key="any", max_retries=0)

    def reset(self) -> None:
        """Bring the neighbours back to their defaults and wait until the gateway sees them."""
        self.worker.reset()
        self.generator.reset()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Return once the gateway has a worker and Redis."""
        wait_until(lambda: self.http.get("/ready").status_code == 200)

    def create(self, prompt: str, **fields: Any) -> dict[str, Any]:
        """Register a prompt and return the task."""
        reply = self.http.post(
            "/v1/tasks", json={"model": MODEL, "system_prompt": prompt, **fields}
        )
        assert reply.status_code in (200, 201, 202), reply.text
        task: dict[str, Any] = reply.json()
        return task

    def ask(self, text: str, **fields: Any) -> httpx.Response:
        """Ask one question, with a task in `fields` or without."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}
        return self.http.post("/v1/chat/completions", json=body)

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of a metric of this process, 0 where it never moved."""
        return REGISTRY.get_sample_value(name, labels) or 0.0


def settings(
    worker_urls: list[str],
    *,
    namespace: str = "test",
    server: dict[str, Any] | None = None,
    edge: dict[str, Any] | None = None,
    auto: dict[str, Any] | None = None,
    store: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    shadow: dict[str, Any] | None = None,
    redis_url: str | None = None,
    has_generator: bool = True,
    master_secret: str = MASTER_SECRET,
) -> Settings:
    """Return settings with short probe and memory times."""
    model = EdgeModelSettings.model_validate(
        {
            "name": MODEL,
            "model": "edge",
            "generator": "generator" if has_generator else None,
            "worker_urls": worker_urls,
            **(edge or {}),
        }
    )
    return Settings.model_validate(
        {
            "master_secret": master_secret,
            "worker_secret": WORKER_KEY,
            "edge_models": (model,),
            "store": StoreSettings.model_validate(
                {"namespace": namespace, "memory_ttl_seconds": 0.2, **(store or {})}
            ),
            "server": ServerSettings.model_validate({**PATIENT, **(server or {})}),
            "auto": auto or {},
            "limits": limits or {},
            "shadow": shadow or {},
            "redis_url": redis_url,
            "state_dir": Path("unused"),
        }
    )


def redis_store(url: str, namespace: str) -> RedisStore:
    """Return a store in a namespace."""
    return RedisStore.connect(
        url, namespace=namespace, recipe_ttl_seconds=3600, timeout_seconds=5.0
    )


def redis_shared(url: str, namespace: str, **auto: Any) -> Shared:
    """Return the whole shared state in a namespace, so that gateways know of each other."""
    return Shared.connect(settings([], namespace=namespace, redis_url=url, auto=auto))


@contextlib.contextmanager
def gateway(
    state: Store | Shared, namespace: str, *, workers: Sequence[FakeWorker] = (), **overrides: Any
) -> Iterator[Gateway]:
    """Run a gateway for the length of a block, with one worker unless some are given."""
    fakes, generator = list(workers) or [FakeWorker()], StubGenerator()
    shared = state if isinstance(state, Shared) else shared_state(state)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(live(fake.app)) for fake in fakes]
        told = settings([server.url for server in servers], namespace=namespace, **overrides)
        app = build_app(told, shared=shared, generator=generator, workers=worker_client(told))
        server = stack.enter_context(live(app, client_seconds=told.server.client_timeout_seconds))
        http = stack.enter_context(httpx.Client(base_url=server.url, timeout=20))
        yield Gateway(server, fakes, servers, generator, namespace, http)


def expected_recipe(prompt: str) -> Recipe:
    """Return the recipe the stub generator compiles a prompt to."""
    return recipe_of(prompt)


def tenant_keys() -> TenantKeys:
    """Return the keys of the open tenant."""
    return TenantKeys((bytes.fromhex(MASTER_SECRET),), "default")
