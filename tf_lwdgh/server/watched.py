# SPDX-License-Identifier: Apache-2.0
"""Around every request: a line in the log, a count, headers that keep pages safe, no traceback to the caller."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tf_lwdgh.server.service import Service
from tf_lwdgh.server.work import Timing

log = logging.getLogger("tf_lwdgh.server")
ALWAYS = ("/healthz/", "/metrics")  # answered while the server ends, and not waited for
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}


class Watched:
    """An ASGI application around another.

    Args:
      app: the other.
      service: is told of each request.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        counted = not scope["path"].startswith(ALWAYS)
        self._service.running += counted
        try:
            await _Request(self._app, self._service, scope, refuse=counted).answer(receive, send)
        finally:
            self._service.running -= counted


class _Request:
    """One request on its way."""

    def __init__(self, app: Callable, service: Service, scope: dict[str, Any], *, refuse: bool) -> None:
        self._app, self._service, self._scope = app, service, scope
        self._refuse = refuse and service.draining
        self._timing = scope.setdefault("state", {})["timing"] = Timing()
        self._start, self._status, self._received = time.perf_counter(), 0, 0

    async def answer(self, receive: Callable, send: Callable) -> None:
        async def count(*_: Any) -> dict[str, Any]:
            message = await receive()
            self._received += len(message.get("body", b""))
            return message

        async def add(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
                message = {**message, "headers": [*message["headers"], *self._headers()]}
            await send(message)

        try:
            if self._refuse:
                await _error(add, 503, "the server is about to end.")
            else:
                await self._app(self._scope, count, add)
        except Exception:
            log.exception("%s failed", self._line())
            if self._status:
                raise  # the answer has begun
            await _error(add, 500, "the server failed; its log says how.")
        finally:
            self._tell()

    def _headers(self) -> list[tuple[bytes, bytes]]:
        """What every answer has; of the model's time, that which is known when the answer begins."""
        told = f"model;dur={1e3 * self._timing.model:.3f}, queue;dur={1e3 * self._timing.waited:.3f}"
        times = [(b"server-timing", told.encode())] if self._timing.model else []
        return _HEADERS + times

    def _tell(self) -> None:
        seconds = time.perf_counter() - self._start
        route = getattr(self._scope.get("route"), "path", "none")
        method = self._scope["method"] if self._scope["method"] in _METHODS else "other"
        self._service.metrics.observe(route, method, self._status, seconds, self._timing)
        log.info(
            "%s %d %.1f ms (queue %.1f, model %.1f) %d bytes",
            self._line(), self._status, 1e3 * seconds, 1e3 * self._timing.waited,
            1e3 * self._timing.model, self._received,
        )  # fmt: skip

    def _line(self) -> str:
        """Time, caller, method and address; the address as it came, which has no line ends."""
        caller = (self._scope.get("client") or ("-",))[0]
        path = self._scope.get("raw_path", b"").decode("ascii", "replace")
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return f"{now} {caller} {self._scope['method']} {path[:200]}"


async def _error(send: Callable, status: int, message: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": message}).encode()})
