"""Raw client: bytes on a socket, for what no HTTP client would send."""

import json
import socket
from typing import Any

from tests.fakes.live import LiveServer


def connect(server: LiveServer, **options: int) -> socket.socket:
    """Return a connection to the server on which nobody waits longer than 30 seconds."""
    client = socket.socket()
    for name, value in options.items():
        client.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    client.settimeout(30)
    client.connect(("127.0.0.1", server.port))
    return client


def rest_of(client: socket.socket) -> bytes:
    """Return what comes until the server hangs up."""
    parts = []
    try:
        while part := client.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def answer_to(server: LiveServer, sent: bytes) -> bytes:
    """Return what the server says to these bytes until it hangs up."""
    with connect(server) as client:
        client.sendall(sent)
        return rest_of(client)


def error_in(answer: bytes) -> tuple[int, Any]:
    """Return the status of a raw answer, and the code of its error, which has the one shape."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split(b" ")[1]), error["code"]
