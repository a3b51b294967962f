"""Connections that must say soon what they want: half a request does not hold one."""

from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# From the first byte to the end of a request's headers, or from connecting. Chosen: ample on a slow line.
_HEAD_SECONDS = 5.0

MAX_HEAD_BYTES = 1 << 14
"""Of a request's line and headers; more is refused."""


class PunctualProtocol(H11Protocol):  # type: ignore[misc]  # uvicorn is not followed by mypy
    """HTTP/1.1 that closes a connection whose request's headers take too long."""

    _timer: Any = None

    def connection_made(self, transport: object) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take bytes; while they are no whole head of a request, time runs."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._timer is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
