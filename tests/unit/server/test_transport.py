"""A connection that is lost while it is made is a failure to connect."""

import socket

import httpx
import pytest
from anyio._backends import _asyncio

from server.transport import Transport


@pytest.mark.parametrize(
    ("missing", "expected"), [("_raw_socket", httpx.ConnectError), ("receive", TypeError)]
)
async def test_only_a_socket_that_is_gone_is_a_failure_to_connect(
    monkeypatch: pytest.MonkeyPatch, missing: str, expected: type[Exception]
) -> None:
    monkeypatch.setattr(_asyncio.SocketStream, missing, None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        async with httpx.AsyncClient(transport=Transport(), timeout=5) as client:
            with pytest.raises(expected):
                await client.get(url)
