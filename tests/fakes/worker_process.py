"""A real worker process, for tests: start it by its command, ask it, count what it leaves."""

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import openai
from prometheus_client.parser import text_string_to_metric_families

from config.environment import child_environment
from config.ports import free_port
from loragen.recipe import Recipe

SECRET = "worker-secret"
START_SECONDS = 600  # of a machine that does other things, too
STOP_SECONDS = 30
MESSAGES: Any = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True)
class WorkerClient:
    """A worker as the gateway meets it."""

    url: str
    model: str
    secret: str = SECRET

    @cached_property
    def http(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.secret}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)

    @cached_property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.secret, max_retries=0)

    def chat(self, recipe: Recipe | None = None, **options: Any) -> Any:
        """Ask for a short greedy answer, with the recipe in the header."""
        headers = {"x-lora-recipe": recipe.text} if recipe else {}
        fields = {"model": self.model, "max_tokens": 8, "temperature": 0, **options}
        extra = {"ignore_eos": True, "return_token_ids": True, **fields.pop("extra_body", {})}
        return self.openai.chat.completions.create(
            messages=MESSAGES, extra_headers=headers, extra_body=extra, **fields
        )

    def tokens(self, recipe: Recipe | None = None, **options: Any) -> list[int]:
        ids: list[int] = self.chat(recipe, **options).choices[0].token_ids
        return ids


@dataclass(frozen=True)
class Worker:
    """One running worker in a session of its own, so that all its processes can be counted."""

    process: subprocess.Popen[bytes]
    client: WorkerClient
    log: Path

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()[-3_000:]
            try:
                if httpx.get(f"{self.client.url}/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise TimeoutError(self.log.read_text()[-3_000:])

    def processes(self) -> list[int]:
        """Return all live processes of the worker's session."""
        alive = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            except OSError:  # it ended meanwhile
                continue
            if int(session) == self.process.pid and state != "Z":
                alive.append(int(stat.parent.name))
        return alive

    def metrics(self) -> dict[str, float]:
        """Return its metrics by name, summed over their labels."""
        values: dict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families(self.client.http.get("/metrics").text):
            for sample in family.samples:
                values[sample.name] += sample.value
        return values

    def wait_gone(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self.processes() == []

    def end(self) -> None:
        """Kill whatever a failed test left."""
        for process in self.processes():
            os.kill(process, signal.SIGKILL)
        self.process.wait()


def start_worker(name: str, config: Path, **environment: str) -> Worker:
    """Start the worker of one configured edge model on a free port."""
    port = free_port()
    arguments = ["--edge-model", name, "--config", str(config), "--port", str(port)]
    log = config.with_name(f"{name}.log")
    return start_process("workers", arguments, name=name, port=port, log=log, **environment)


def start_process(
    module: str, arguments: Sequence[str], *, name: str, port: int, log: Path, **environment: str
) -> Worker:
    """Start a module that becomes the worker of an edge model at a port."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=child_environment(LORAGEN_WORKER_SECRET=SECRET, **environment),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return Worker(process, WorkerClient(f"http://127.0.0.1:{port}", name), log)
