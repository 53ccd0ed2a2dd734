"""A client that costs little itself: HTTP/1.1 over kept connections, nothing parsed but the end.

A client library would take as much of the machine as what is measured.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

_HEAD_END: Final = b"\r\n\r\n"
_STREAM_END: Final = b"0\r\n\r\n"
_DONE: Final = b"data: [DONE]\n\n"


class PlainClient:
    """Sends one request again and again, from several connections at once."""

    def __init__(self, url: str, path: str, body: Mapping[str, Any], **headers: str) -> None:
        """Take the address of a server, and headers by their names with `_` for `-`."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port
        payload = json.dumps(body, separators=(",", ":")).encode()
        fields = {"host": parts.netloc, "content-type": "application/json", **headers}
        fields["content-length"] = str(len(payload))
        lines = [f"POST {path} HTTP/1.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        self._request = "\r\n".join(lines).encode() + _HEAD_END + payload
        self._is_stream = bool(body.get("stream"))

    async def ask(self, *, seconds: float, clients: int) -> int:
        """Return how many answers there were in so many seconds, from so many connections.

        Raises:
            RuntimeError: an answer was not a whole one.
        """
        until = time.perf_counter() + seconds
        counts = await asyncio.gather(*(self._again(until) for _ in range(clients)))
        return sum(counts)

    async def _again(self, until: float) -> int:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        count = 0
        try:
            while time.perf_counter() < until:
                writer.write(self._request)
                head = await reader.readuntil(_HEAD_END)
                body = await self._body(reader, head.lower())
                if b" 200 " not in head[:16] or (self._is_stream and _DONE not in body):
                    raise RuntimeError(f"not an answer: {head!r} {body[-500:]!r}")
                count += 1
        finally:
            writer.close()
        return count

    async def _body(self, reader: asyncio.StreamReader, head: bytes) -> bytes:
        _, found, rest = head.partition(b"content-length: ")
        if found:
            return await reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
        body = b""
        while not body.endswith(_STREAM_END):
            part = await reader.read(65_536)
            if not part:
                raise RuntimeError(f"an answer that ends early: {body[-500:]!r}")
            body += part
        return body
