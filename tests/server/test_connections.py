# SPDX-License-Identifier: Apache-2.0
"""Hostile senders at a real socket: each is cut off or refused, and the next caller is answered."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.server import served

ASK = "/v1/models/toy:predict"
BODY = json.dumps({"inputs": {"x": [1, 2]}}).encode()


@pytest.fixture(scope="module")
def server():
    toy = served.Toy()
    toy.go_on.set()
    with served.listening(toy, read_timeout=0.5, max_body_bytes=100_000) as (port, service):
        yield port, service


@pytest.fixture
def port(server):
    yield server[0]
    good = served.send(server[0], served.head(server[0], "POST", ASK, Content_Length=len(BODY)), BODY)
    assert good.startswith(b"HTTP/1.1 200") and good.endswith(b'{"outputs": {"y": [2.0, 4.0], "n": 1}}')
    end = time.monotonic() + 30
    while server[1].running or server[1].bodies.held:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_gigabyte_that_is_only_said_is_refused_at_once(port):
    assert served.send(port, served.head(port, "POST", ASK, Content_Length=10**9)).startswith(b"HTTP/1.1 413")


def test_a_chunked_body_is_counted_as_it_comes(port):
    head = served.head(port, "POST", ASK, Transfer_Encoding="chunked")
    chunk = b"8000\r\n" + b"1" * 0x8000 + b"\r\n"
    assert b" 413 " in served.send(port, head, *[chunk] * 4).split(b"\r\n")[0]


def test_a_body_that_comes_by_drops_is_given_up(port):
    head = served.head(port, "POST", ASK, Content_Length=1000)
    start = time.monotonic()
    answer = served.send(port, head, *[b"1"] * 8, pause=0.1)
    assert answer.startswith(b"HTTP/1.1 408") and b"within 0.5 s" in answer
    assert time.monotonic() - start < 20


def test_a_head_that_comes_by_drops_is_cut_off(port):
    start = time.monotonic()
    assert served.send(port, *[b"GET / HTTP/1.1\r\n"[i : i + 1] for i in range(10)], pause=0.1) == b""
    assert served.send(port, b"") == b""  # who says nothing
    assert time.monotonic() - start < 20


def test_a_second_head_on_one_connection_is_cut_off_too(port):
    head = served.head(port, "GET", "/healthz/live").replace(b"Connection: close\r\n", b"")
    answer = served.send(port, head + b"GET / HT")
    assert answer.count(b"HTTP/1.1") == 1 and answer.endswith(b'{"status":"live"}')


def test_a_refused_body_that_never_ends_is_cut_off(port):
    """Its sender has time to read the refusal, and no more."""
    head = served.head(port, "POST", ASK, Content_Length=10**9).replace(b"Connection: close\r\n", b"")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        start = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - start < 40:
                connection.sendall(b"1" * 1000)
                time.sleep(0.05)
        assert time.monotonic() - start < 30


def test_a_caller_that_leaves_is_forgotten(port):
    head = served.head(port, "POST", ASK, Content_Length=1000)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head + b"123")


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
    ],
)
def test_what_is_no_http_is_refused(port, sent):
    answer = served.send(port, sent)
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"405", b"404")
