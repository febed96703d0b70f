# SPDX-License-Identifier: Apache-2.0
"""Bodies of requests: read with a limit and in time, and what JSON they hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request

from tf_lwdgh.server.limits import Limits
from tf_lwdgh.server.refusals import Refused

_LEFT = 499  # the caller has gone, and reads no answer; the log has this number


class Bodies:
    """Reads bodies, none too large, and all that are held at once not too large together.

    Attributes:
      held: bytes held now.

    Args:
      limits: max_body_bytes, max_held_bytes and read_timeout count here.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits, self.held = limits, 0

    @contextlib.asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The body, whole, counted as held until the context ends.

        Raises:
          Refused: it is too large, by what it says or by what has come (413); too much is held (429);
            it comes too slowly (408).
        """
        declared = request.headers.get("content-length", "0")
        if not declared.isascii() or not declared.isdigit():
            raise Refused(400, "Content-Length must be a whole number.", close=True)
        self._check(int(declared[:20]))
        chunks: list[bytes] = []
        try:
            seconds = self._limits.read_timeout
            try:
                await asyncio.wait_for(self._collect(request, chunks), seconds)
            except asyncio.TimeoutError:
                raise Refused(408, f"the body must come within {seconds:g} s.", close=True) from None
            yield b"".join(chunks)
        finally:
            self.held -= sum(map(len, chunks))

    async def _collect(self, request: Request, chunks: list[bytes]) -> None:
        size, more = 0, True
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise Refused(_LEFT, "the caller has left.", close=True)
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            self._check(size)
            if self.held + len(chunk) > self._limits.max_held_bytes:
                raise Refused(429, "too many requests hold a body; try again.")
            if chunk:
                self.held += len(chunk)
                chunks.append(chunk)

    def _check(self, size: int) -> None:
        most = self._limits.max_body_bytes
        if size > most:
            raise Refused(413, f"the body must have at most {most} bytes. Received: {size} or more.")


def parse_json(body: bytes) -> Any:
    """The value of a JSON body; as JSON has them, without NaN and Infinity.

    Raises:
      Refused: it is none (400).
    """
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body must be JSON in UTF-8. Received: {error.reason}.") from error
    except RecursionError as error:
        raise Refused(400, "the body must be JSON: it is nested too deeply.") from error
    except ValueError as error:
        raise Refused(400, f"the body must be JSON: {error}.") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"every number must be finite. Received: {constant}")
