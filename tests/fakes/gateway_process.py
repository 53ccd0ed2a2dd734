"""A gateway as a process of its own, `python -m server`: one that can be killed and told to end."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from config.environment import child_environment
from config.ports import free_port
from tests.fakes.gateway import MASTER_SECRET, MODEL, WORKER_KEY
from tests.fakes.live import wait_until

START_SECONDS = 60.0


class GatewayProcess:
    """One running `python -m server`."""

    def __init__(self, folder: Path, config: dict[str, Any], environment: dict[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        server = {**config.get("server", {}), "port": self.port}
        self.admin_port = server.get("admin_port") or free_port()
        if "LORAGEN_ADMIN_SECRET" in environment:
            server["admin_port"] = self.admin_port
        self._config = folder / f"gateway-{self.port}.yaml"
        self._config.write_text(yaml.safe_dump({**config, "server": server}))
        self._environment = child_environment(**environment)
        self.log = self._config.with_suffix(".log")
        self.http = httpx.Client(base_url=self.url, timeout=30)
        self.process = self.start()

    def start(self, environment: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
        """Start it, after its end again on the same port, from here on with other variables."""
        self._environment.update(environment or {})
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                (sys.executable, "-m", "server", "--config", str(self._config)),
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        return self.process

    def wait_ready(self) -> None:
        """Return once it is ready."""
        wait_until(lambda: self.status("/ready") == 200, seconds=START_SECONDS)

    def status(self, path: str) -> int | None:
        """Return the status of a GET, None where nobody answers."""
        try:
            return self.http.get(path).status_code
        except httpx.TransportError:
            assert self.process.poll() in (None, 0), self.log.read_text()[-3_000:]
            return None

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(signum)

    def close(self) -> None:
        """Kill what is left."""
        self.http.close()
        self.process.kill()
        self.process.wait(10)


def config_of(
    worker_urls: Sequence[str],
    *,
    namespace: str,
    generator_url: str | None = None,
    **server: Any,
) -> dict[str, Any]:
    """Return the configuration of a gateway with short probe times."""
    edge = {"name": MODEL, "model": "edge", "worker_urls": list(worker_urls)}
    config: dict[str, Any] = {
        "edge_models": [edge],
        "store": {"namespace": namespace},
        "server": {"probe_interval_seconds": 0.05, "connect_timeout_seconds": 10.0, **server},
    }
    if generator_url is not None:
        edge["generator"] = "generator"
        config["generator"] = {"url": generator_url}
    return config


@contextlib.contextmanager
def gateway_processes(
    folder: Path,
    config: dict[str, Any],
    redis_url: str,
    *,
    count: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Iterator[list[GatewayProcess]]:
    """Run gateways of one configuration for the length of a block."""
    told = {
        "LORAGEN_MASTER_SECRET": MASTER_SECRET,
        "LORAGEN_WORKER_SECRET": WORKER_KEY,
        "LORAGEN_GENERATOR_SECRET": "generator-key",
        "LORAGEN_REDIS_URL": redis_url,
        **(environment or {}),
    }
    started = [GatewayProcess(folder, config, told) for _ in range(count)]
    try:
        for each in started:
            each.wait_ready()
        yield started
    finally:
        for each in started:
            each.close()
