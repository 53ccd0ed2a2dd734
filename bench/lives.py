"""Lives: what every process of a running stack holds, sampled from its start to its end."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx
import psutil

from bench.tenant_stack import TenantStack

KINDS: Final = ("rss_bytes", "descriptors", "threads")


@dataclass(slots=True)
class Life:
    """The samples of one process, or of the metrics of one; times are seconds of the soak."""

    name: str
    pid: int
    times: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, at: float, values: Mapping[str, float]) -> None:
        """Add a sample."""
        self.times.append(round(at, 1))
        for kind, value in values.items():
            self.values.setdefault(kind, []).append(value)

    def after(self, begin: float) -> "Life":
        """Return the part of it from a time on."""
        skipped = sum(at < begin for at in self.times)
        rest = {kind: values[skipped:] for kind, values in self.values.items()}
        return Life(self.name, self.pid, self.times[skipped:], rest)


class Sampler:
    """A thread that looks at every process, and at the metrics of those that have some."""

    def __init__(self, stack: TenantStack, *, every_seconds: float) -> None:
        self._stack = stack
        self._every = every_seconds
        self._started = time.monotonic()
        self._lives: dict[tuple[str, int], Life] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def now(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._started

    def end(self) -> list[Life]:
        """Take no more samples; return all lives."""
        self._ending.set()
        self._thread.join(60)
        return list(self._lives.values())

    def _run(self) -> None:
        with httpx.Client(timeout=10) as client:
            while not self._ending.wait(self._every):
                for part, keeper in self._stack.pids().items():
                    self._sample(part, keeper)
                for part, url in self._stack.metrics().items():
                    self._count_series(client, part, url)

    def _sample(self, part: str, keeper: int) -> None:
        try:
            root = psutil.Process(keeper)
            for process in [root, *root.children(recursive=True)]:
                with process.oneshot():
                    values = (
                        process.memory_info().rss,
                        process.num_fds(),
                        process.num_threads(),
                    )
                    name = f"{part}: {_title(process)}"
                self._add("process", process.pid, name, dict(zip(KINDS, values, strict=True)))
        except psutil.Error:  # it has just ended
            return

    def _count_series(self, client: httpx.Client, part: str, url: str) -> None:
        try:
            reply = client.get(url)
        except httpx.HTTPError:  # it is being started
            return
        if reply.status_code != 200:
            return
        series = sum(not line.startswith("#") for line in reply.text.splitlines() if line)
        pid = self._stack.pids().get(part, 0)
        self._add("metrics", pid, f"{part}: /metrics", {"series": series})

    def _add(self, what: str, pid: int, name: str, values: Mapping[str, float]) -> None:
        self._lives.setdefault((what, pid), Life(name, pid)).add(self.now, values)


def _title(process: psutil.Process) -> str:
    """Return what a process is: its module, script or title, without paths and arguments."""
    words: list[str] = process.cmdline() or [process.name()]
    if "-m" in words[:4]:
        return f"python -m {words[words.index('-m') + 1]}"
    script = next((word for word in words[:4] if word.endswith(".py")), words[0])
    return script.rpartition("/")[2].partition(".handle")[0]
