"""Real worker processes for a benchmark."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import httpx
import yaml

from bench.model import BenchModel
from config.environment import child_environment
from config.ports import free_port

START_SECONDS: Final = 300.0
ENGINE: Final[Mapping[str, Any]] = {"max_model_len": 1_024, "kv_cache_gib": 0.5}

Say = Callable[[str], None]


@contextlib.contextmanager
def workers(
    model: BenchModel, folder: Path, say: Say, engine: Mapping[str, Any] = ENGINE
) -> Iterator[tuple[str, str]]:
    """Run a gate-space worker and a bare one with these settings; yield their addresses."""
    shared = {"name": "bench", "model": str(model.edge), "dtype": "bfloat16", **engine}
    variants = {"gate": {"generator": str(model.generator)}, "bare": {}}
    with _orderly_end(), contextlib.ExitStack() as stack:
        urls = []
        for name, variant in variants.items():
            say(f"starting worker {name}")
            port = free_port()
            settings = {"edge_models": [{**shared, **variant, "port": port}]}
            config = folder / f"{name}.yaml"
            config.write_text(yaml.safe_dump(settings))
            urls.append(stack.enter_context(worker(config, port=port)))
        yield urls[0], urls[1]


@contextlib.contextmanager
def worker(config: Path, *, port: int) -> Iterator[str]:
    """Run one worker until the block ends."""
    log = config.with_suffix(".log")
    command = [sys.executable, "-m", "workers", "--edge-model", "bench", "--config", str(config)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=child_environment(), start_new_session=True
        )
    try:
        wait_healthy(process, port, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def _orderly_end() -> Iterator[None]:
    """Unwind at SIGTERM too, which else would leave the workers behind."""

    def unwind(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def wait_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a worker answers.

    Raises:
        SystemExit: it ended, or did not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                return
        time.sleep(0.5)
    tail = log.read_text(errors="replace").splitlines()[-5:]
    raise SystemExit("bench: a worker did not start:\n" + "\n".join(tail))
