"""Local Ray: a Ray of our own on this machine, or the connection to a given one.

Our own Ray binds loopback only, wants a token that never leaves this machine, keeps its files in
a temporary folder, and ends with this process. `ray_environment` sees to the first two.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import RayError

from config.settings import Settings
from config.temp_folder import RAY_CHARS, temp_folder
from loragen.errors import ConfigError
from router_service.ray_environment import ADDRESS_FILE

CONNECT_SECONDS: Final = 3.0
OBJECT_STORE_BYTES: Final = 80 << 20
"""Near the least Ray takes; prompts and recipes travel inside messages."""


@contextmanager
def open_ray(settings: Settings, *, cpus: int) -> Iterator[None]:
    """Start a local Ray with that many CPU slots, or join the configured one; leave it at the end.

    Raises:
        ConfigError: the configured Ray does not answer.
    """
    address = settings.generator.ray_address
    with ExitStack() as stack:
        if address is not None:
            stack.callback(ray.shutdown)
            join_ray(address)
        else:
            folder = stack.enter_context(temp_folder("ray-", behind=RAY_CHARS))
            stack.callback(ray.shutdown)  # before the folder goes
            ray.init(
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level=settings.logs.level,
                _metrics_export_port=settings.generator.metrics_port,
                _temp_dir=str(folder),
            )
            stack.enter_context(_address_file(settings.state_dir))
        yield


def join_ray(address: str) -> None:
    """Connect to a running Ray.

    Raises:
        ConfigError: none answers there.
    """
    _require_listener(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RayError) as error:
        raise ConfigError(f"no Ray answers at {address}") from error


def _require_listener(address: str) -> None:
    """Ask before Ray does: it tries a dead address for 40 seconds."""
    host, colon, port = address.rpartition(":")
    if not colon:  # "auto"
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ConfigError(f"no Ray answers at {address}") from error


@contextmanager
def _address_file(state_dir: Path) -> Iterator[None]:
    """Tell `python -m router_service actors` where this Ray is."""
    path = state_dir / ADDRESS_FILE
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(ray.get_runtime_context().gcs_address + "\n", encoding="ascii")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
