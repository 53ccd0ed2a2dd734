"""Free ports: what is chosen can still be bound when a slow start comes to it."""

import socket

import pytest

from config import ports


def test_a_free_port_is_none_of_those_that_connections_get() -> None:
    """One of those could be taken between its choice and its use, as a test's once was."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.listen()
        with socket.create_connection(server.getsockname()) as connection:
            of_connections = connection.getsockname()[1]
    assert ports.free_port() < 32_000 < of_connections


def test_a_row_has_no_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for again where only its first is free."""
    free = ports.free_row(6)
    choices = iter([free, free + 1, free + 3])
    monkeypatch.setattr("config.ports.secrets.choice", lambda _: next(choices))
    with socket.create_server(("127.0.0.1", free + 2)):
        assert ports.free_row(3) == free + 3


def test_a_host_of_another_machine_is_an_error() -> None:
    """Not a search without end."""
    with pytest.raises(OSError, match="assign"):
        ports.free_port("192.0.2.1")
