"""A gateway told to end: not ready at once, and every answer under way finished or said to be cut.

Real processes and real signals.
"""

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.fake_worker import FakeWorker
from tests.fakes.gateway import MODEL
from tests.fakes.gateway_process import GatewayProcess, config_of, gateway_processes
from tests.fakes.live import live, wait_until
from tests.fakes.valkey import Valkey

pytestmark = [pytest.mark.redis, pytest.mark.timeout(90)]

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "a b c"}]}
PATH = "/v1/chat/completions"


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker()


@pytest.fixture
def gateway(
    request: pytest.FixtureRequest, valkey: Valkey, namespace: str, worker: FakeWorker,
    tmp_path: Path,
) -> Iterator[GatewayProcess]:  # fmt: skip
    delay, timeout = getattr(request, "param", (0.0, 1.0))
    with live(worker.app) as server:
        config = config_of(
            [server.url],
            namespace=namespace,
            drain_delay_seconds=delay,
            drain_timeout_seconds=timeout,
        )
        with gateway_processes(tmp_path, config, valkey.url) as (running,):
            yield running


class Asking:
    """A request under way in a thread of its own."""

    def __init__(self, gateway: GatewayProcess, **fields: Any) -> None:
        self.reply: httpx.Response | None = None
        self._thread = threading.Thread(target=self._ask, args=(gateway.url, fields))
        self._thread.start()

    def wait(self) -> httpx.Response:
        self._thread.join(30)
        assert self.reply is not None
        return self.reply

    def _ask(self, url: str, fields: dict[str, Any]) -> None:
        self.reply = httpx.post(url + PATH, json={**CHAT, **fields}, timeout=30)


def events(reply: httpx.Response) -> list[str]:
    return [line[6:] for line in reply.text.split("\n") if line.startswith("data: ")]


@pytest.mark.parametrize("gateway", [(0.0, 60.0)], indirect=True)
def test_an_idle_gateway_ends_at_once_with_0(gateway: GatewayProcess) -> None:
    gateway.signal(signal.SIGTERM)
    assert gateway.process.wait(10) == 0


@pytest.mark.parametrize("gateway", [(0.0, 20.0)], indirect=True)
def test_what_runs_is_finished_and_nothing_new_is_taken(
    gateway: GatewayProcess, worker: FakeWorker
) -> None:
    worker.hold = True
    whole = Asking(gateway)
    wait_until(lambda: worker.held == 1)
    worker.hold, worker.hold_after = False, 1
    stream = Asking(gateway, stream=True)
    wait_until(lambda: worker.held == 1 and len(worker.seen) == 2)
    gateway.signal(signal.SIGTERM)
    wait_until(lambda: gateway.status("/health") is None)
    worker.hold_after = None
    assert events(stream.wait())[-1] == "[DONE]"
    assert whole.wait().json()["choices"]
    assert gateway.process.wait(10) == 0


def test_what_does_not_finish_is_told_so(gateway: GatewayProcess, worker: FakeWorker) -> None:
    worker.hold_after = 1
    stream = Asking(gateway, stream=True)
    wait_until(lambda: worker.held == 1)
    worker.hold = True
    whole = Asking(gateway)
    wait_until(lambda: worker.held == 2)
    gateway.signal(signal.SIGTERM)
    *_, first, last = events(stream.wait())
    assert json.loads(first)["choices"]
    assert json.loads(last)["error"]["code"] == "unavailable"
    refused = whole.wait()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert refused.headers["retry-after"]
    assert refused.headers["x-request-id"]
    assert gateway.process.wait(10) == 0
    wait_until(lambda: worker.abandoned == 2)


@pytest.mark.parametrize("gateway", [(1.0, 1.0)], indirect=True)
def test_while_balancers_notice_it_serves_on_but_is_not_ready(gateway: GatewayProcess) -> None:
    gateway.signal(signal.SIGTERM)
    wait_until(lambda: gateway.status("/ready") == 503)
    assert gateway.http.get("/ready").json()["status"] == "draining"
    reply = httpx.post(gateway.url + PATH, json=CHAT)
    assert reply.status_code == 200
    assert reply.headers["connection"] == "close"
    assert gateway.process.wait(10) == 0


@pytest.mark.parametrize("gateway", [(0.0, 60.0)], indirect=True)
def test_a_second_signal_ends_it_at_once(gateway: GatewayProcess, worker: FakeWorker) -> None:
    worker.hold_after = 1
    with httpx.stream("POST", gateway.url + PATH, json={**CHAT, "stream": True}) as reply:
        gateway.signal(signal.SIGINT)
        wait_until(lambda: gateway.status("/health") is None)
        gateway.signal(signal.SIGTERM)
        with pytest.raises(httpx.TransportError):
            reply.read()
    assert gateway.process.wait(10) == -signal.SIGTERM
