# SPDX-License-Identifier: Apache-2.0
"""A contestant's process: started, asked for steps, and measured from outside with its children."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import time
from typing import Any

import psutil

ROOT = pathlib.Path(__file__).resolve().parents[1]
# glibc gives large blocks back to the system at once, and clears them again at the next step.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**26),
}


@dataclasses.dataclass(frozen=True)
class Command:
    """How to start a contestant.

    Attributes:
      python: the environment's interpreter.
      module: the file's module name.
      flags: its own flags.
      keep_memory: tell the allocator to keep what is freed.
      cores: how many it may use; None: all that this process may.
      env: further variables of its environment.
    """

    python: str
    module: str
    flags: tuple[str, ...] = ()
    keep_memory: bool = False
    cores: int | None = None
    env: tuple[tuple[str, str], ...] = ()

    def start(self, workload: str, arrays: str, dtype: str, log: str) -> Process:
        """Starts it; its messages are appended to the file `log`."""
        line = [self.python, "-m", self.module, "--workload", workload, "--arrays", arrays]
        env = os.environ | (KEEP_MEMORY if self.keep_memory else {}) | {"PYTHONPATH": str(ROOT)}
        env |= dict(self.env)
        line += ["--dtype", dtype, *self.flags]
        if self.cores:
            chosen = sorted(os.sched_getaffinity(0))[: self.cores]
            line = ["taskset", "-c", ",".join(map(str, chosen)), *line]
        return Process(line, env, log)


class Process:
    """A running contestant; a context manager that ends it.

    Attributes:
      versions: of its packages.
      start_seconds: from start to ready: imports and arrays, without building or tracing anything.
      import_megabytes: peak memory then.
    """

    def __init__(self, line: list[str], env: dict[str, str], log: str) -> None:
        self.name, self._log = line[line.index("-m") + 1], log
        begin = time.perf_counter()
        pipe = subprocess.PIPE
        with open(log, "ab") as messages:
            self._popen = subprocess.Popen(line, env=env, stdin=pipe, stdout=pipe, stderr=messages, text=True, cwd=ROOT)
        self.versions = self._answer()["versions"]
        self.start_seconds = time.perf_counter() - begin
        self.import_megabytes = self.peak_megabytes()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._popen.poll() is None:
            self._popen.communicate("quit\n", timeout=60)

    def ask(self, command: str) -> dict[str, float]:
        """One command: its 'seconds', and 'cpu_seconds' of all its processes."""
        before = self._cpu_seconds()
        self._popen.stdin.write(command + "\n")
        self._popen.stdin.flush()
        answer = self._answer()
        return answer | {"cpu_seconds": self._cpu_seconds() - before}

    def peak_megabytes(self) -> float:
        """The sum of its processes' peak resident memory, in MB; memory they share counts in each."""
        return sum(_peak_kilobytes(p.pid) for p in self._family()) / 1024

    def _answer(self) -> dict[str, Any]:
        line = self._popen.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} has stopped; its messages are in {self._log}.")
        return json.loads(line)

    def _family(self) -> list[psutil.Process]:
        parent = psutil.Process(self._popen.pid)
        return [parent, *parent.children(recursive=True)]

    def _cpu_seconds(self) -> float:
        times = [p.cpu_times() for p in self._family()]
        return sum(t.user + t.system for t in times)


def _peak_kilobytes(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(row.split()[1]) for row in status.splitlines() if row.startswith("VmHWM"))
