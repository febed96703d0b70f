# SPDX-License-Identifier: Apache-2.0
"""A server under load, some of it hostile: latencies, memory, and whether each answer is its caller's own.

    python -m bench.served_load exported/demo --seconds=120

Starts `python -m tf_lwdgh.serve` on a port of this machine. Twelve of sixteen clients each have a
support set of their own, and know by the model itself, asked alone before, which probabilities are
right; they learn, ask kept classifiers and ask the signature adapt_and_predict_bytes. The others send
what is cut short, too large, not finite, not base64, no image, a decompression bomb, of an unknown
classifier, or slow. It fails where an answer is not its caller's, a hostile request is not refused
as it should be, the server's memory grows, or it does not end with code 0. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import base64
import collections
import contextlib
import http.client
import io
import itertools
import json
import os
import pathlib
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
HOSTILE = 4  # of the clients
SLOW = 2.0  # seconds that the server waits for a body
NEAR = 1e-4  # between probabilities that are the same
GROWTH = 1.05  # of the memory, from the first third of the time to the last
_BOUNDARY = "served-load"


class Caller:
    """A client with a support set of its own.

    Args:
      model: gives the right probabilities.
      number: the client's.
    """

    def __init__(self, model, number: int) -> None:
        image = model.metadata["image"]
        shape = (image["image_size"], image["image_size"], 3)
        noise = np.random.default_rng(number)
        most = model.metadata["largest_n_way"] or 5
        self.n_way, self.name = 2 + number % (most - 1), f"client-{number}"
        files = [png(noise.integers(0, 256, shape, np.uint8)) for _ in range(2 * self.n_way + 3)]
        self.support, self.queries = files[:-3], files[-3:]
        self.labels = [i // 2 for i in range(2 * self.n_way)]
        found = model.adapt_and_predict(self.support, self.labels, self.queries)
        self.right = found["probabilities"]
        self.form = form([(f"class {n}", x) for n, x in zip(self.labels, self.support)])
        self.asked = form([("query", x) for x in self.queries])
        inputs = {
            "support_images_bytes": [b64(x) for x in self.support],
            "support_labels": self.labels,
            "query_images_bytes": [b64(x) for x in self.queries],
        }
        request = {"signature_name": "adapt_and_predict_bytes", "inputs": inputs}
        self.signature = json.dumps(request).encode()

    def check(self, found: list[list[float]]) -> None:
        """Raises AssertionError where the probabilities are not this caller's."""
        assert np.shape(found) == self.right.shape, f"{self.name}: {np.shape(found)}"
        far = np.abs(np.array(found) - self.right).max()
        assert far < NEAR, f"{self.name}: an answer is {far} away from its own"


class Load:
    """What the clients do, and what they see.

    Args:
      port: the server's.
      model: the model's name.
      seconds: how long.
    """

    def __init__(self, port: int, model: str, seconds: float) -> None:
        self.port, self.model = port, model
        self.until = time.monotonic() + seconds
        self.times: dict[str, list[tuple[float, float, float]]] = collections.defaultdict(list)
        self.refused: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []

    def running(self) -> bool:
        """Whether there is time left, and all is well."""
        return time.monotonic() < self.until and not self.failures

    def honest(self, caller: Caller, seed: int) -> None:
        """Learns and asks until the time is over."""
        chance, path = random.Random(seed), f"/v1/classifiers/{caller.name}"
        kind = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
        with self._connection() as connection:
            self._timed("learn", connection, "PUT", path, caller.form, kind)
            while self.running():
                draw = chance.random()
                if draw < 0.15:
                    told = self._timed("learn", connection, "PUT", path, caller.form, kind)
                    assert len(told["classes"]) == caller.n_way
                elif draw < 0.75:
                    answer = self._timed(
                        "ask a kept classifier", connection, "POST", path + ":predict", caller.asked, kind
                    )
                    caller.check([list(p["probabilities"].values()) for p in answer["predictions"]])
                else:
                    answer = self._timed(
                        "adapt_and_predict_bytes", connection, "POST",
                        f"/v1/models/{self.model}:predict", caller.signature, {},
                    )  # fmt: skip
                    caller.check(answer["outputs"]["probabilities"])

    def hostile(self, number: int) -> None:
        """Sends one hostile request after the other."""
        kinds = list(self._hostile().items())
        for name, attack in itertools.cycle(kinds[number:] + kinds[:number]):
            if not self.running():
                return
            status, allowed = attack()
            assert status in allowed, f"{name}: answered {status}"
            self.refused[f"{name} ({status})"] += 1

    def probe(self) -> None:
        """Asks whether the server lives, four times a second."""
        while self.running():
            with self._connection() as connection:
                self._timed("live", connection, "GET", "/healthz/live", None, {})
            time.sleep(0.25)

    def _timed(self, name: str, connection, method: str, path: str, body, headers) -> dict:
        start = time.perf_counter()
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        seconds = time.perf_counter() - start
        assert answer.status == 200, f"{name}: {answer.status} {content[:200]!r}"
        parts = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers.get("Server-Timing", "")))
        inside = (float(parts.get("model", 0)) / 1e3, float(parts.get("queue", 0)) / 1e3)
        self.times[name].append((seconds, *inside))
        return json.loads(content)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, 120)) as found:
            yield found

    def _hostile(self) -> dict[str, Callable[[], tuple[int, set[int]]]]:
        predict = f"/v1/models/{self.model}:predict"
        bomb_form = form([("a", bomb(20_000, 10_000)), ("b", bomb(20_000, 10_000))])
        kind = f"multipart/form-data; boundary={_BOUNDARY}"

        def bytes_of(content: object) -> bytes:
            inputs = {"support_images_bytes": [content], "support_labels": [0]}
            return json.dumps({"signature_name": "adapt_bytes", "inputs": inputs}).encode()

        def post(body: bytes, *allowed: int) -> Callable[[], tuple[int, set[int]]]:
            return lambda: (self._status("POST", predict, body), set(allowed))

        return {
            "truncated JSON": post(b'{"inputs": {"support_images": [[1, 2', 400),
            "NaN": post(b'{"inputs": {"support_images": [NaN]}}', 400),
            "wrong base64": post(bytes_of({"b64": "!!!"}), 400),
            "no image": post(bytes_of({"b64": "aGVsbG8="}), 400),
            "nested lists": post(b'{"inputs": ' + b"[" * 100_000, 400),
            "5 MB of lists": post(b'{"inputs": [' + b"[]," * 1_700_000 + b"[]]}", 400),
            "bomb in JSON": post(bytes_of(b64(bomb(20_000, 10_000))), 413),
            "rows": post(b'{"instances": [1]}', 400),
            "bomb in a form": lambda: (
                self._status("PUT", "/v1/classifiers/bomb", bomb_form, kind), {413}
            ),
            "unknown classifier": lambda: (
                self._status("POST", "/v1/classifiers/nobody:predict", b"x"), {404}
            ),
            "1 GB said": lambda: (self._raw(predict, 10**9, b"{"), {413}),
            "slow body": lambda: (self._raw(predict, 100, b"{", drops=40), {408}),
            "half a body": lambda: (self._raw(predict, 100, b"{", leave=True), {0}),
        }  # fmt: skip

    def _status(self, method: str, path: str, body: bytes, kind: str = "application/json") -> int:
        with self._connection() as connection:
            connection.request(method, path, body, {"Content-Type": kind})
            answer = connection.getresponse()
            answer.read()
            return answer.status

    def _raw(self, path: str, length: int, body: bytes, *, drops: int = 0, leave: bool = False) -> int:
        """The status that a body gets which says one length and comes with another; 0: left before."""
        with socket.create_connection(("127.0.0.1", self.port), 120) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
            connection.sendall(head.encode() + body)
            if leave:
                return 0
            with contextlib.suppress(OSError):
                for _ in range(drops):
                    time.sleep(0.1)
                    connection.sendall(b" ")
            return int(connection.recv(65536).split(b" ")[1])


def png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a few KB that decodes to so many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        told = kind + content
        return struct.pack(">I", len(content)) + told + struct.pack(">I", zlib.crc32(told))

    size = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" * (width // 8 + 2)) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def b64(content: bytes) -> dict[str, str]:
    """Bytes as JSON has them here."""
    return {"b64": base64.b64encode(content).decode()}


def form(files: list[tuple[str, bytes]]) -> bytes:
    """A form of files, each with the name of its field."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{i}.png"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for i, (name, content) in enumerate(files)
    ]
    return b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()


def alone(model, caller: Caller, repeats: int = 30) -> dict[str, float]:
    """Seconds of `adapt` and `predict` where nothing else runs and no server stands between."""
    found = {}
    classifier = model.adapt(caller.support, caller.labels)
    for name, ask in (
        ("adapt", lambda: model.adapt(caller.support, caller.labels)),
        ("predict", lambda: model.predict(classifier, caller.queries)),
    ):
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            ask()
            times.append(time.perf_counter() - start)
        found[name] = float(np.median(times))
    return found


class Memory:
    """The server's resident memory, twice a second, in MB."""

    def __init__(self, pid: int) -> None:
        self._status, self.samples = pathlib.Path(f"/proc/{pid}/status"), []

    def watch(self, running: Callable[[], bool]) -> None:
        """Samples while something runs."""
        while running():
            row = re.search(r"VmRSS:\s+(\d+)", self._status.read_text(encoding="ascii"))
            self.samples.append(int(row[1]) / 1024)
            time.sleep(0.5)

    def thirds(self) -> tuple[float, float]:
        """The mean of the first third and of the last."""
        third = max(len(self.samples) // 3, 1)
        return float(np.mean(self.samples[:third])), float(np.mean(self.samples[-third:]))


@contextlib.contextmanager
def server(path: str, log: str) -> Iterator[tuple[subprocess.Popen, str, int]]:
    """A server that is ready: its process, the model's name and the port."""
    line = [sys.executable, "-m", "tf_lwdgh.serve", f"--model={path}", "--port=0", f"--read_timeout={SLOW}"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with open(log, "wb") as messages:
        process = subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=messages, text=True)
    try:
        name, port = re.fullmatch(r"(\S+): http://127\.0\.0\.1:(\d+)/\n", process.stdout.readline()).groups()
        while True:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", int(port), 60)) as asking:
                asking.request("GET", "/healthz/ready")
                if asking.getresponse().status == 200:
                    break
            time.sleep(0.2)
        yield process, name, int(port)
    finally:
        process.kill()
        process.wait()


def run(load: Load, callers: list[Caller], memory: Memory) -> None:
    """Runs all clients until the time is over; raises AssertionError where one saw a fault."""

    def guarded(work: Callable, *args) -> None:
        try:
            work(*args)
        except Exception as error:
            load.failures.append(f"{type(error).__name__}: {error}")

    jobs = [(load.honest, caller, i) for i, caller in enumerate(callers)]
    jobs += [(load.hostile, 3 * i) for i in range(HOSTILE)] + [(load.probe,), (memory.watch, load.running)]
    threads = [threading.Thread(target=guarded, args=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not load.failures, load.failures


def tables(load: Load, found: dict[str, float], memory: Memory) -> str:
    """What came of it, as Markdown."""
    heads = ("request", "number", "p50", "p95", "p99", "p50 of: model", "queue", "server and network")
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, times in sorted(load.times.items()):
        whole, model, queue = np.array(times).T * 1e3
        rest = whole - model - queue
        shown = [*np.percentile(whole, (50, 95, 99)), *map(np.median, (model, queue, rest))]
        rows.append(f"| {name} | {len(times):,} | " + " | ".join(f"{x:.1f}" for x in shown) + " |")
    first, last = memory.thirds()
    told = ", ".join(f"{name} {n}" for name, n in sorted(load.refused.items()))
    return "\n".join(
        [
            "Milliseconds:",
            "",
            *rows,
            "",
            f"alone, without a server: adapt {1e3 * found['adapt']:.1f} ms, predict {1e3 * found['predict']:.1f} ms",
            f"memory: {first:.0f} MB in the first third, {last:.0f} MB in the last, "
            f"{max(memory.samples):.0f} MB at most",
            f"refused, {sum(load.refused.values()):,} in all: {told}",
        ]
    )


def main() -> None:
    """Runs the load, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder that tf_lwdgh.export wrote")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--log", default=os.devnull, help="a file for the server's log")
    args = parser.parse_args()
    from tf_lwdgh.serving.loaded import load

    model = load(args.model)
    callers = [Caller(model, i) for i in range(max(args.clients - HOSTILE, 1))]
    found = alone(model, callers[-1])
    with server(args.model, args.log) as (process, name, port):
        memory, clients = Memory(process.pid), Load(port, name, args.seconds)
        run(clients, callers, memory)
        print(tables(clients, found, memory))
        first, last = memory.thirds()
        assert last < GROWTH * first, "the server's memory grows"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, "the server did not end as it should"


if __name__ == "__main__":
    main()
