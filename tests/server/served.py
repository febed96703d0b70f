# SPDX-License-Identifier: Apache-2.0
"""Servers for tests: in this process, of the real model or of one that does as it is told."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import tensorflow as tf
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from tests.serving.exports import SIZE
from tf_lwdgh.server.app import application
from tf_lwdgh.server.connections import of_patience
from tf_lwdgh.server.limits import Limits
from tf_lwdgh.server.models import AVAILABLE
from tf_lwdgh.server.process import Server, listen
from tf_lwdgh.server.service import Service


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    """uint8 [H, W, 3] as a file of a format, by Pillow's name."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a PNG file."""
    return encoded(pixels, "PNG")


def noise(seed: int, count: int = 1) -> list[bytes]:
    """PNG files of noise."""
    random = np.random.default_rng(seed)
    return [png(random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)) for _ in range(count)]


def form(classes: dict[str, list[bytes]]) -> list[tuple[str, tuple[str, bytes]]]:
    """The files of a form with a field a class."""
    return [(c, (f"{i}.png", x)) for c, files in classes.items() for i, x in enumerate(files)]


class Toy:
    """A model whose signature 'wait' blocks until it is let go on, and counts how often it was called."""

    def __init__(self) -> None:
        self.name, self.versions, self.state = "toy", {1: ""}, AVAILABLE
        self.go_on, self.begun, self.calls = threading.Event(), threading.Semaphore(0), 0
        spec = {"x": tf.TensorSpec([None], tf.float32)}
        wait = _Signature(self._wait, "wait", spec)
        broken = _Signature(self._break, "broken", spec)
        signatures = {"wait": wait, "serving_default": wait, "broken": broken}
        self._loaded = SimpleNamespace(signatures=signatures, metadata={})

    def _wait(self, inputs: dict) -> dict:
        self.calls += 1
        self.begun.release()
        assert self.go_on.wait(60)
        return {"y": np.asarray(inputs["x"]) * 2, "n": np.int32(1)}

    def _break(self, inputs: dict) -> dict:
        raise tf.errors.ResourceExhaustedError(None, None, "no memory")

    def version(self, number: int | None = None) -> tuple[int, SimpleNamespace]:
        return 1, self._loaded

    def check_name(self, name: str) -> None:
        pass


class _Signature:
    def __init__(self, call, name: str, inputs: dict) -> None:
        self._call, self.name, self.inputs = call, name, inputs

    def __call__(self, inputs: dict) -> dict:
        return self._call(inputs)


@contextlib.contextmanager
def client(models, clock=time.monotonic, **limits) -> Iterator[TestClient]:
    """Asks an application in this process; `service` of what it gives is its state."""
    service = Service(models, Limits(**limits), clock)
    with TestClient(application(service)) as asking:
        asking.service = service
        yield asking


@contextlib.contextmanager
def listening(models, **limits) -> Iterator[tuple[int, Service]]:
    """A server on a port of this machine, in a thread: the port and the server's state."""
    service = Service(models, Limits(**limits))
    sock = listen("127.0.0.1", 0)
    config = uvicorn.Config(
        application(service), http=of_patience(service.limits.read_timeout), loop="asyncio", ws="none",
        log_config=None, access_log=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = Server(service, config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    port = sock.getsockname()[1]
    thread.start()
    try:
        yield port, service
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def send(port: int, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Sends pieces over one connection, and returns all that comes back until it is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:
                break  # closed meanwhile
            time.sleep(pause)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while more := connection.recv(65536):
                received += more
    return received


def head(port: int, method: str, path: str, **headers: object) -> bytes:
    """The head of a request, which asks for the connection to be closed after its answer."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
