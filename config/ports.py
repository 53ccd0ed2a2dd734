"""Ports: what a start is going to bind, checked before anything runs."""

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from loragen.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PortClaim:
    """A port, and the setting that names it."""

    setting: str
    host: str
    port: int


def require_free(claims: Sequence[PortClaim]) -> None:
    """Check that every port can be bound.

    Raises:
        ConfigError: one is in use, claimed twice, or its address is not this machine's.
    """
    owners: dict[int, str] = {}
    with ExitStack() as stack:
        for claim in claims:
            if claim.port in owners:
                raise ConfigError(
                    f"{claim.setting}: port {claim.port} is also {owners[claim.port]}: "
                    "give each its own"
                )
            owners[claim.port] = claim.setting
            _bind(claim, stack)


def free_port(host: str) -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _bind(claim: PortClaim, stack: ExitStack) -> None:
    family = socket.AF_INET6 if ":" in claim.host else socket.AF_INET
    try:
        stack.enter_context(socket.create_server((claim.host, claim.port), family=family))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            problem = "is in use by another process: end that one, or choose another port"
        else:
            problem = f"cannot be bound on {claim.host}: {error.strerror or error}"
        raise ConfigError(f"{claim.setting}: port {claim.port} {problem}") from error
