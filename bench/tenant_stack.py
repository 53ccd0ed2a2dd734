"""The whole stack with keys and tenants of a benchmark's own, started as a user starts it."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from config.admin import Admin
from config.environment import child_environment
from config.load import load_settings
from config.ports import free_port
from config.settings import Settings
from config.state_folder import running

ROOT: Final = Path(__file__).parents[1]
START_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class TenantStack:
    """A running `loragen up` and the key of each tenant."""

    url: str
    keys: dict[str, str]
    settings: Settings

    def headers(self, tenant: str) -> dict[str, str]:
        """Return what a request of a tenant shows."""
        return {"authorization": f"Bearer {self.keys[tenant]}"}

    def pids(self) -> dict[str, int]:
        """Return the process id of every part, under which its processes are."""
        found: dict[str, int] = running(self.settings.state_dir).get("pids", {})
        return found

    def metrics(self) -> dict[str, str]:
        """Return where every part that has metrics shows them."""
        (model,) = self.settings.edge_models
        workers = {
            f"worker {name}": f"http://127.0.0.1:{port}/metrics"
            for name, port in model.local_workers.items()
        }
        ray = f"http://127.0.0.1:{self.settings.generator.metrics_port}/metrics"
        return {"server": f"{self.url}/metrics", "router_service": ray, **workers}


@contextlib.contextmanager
def tenant_stack(
    tenants: list[str],
    model: dict[str, Any],
    say: Callable[[str], None],
    settings: Mapping[str, dict[str, Any]] | None = None,
) -> Iterator[TenantStack]:
    """Run Redis, router service, a worker and a gateway until the block ends.

    `model` is what differs from `config/small.yaml` in its edge model, `settings` what differs in
    other sections. Nothing is measured or refined unless they say so: it would be load of its own.

    Raises:
        SystemExit: it did not start.
    """
    (small,) = yaml.safe_load((ROOT / "config" / "small.yaml").read_text())["edge_models"]
    with tempfile.TemporaryDirectory(prefix="loragen-bench-") as name:
        folder = Path(name)
        port = free_port()
        config = folder / "stack.yaml"
        others = dict(settings or {})
        server = {"port": port, "measure": False, "auth": "keys", **others.pop("server", {})}
        config.write_text(
            yaml.safe_dump(
                {
                    "state_dir": str(folder / "state"),
                    "server": server,
                    "generator": {
                        "port": free_port(),
                        "metrics_port": free_port(),
                    },
                    "edge_models": [{**small, "port": free_port(), **model}],
                    **others,
                }
            )
        )
        say("starting the stack")
        with _launched(config, folder / "output.txt", f"http://127.0.0.1:{port}"):
            loaded = load_settings([config])
            admin = Admin.of(loaded)
            keys = {}
            for tenant in tenants:
                admin.ensure_tenant(tenant)
                keys[tenant] = str(admin.post(f"/tenants/{tenant}/keys", {})["key"])
            yield TenantStack(f"http://127.0.0.1:{port}", keys, loaded)


@contextlib.contextmanager
def _launched(config: Path, output: Path, url: str) -> Iterator[None]:
    command = [str(Path(sys.executable).parent / "loragen"), "up", "--config", str(config)]
    with output.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=ROOT,
            env=child_environment(LORAGEN_CONFIG=""),
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while f"ready: {url}" not in (printed := output.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"bench: the stack did not start:\n{printed[-2_000:]}")
            time.sleep(0.5)
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(120)
