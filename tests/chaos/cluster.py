"""Cluster: two gateways, two workers, a router service and Redis, with what breaks them by name.

The workers hold different pools, whose recipes say the same in different gates.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import redis
from prometheus_client.parser import text_string_to_metric_families

from config.edge_model import POOL_FILE
from loragen.method.pool import file_digest
from tests.e2e.stack import CHECKPOINT, MODEL, Stack, small_model, wait_until
from tests.fakes.gateway_process import GatewayProcess
from tests.fakes.reordered import reordered

WORKERS: Final = (f"worker {MODEL}", f"worker {MODEL}-next")
_DISK: Final = "96m"
_START_SECONDS: Final = 300.0


class Cluster:
    """The running parts. Calls that look at them return False where a part is away."""

    def __init__(self, folder: Path) -> None:
        """Start everything; where this user may mount, Redis writes to a small disk of its own."""
        self._folder = folder
        self.redis_folder = folder / "state" / "redis"
        with contextlib.ExitStack() as ends:  # what was started ends, too, if the rest does not
            self._start(ends)
            self._ends = ends.pop_all()

    def _start(self, ends: contextlib.ExitStack) -> None:
        self.has_own_disk = self._mount()
        if self.has_own_disk:
            ends.callback(subprocess.run, ["umount", str(self.redis_folder)], check=False)
        folder = self._folder
        server = {"auth": "keys", "drain_timeout_seconds": 20.0}
        own = CHECKPOINT / "generator"
        other = reordered(own, folder / "other")
        self._pool_ids = [file_digest(each / POOL_FILE) for each in (own, other)]
        self.stack = Stack(
            folder,
            first=small_model() | {"next_generator": str(other)},
            server=server,
            upgrades={"compiles_per_second": 50.0, "at_once": 4},
        )
        ends.callback(self._end_stack)
        self.stack.wait_ready()
        generator = {"url": f"http://127.0.0.1:{self.stack.config['generator']['port']}"}
        names = ("master_secret", "worker_secret", "generator_secret")
        secrets = {f"LORAGEN_{name.upper()}": self.stack.secret(name) for name in names}
        environment = {**secrets, "LORAGEN_REDIS_URL": str(self.stack.run()["redis_url"])}
        config = {**self.stack.config, "generator": generator}
        self.beside = GatewayProcess(folder, config, environment)
        ends.callback(self.beside.close)
        self.beside.wait_ready()
        self.upgrades: list[str] = []
        self._admin = httpx.Client(
            base_url=str(self.stack.run()["admin_url"]),
            headers={"authorization": f"Bearer {self.stack.secret('admin_secret')}"},
            timeout=30,
        )

    @property
    def gateways(self) -> tuple[str, str]:
        """Addresses of both gateways."""
        return self.stack.url, self.beside.url

    def create_key(self, tenant: str) -> str:
        """Make a tenant and return a key of it."""
        self._post("/admin/tenants", {"id": tenant})
        return str(self._post(f"/admin/tenants/{tenant}/keys", {})["key"])

    def pid(self, name: str) -> int:
        """Return the process id of a child of the launcher."""
        return int(self.stack.run()["pids"][name])

    def redis(self) -> "redis.Redis":
        """Return a client of Redis."""
        return self.stack.redis()

    @contextlib.contextmanager
    def stalled(self, name: str) -> Iterator[None]:
        """Stop a child and all below it for the length of a block, as a machine that hangs."""
        root = psutil.Process(self.pid(name))
        processes = [root, *root.children(recursive=True)]
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)

    def are_gateways_ready(self) -> bool:
        """Whether both gateways take requests."""
        return all(_status(url + "/ready") == 200 for url in self.gateways)

    def are_workers_healthy(self) -> bool:
        """Whether both gateways see both workers."""
        return all(_healthy_workers(url) == len(WORKERS) for url in self.gateways)

    def is_generator_healthy(self) -> bool:
        """Whether the router service answers."""
        return _status(f"http://127.0.0.1:{self.stack.config['generator']['port']}/health") == 200

    def is_redis_writable(self) -> bool:
        """Whether Redis takes a write."""
        try:
            return bool(self.redis().set("chaos", time.time()))
        except (redis.RedisError, KeyError, OSError):
            return False

    def restart_beside(self) -> None:
        """Start the second gateway again."""
        self.beside.process.wait(30)
        self.beside.start()

    def pools(self) -> dict[str, Any]:
        """Return which pool serves, which is coming, and how far its tasks are."""
        shown: dict[str, Any] = self._admin.get(f"/admin/pools/{MODEL}").json()
        return shown

    def upgrade(self) -> None:
        """Serve from the pool that does not serve, as soon as enough tasks are ready for it."""
        wait_until(self.are_workers_healthy, _START_SECONDS)
        serving = self.pools()["serving"] or self._pool_ids[0]
        (other,) = (pool_id for pool_id in self._pool_ids if pool_id != serving)
        self._change("upgrade", {"pool_id": other})
        wait_until(self._is_switched, 300)
        self.upgrades.append(other)

    def _is_switched(self) -> bool:
        """Try to switch: tasks that are made meanwhile may take the share below what it must be."""
        reply = self._admin.post(f"/admin/pools/{MODEL}/switch", json={})
        assert reply.status_code in (200, 409), reply.text
        return reply.status_code == 200

    def roll_back(self) -> None:
        """Serve from the pool before, if there was an upgrade."""
        if self.pools()["previous"] is not None:
            self._change("rollback", {"force": True})

    def is_upgraded(self) -> bool:
        """Whether no pool is coming."""
        return self.are_gateways_ready() and self.pools()["coming"] is None

    def close(self) -> None:
        """End everything."""
        self._ends.close()

    def _end_stack(self) -> None:
        if self.stack.process.poll() is None:
            self.stack.interrupt()

    def wait_healthy(self, seconds: float = _START_SECONDS) -> None:
        """Return once all parts are well."""
        checks = (
            self.are_gateways_ready,
            self.are_workers_healthy,
            self.is_generator_healthy,
            self.is_redis_writable,
        )
        wait_until(lambda: all(check() for check in checks), seconds)

    def _mount(self) -> bool:
        if os.geteuid() != 0:
            return False
        self.redis_folder.mkdir(parents=True, mode=0o700)
        command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK},mode=0700", "none"]
        return subprocess.run([*command, str(self.redis_folder)], check=False).returncode == 0

    def _change(self, what: str, body: dict[str, Any]) -> None:
        reply = self._admin.post(f"/admin/pools/{MODEL}/{what}", json=body)
        assert reply.status_code == 200, reply.text

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        reply = self._admin.post(path, json=body)
        assert reply.status_code == 201, reply.text
        made: dict[str, Any] = reply.json()
        return made


def _status(url: str) -> int | None:
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.HTTPError:
        return None


def _healthy_workers(url: str) -> float:
    try:
        text = httpx.get(url + "/metrics", timeout=5).text
    except httpx.HTTPError:
        return 0.0
    samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
    return sum(s.value for s in samples if s.name == "loragen_healthy_workers")
