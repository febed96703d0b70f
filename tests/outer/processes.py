# SPDX-License-Identifier: Apache-2.0
"""Real processes of one cluster over loopback, forked from a program that has imported TensorFlow."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import time
import traceback
from collections.abc import Callable

SECONDS = 900  # after which those that still run are killed


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def together(count: int, work: Callable[[int], None], folder: pathlib.Path) -> list[tuple[int, str]]:
    """Runs work(number) in so many processes at once, each with its TF_CONFIG; with one, without.

    Args:
      count: how many.
      work: what each does.
      folder: for what they write on standard error.

    Returns:
      Each one's exit code, negative where a signal ended it, and standard error.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    files = [folder / f"stderr-{i}" for i in range(count)]
    pids = [_fork(i, addresses, work, files[i]) for i in range(count)]
    return list(zip(_wait(pids), [file.read_text(errors="replace") for file in files]))


def _fork(number: int, addresses: list[str], work: Callable[[int], None], errors: pathlib.Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with open(errors, "wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if len(addresses) > 1:
            task = {"type": "worker", "index": number}
            os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        work(number)
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # what TensorFlow's own end would wait for is not there
    return pid


def _wait(pids: list[int]) -> list[int]:
    codes: dict[int, int] = {}
    end = time.monotonic() + SECONDS
    while len(codes) < len(pids):
        for pid in set(pids) - set(codes):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                codes[pid] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return [codes[pid] for pid in pids]
