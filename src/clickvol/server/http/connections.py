"""Connections that must go on: half a request, a body that trickles or an answer that nobody reads ends one."""

from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 5.0
"""From the first byte to the end of a request's headers, or from connecting. Chosen: ample on a slow line."""

# In one of two such times a body, or an answer, must come further by so many bytes. Chosen: any line can do it.
_PACE_SECONDS = 10.0
_PACE_BYTES = 10_000


class PunctualProtocol(H11Protocol):  # type: ignore[misc]  # uvicorn is not followed by mypy
    """HTTP/1.1 that closes a connection on which nothing goes on."""

    _head_timer: Any = None
    _pace_timer: Any = None
    _num_received = 0
    _num_resumed = 0
    _num_late = 0
    _before = (0, 0, 0)

    def connection_made(self, transport: object) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take bytes; while they are no whole head of a request, or no whole body, time runs."""
        self._num_received += len(data)
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._head_timer is None:
            self._wait()
        if self.conn.their_state is h11.SEND_BODY:
            self._keep_pace()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._keep_pace()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._num_resumed += 1
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop()
        if self._pace_timer is not None:
            self._pace_timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; where an answer has begun already, the connection just ends."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def _wait(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _keep_pace(self) -> None:
        if self._pace_timer is None:
            self._before = (self._num_received, self.transport.get_write_buffer_size(), self._num_resumed)
            self._pace_timer = self.loop.call_later(_PACE_SECONDS, self._check_pace)

    def _check_pace(self) -> None:
        """Close the connection where it has stood still; else watch on while there is something to wait for."""
        self._pace_timer = None
        received, unsent, resumed = self._before
        is_body, is_answer = self.conn.their_state is h11.SEND_BODY, self.flow.write_paused
        # A body that the server, being busy, has stopped is not late.
        is_late = is_body and not self.flow.read_paused and self._num_received - received < _PACE_BYTES
        num_read = unsent - self.transport.get_write_buffer_size()
        is_late = is_late or (is_answer and self._num_resumed == resumed and num_read < _PACE_BYTES)
        self._num_late = self._num_late + 1 if is_late else 0
        if self._num_late > 1:  # what kept it may just have ended
            self.transport.abort()
        elif is_body or is_answer:
            self._keep_pace()
