"""Ports: what a start is going to bind, checked before anything runs."""

import errno
import secrets
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from loragen.errors import ConfigError

_CHOSEN: Final = range(20_000, 32_000)
"""Where free ports are looked for. Linux gives outgoing connections those from 32768 on: one of
these could be taken between its choice and the bind of a slow start. Ray has those below 20000."""


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


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that was free a moment ago, and that no outgoing connection takes meanwhile."""
    return free_row(1, host)


def free_row(count: int, host: str = "127.0.0.1") -> int:
    """Return the first of `count` such ports in a row.

    Raises:
        OSError: the host is not this machine's.
    """
    while True:
        first = secrets.choice(_CHOSEN)
        try:
            with ExitStack() as stack:
                for port in range(first, first + count):
                    stack.enter_context(_listener(host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return first


def _bind(claim: PortClaim, stack: ExitStack) -> None:
    try:
        stack.enter_context(_listener(claim.host, claim.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            problem = "is in use by another process: end that one, or choose another port"
        else:
            problem = f"cannot be bound on {claim.host}: {error.strerror or error}"
        raise ConfigError(f"{claim.setting}: port {claim.port} {problem}") from error


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)
