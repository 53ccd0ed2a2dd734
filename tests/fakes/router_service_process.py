"""A real `python -m router_service` over a tiny generator, for tests."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import httpx
import yaml

from config.environment import child_environment
from config.process_tree import children, descendants
from tests.fakes.tiny_generator import make_generator

ROOT = Path(__file__).parents[2]
START_SECONDS = 120.0


class RouterServiceProcess:
    """A router service under a keeper, as the launcher runs it."""

    def __init__(self, folder: Path, *, secret: str, max_body_bytes: int) -> None:
        generator = make_generator(folder / "tiny")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.state_dir = folder / "state"
        self.log = folder / "router_service.log"
        config = folder / "config.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "state_dir": str(self.state_dir),
                    "server": {"max_body_bytes": max_body_bytes},
                    "generator": {
                        "port": port,
                        "max_queued": 48,
                        "timeout_seconds": 60,
                        "measure_probes": 12,
                        "refine_probes": 12,
                        "refine_steps": 20,
                    },
                    "edge_models": [
                        {
                            "name": "tiny",
                            "model": str(folder / "tiny" / "edge"),
                            "generator": str(generator),
                        }
                    ],
                }
            )
        )
        self.environment = child_environment(
            LORAGEN_CONFIG=str(config), LORAGEN_GENERATOR_SECRET=secret
        )
        keeper = (sys.executable, "-m", "config.keeper", str(os.getpid()), "20")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                (*keeper, sys.executable, "-m", "router_service"),
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=self.environment,
                start_new_session=True,
            )

    def wait_ready(self) -> Self:
        """Wait for /health."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if httpx.get(self.url + "/health", timeout=2, trust_env=False).status_code == 200:
                    return self
            except httpx.HTTPError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def actors(self) -> list[list[str]]:
        """Return the rows of `python -m router_service actors`, without the heading."""
        listing = subprocess.run(
            (sys.executable, "-m", "router_service", "actors"),
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=self.environment,
            timeout=60,
            check=True,
        )
        return [line.split() for line in listing.stdout.splitlines()[1:]]

    @property
    def service_pid(self) -> int:
        """The process of `python -m router_service` itself."""
        return children(self.process.pid)[0]

    @property
    def ray_folder(self) -> Path:
        """Ray's temporary folder, sessions and logs in it."""
        words = (
            word
            for pid in self.family()
            for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        )
        return Path(next(w for w in words if w.startswith("--temp-dir=")).partition("=")[2])

    def batches(self) -> list[int]:
        """Return how many prompts each forward of the actor compiled, as it logged them."""
        ends = [line.partition("{")[2] for line in self.log.read_text().splitlines()]
        records = [json.loads("{" + end) for end in ends if end.endswith("}")]
        return [each["prompts"] for each in records if each.get("message") == "prompts compiled"]

    def family(self) -> list[int]:
        """Return every process that the service started, itself included."""
        return descendants(self.process.pid)

    def stop(self) -> None:
        """End it in any case."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
