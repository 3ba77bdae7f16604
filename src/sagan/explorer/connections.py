"""HTTP connections with deadlines: for the headers of a request, and for reading a response."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_TIMEOUT = 10.0
"""Seconds from the connection, or from the first byte of a later request, until its headers are complete."""
RESPONSE_TIMEOUT = 60.0
"""Seconds that the peer may leave a response unread."""


class TimedConnection(H11Protocol):
    """uvicorn's HTTP connection, closed where the peer neither completes its headers nor reads its response in time.

    uvicorn itself limits only the idle time after a response. Without these deadlines, as many unfinished requests as
    the server accepts connections would keep everyone else out. The body of a request has its own deadline (app.py).
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._request_deadline: asyncio.TimerHandle | None = None
        self._response_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._request_deadline = self.loop.call_later(REQUEST_TIMEOUT, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:  # a request is being answered
            self._end_request_deadline()
        elif self._request_deadline is None:
            self._request_deadline = self.loop.call_later(REQUEST_TIMEOUT, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_response_deadline()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._expect_reader()  # closing waits until what was written has been read

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_request_deadline()
        self._end_response_deadline()
        super().connection_lost(exc)

    def _expect_reader(self) -> None:
        if self._response_deadline is None:
            self._response_deadline = self.loop.call_later(RESPONSE_TIMEOUT, self.transport.abort)

    def _end_request_deadline(self) -> None:
        if self._request_deadline is not None:
            self._request_deadline.cancel()
            self._request_deadline = None

    def _end_response_deadline(self) -> None:
        if self._response_deadline is not None:
            self._response_deadline.cancel()
            self._response_deadline = None
