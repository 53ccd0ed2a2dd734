"""Patience: the HTTP of a connection, which ends with clients that are too slow or say too much.

Uvicorn waits for ever for the rest of a request, takes heads of any size, and for ever holds what a
client does not read. Here a client has so long to send a whole request, and so long to read enough
of what waits for it, that a worker may go on; what waits meanwhile is bounded by the transport.
"""

import asyncio
import json
from http import HTTPStatus
from typing import ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from loragen.errors import HeadTooLarge, InvalidRequest, LoragenError, RequestTimeout

MAX_HEAD_BYTES: Final = 64 << 10


class PatientProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with an end to its patience; see `patient`."""

    seconds: ClassVar[float]

    _is_head = False
    _head_bytes = 0
    _receiving: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._receiving = self.loop.call_later(self.seconds, self._give_up_receiving)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_receiving()
        self._stop_sending()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; a head that is too large is refused."""
        if self._receiving is None:  # whatever it is, it must become a whole request in time
            self._receiving = self.loop.call_later(self.seconds, self._give_up_receiving)
        was_head = self._is_head
        super().data_received(data)
        if self._is_head:
            self._head_bytes = self._head_bytes + len(data) if was_head else len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(HeadTooLarge(f"the head is larger than {MAX_HEAD_BYTES} bytes"))

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._is_head = True

    def on_headers_complete(self) -> None:
        """End the head."""
        self._is_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that a whole request is here."""
        self._stop_receiving()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Begin to wait for the client to read."""
        super().pause_writing()
        if self._sending is None:
            self._sending = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that the client has read."""
        self._stop_sending()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, also one whose client has not read its last answer."""
        if self.transport.get_write_buffer_size() > 0:
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(InvalidRequest("this is not an HTTP request"))

    def _give_up_receiving(self) -> None:
        self._receiving = None
        is_body = self.cycle is not None and self.cycle.more_body
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if self.flow.read_paused:  # it is us who do not read
            self._receiving = self.loop.call_later(self.seconds, self._give_up_receiving)
        elif (self._is_head and not is_answering) or (is_body and not self.cycle.response_started):
            self._refuse(RequestTimeout(f"no whole request within {self.seconds:g} seconds"))
        elif is_body or not is_answering:
            self.transport.close()

    def _refuse(self, error: LoragenError) -> None:
        """Answer below the application, and hang up."""
        if self.transport.is_closing():
            return
        body = json.dumps(error.body(), separators=(",", ":")).encode("ascii")
        head = (
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    def _stop_receiving(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None


def patient(limit: float) -> type[PatientProtocol]:
    """Return the protocol with so many seconds of patience; uvicorn makes one a connection."""

    class Patient(PatientProtocol):
        seconds = limit

    return Patient
