"""The whole product on this machine, started as a user starts it: `loragen up`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import redis
import yaml
from prometheus_client.parser import text_string_to_metric_families

from config.environment import child_environment
from config.ports import free_row

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "checkpoints" / "small"
MODEL = "demo"
START_SECONDS = 300.0


class Stack:
    """A running `loragen up` with its own ports and state."""

    def __init__(
        self,
        folder: Path,
        *more_models: dict[str, Any],
        workers: int = 1,
        first: dict[str, Any] | None = None,
        measure: bool = False,
        server: dict[str, Any] | None = None,
        upgrades: dict[str, Any] | None = None,
        logs: dict[str, Any] | None = None,
    ) -> None:
        """Start the tests' edge model, or `first` instead, and more models; none has a port yet.

        Unless told to it measures no recipe: hundreds of tasks, most of them measured to be worth
        too little and then refined, would take minutes of two cores from other tests.
        """
        self.state = folder / "state"
        has_next = first is not None and "next_generator" in first
        rows = 2 * workers if has_next else workers
        worker_port = free_row(rows + 3 + len(more_models))
        self.port, generator_port, self.generator_metrics_port, *more_ports = range(
            worker_port + rows, worker_port + rows + 3 + len(more_models)
        )
        self.url = f"http://127.0.0.1:{self.port}"
        self.worker_url = f"http://127.0.0.1:{worker_port}"
        self.config: dict[str, Any] = {
            "state_dir": str(self.state),
            "server": {"port": self.port, "measure": measure, **(server or {})},
            "auto": {"min_prompt_tokens": 8},  # the small suite's prompts are short
            "upgrades": upgrades or {},
            "logs": logs or {},
            "generator": {"port": generator_port, "metrics_port": self.generator_metrics_port},
            "edge_models": [
                (first or small_model()) | {"port": worker_port, "workers": workers},
                *(m | {"port": p} for m, p in zip(more_models, more_ports, strict=True)),
            ],
        }
        config = folder / "stack.yaml"
        config.write_text(yaml.safe_dump(self.config))
        command = [str(Path(sys.executable).parent / "loragen"), "up", "--config", str(config)]
        self.output = folder / "output.txt"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=child_environment(LORAGEN_CONFIG=""),
                start_new_session=True,
            )
        self.client = openai.OpenAI(base_url=self.url + "/v1", api_key="any", max_retries=0)
        self.http = httpx.Client(base_url=self.url, timeout=120)

    def wait_ready(self) -> None:
        """Wait for the ready line."""
        line = f"ready: {self.url}"
        try:
            wait_until(lambda: line in self.printed(), START_SECONDS, alive=self.process)
        except AssertionError:
            raise AssertionError(f"not ready:\n{self.printed()}\n{self.logs()}") from None

    def printed(self) -> str:
        """Return what the launcher printed."""
        return self.output.read_text(errors="replace")

    def logs(self) -> str:
        """Return the ends of the children's logs."""
        files = sorted((self.state / "logs").glob("*.log"))
        return "\n".join(f"== {f.name}\n{f.read_text(errors='replace')[-1500:]}" for f in files)

    def run(self) -> dict[str, Any]:
        """Return what the launcher says of its children."""
        content: dict[str, Any] = json.loads((self.state / "run.json").read_text())
        return content

    def redis(self) -> "redis.Redis":
        """Return a client of the stack's Redis."""
        return redis.Redis.from_url(self.run()["redis_url"])

    def kill(self, name: str) -> int:
        """Kill a child of the launcher with all it started, and return the pid it had."""
        pid: int = self.run()["pids"][name]
        keeper = psutil.Process(pid)
        for process in [*keeper.children(recursive=True), keeper]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        wait_until(lambda: self.run()["pids"].get(name) != pid, 60)
        return pid

    def secret(self, name: str) -> str:
        """Return a secret of the stack."""
        return (self.state / "secrets" / name).read_text().strip()

    @property
    def worker_secret(self) -> str:
        """The key between gateway and workers."""
        return self.secret("worker_secret")

    def forget_memory(self) -> None:
        """Let the gateway's memory tier go stale, so that the next request asks Redis."""
        time.sleep(2.2)

    def is_ready(self) -> bool:
        """Whether /ready says so."""
        try:
            return self.http.get("/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of one metric of the gateway, 0 if it has not been counted."""
        for family in text_string_to_metric_families(self.http.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return 0.0

    def create(self, prompt: str, **fields: Any) -> dict[str, Any]:
        """Register a task and return its object."""
        reply = self.http.post(
            "/v1/tasks", json={"model": MODEL, "system_prompt": prompt, **fields}
        )
        assert reply.status_code in (200, 201, 202), reply.text
        task: dict[str, Any] = reply.json()
        return task

    def ask(self, question: str, task_id: str | None = None, **fields: Any) -> httpx.Response:
        """Ask a question, greedily."""
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 32,
            **fields,
        }
        if task_id is not None:
            body["task_id"] = task_id
        return self.http.post("/v1/chat/completions", json=body)

    def interrupt(self) -> None:
        """Send SIGINT to the launcher's process group, as a terminal does, and wait for the end."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(60)


def small_model() -> dict[str, Any]:
    """Return the edge model that tests serve."""
    (model,) = yaml.safe_load((ROOT / "config" / "small.yaml").read_text())["edge_models"]
    return {
        **model,
        "model": str(CHECKPOINT / "edge"),
        "generator": str(CHECKPOINT / "generator"),
    }


def wait_until(
    condition: Callable[[], bool],
    seconds: float,
    *,
    alive: "subprocess.Popen[bytes] | None" = None,
) -> None:
    """Wait for a condition, which must come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        assert alive is None or alive.poll() is None, "the process ended"
        time.sleep(0.2)
