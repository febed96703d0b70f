# SPDX-License-Identifier: Apache-2.0
"""The server as a process: it listens at once, loads the model meanwhile, and ends in order."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import threading
import time
from types import FrameType

import uvicorn

from tf_lwdgh.server.app import application
from tf_lwdgh.server.connections import of_patience
from tf_lwdgh.server.service import Service

_AFTER = 2  # seconds in which answers that are made may still be sent
_log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Uvicorn's server, which goes on listening while it ends: so callers are told, not cut off.

    Args:
      service: whose requests are waited for.
      config: uvicorn's.
    """

    def __init__(self, service: Service, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._service, self._until = service, 0.0
        self.failure: BaseException | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets running requests finish; a second does not wait for them."""
        if self._service.draining:
            self.should_exit = self.force_exit = True
        self._until = time.monotonic() + self._service.limits.drain_timeout
        self._service.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Whether to end now; asked ten times a second."""
        if self._service.draining and (not self._service.running or time.monotonic() > self._until):
            self.should_exit = True
        return await super().on_tick(counter)

    def load(self) -> None:
        """Loads the model; where that fails, the server ends and has the failure."""
        try:
            self._service.models.load()
            _spare_the_collector()
        except BaseException as failure:
            self.failure = failure
            self.should_exit = True


def _spare_the_collector() -> None:
    """Keeps Python's garbage collector from walking through TensorFlow at every large JSON body.

    While a body is parsed no other thread runs; walking through all that is there takes up to ten times as long.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
      OSError: the address is taken, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise OSError(f"--host and --port must be free. Received: {host}:{port}: {error}.") from error


def run(service: Service, listening: socket.socket) -> None:
    """Serves until a signal ends it.

    Args:
      service: what is served.
      listening: from `listen`.

    Raises:
      Exception: what kept the model from being loaded.
    """
    config = uvicorn.Config(
        application(service),
        http=of_patience(service.limits.read_timeout),
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=service.limits.max_connections,
        timeout_graceful_shutdown=_AFTER,
    )
    server = Server(service, config)
    loader = threading.Thread(target=server.load, name="loader", daemon=True)
    loader.start()
    server.run(sockets=[listening])
    if server.failure is not None:
        raise server.failure
    _log.info("ended")
    if loader.is_alive() or service.work.running:
        # Their threads are within TensorFlow, and Python would wait for them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
