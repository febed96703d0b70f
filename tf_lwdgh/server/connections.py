# SPDX-License-Identifier: Apache-2.0
"""Connections that end where the other side takes its time.

Uvicorn waits for ever for a request's head, for the rest of a body that nobody reads any more, and for
a caller that does not read its answer. Here each has a time.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_LINGER = 5.0  # seconds in which a refused body may go on, so that its sender reads the refusal


class Connection(H11Protocol):
    """A connection of HTTP/1.1 with a time for each wait.

    Attributes:
      patience: seconds for a head to come whole, and for an answer to be read on.
    """

    patience: float

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._waits_for: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.patience, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel(self._unread)
        self._cancel(self._timer)
        self._waits_for = "nothing"  # what comes now is of no request
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Starts a timer where the connection begins to wait for something, and stops it after."""
        answering = self.cycle is not None and not self.cycle.response_complete
        refused = self.conn.their_state is h11.SEND_BODY
        waits_for = None if answering else "rest" if refused else "head"
        if waits_for == self._waits_for or self._waits_for == "nothing":
            return
        self._waits_for = waits_for
        self._cancel(self._timer)
        if waits_for is not None:
            seconds = _LINGER if waits_for == "rest" else self.patience
            self._timer = self.loop.call_later(seconds, self.transport.abort)

    @staticmethod
    def _cancel(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


def of_patience(seconds: float) -> type[Connection]:
    """Connections that wait for so many seconds."""
    return type("Connection", (Connection,), {"patience": seconds})
