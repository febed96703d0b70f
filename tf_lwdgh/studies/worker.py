# SPDX-License-Identifier: Apache-2.0
"""Runs one job to its end in processes of its own: train, judge, keep the result."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

import tf_lwdgh
from tf_lwdgh import command_line, disk_faults
from tf_lwdgh.runs.run_lock import run_lock
from tf_lwdgh.studies import results
from tf_lwdgh.studies.jobs import Job
from tf_lwdgh.studies.results import Result

LOG = "job.log"  # in a run's folder: all that its commands printed
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(tf_lwdgh.__file__)))
_POLL, _LOCK_WAIT = 0.2, 1800.0  # seconds; a window of a large model takes minutes
_SHOWN = 2000  # characters of a failed command's last words


class Stopped(Exception):
    """The job was asked to stop, and was saved; it can be gone on with."""


@dataclasses.dataclass(frozen=True)
class Stop:
    """What a study's jobs are told from outside.

    Attributes:
      asked: save and stop.
      at_once: stop without saving; a run goes on from its last checkpoint.
    """

    asked: threading.Event = dataclasses.field(default_factory=threading.Event)
    at_once: threading.Event = dataclasses.field(default_factory=threading.Event)


def run(
    job: Job,
    steps: int,
    *,
    threads: int | None = None,
    variables: Mapping[str, str] | None = None,
    stop: Stop | None = None,
) -> Result:
    """Trains and judges what of a job is not done, and writes its result.

    Args:
      job: the job.
      steps: meta-steps that it must come to.
      threads: the bound on operations at once; None: the cores that this thread may use.
      variables: of the environment, for its processes.
      stop: looked at some times a second; a KeyboardInterrupt stops likewise.

    Returns:
      The result, of a job that failed too.

    Raises:
      Stopped: it was stopped.
      OSError: the disk is full or cannot be written.
    """
    stop = stop or Stop()
    _wait_for_lock(job, stop)
    for command in (job.train_command(threads), job.evaluate_command()):
        code, words = _execute(command, job, {**environment(), **(variables or {})}, stop)
        if code == command_line.DISK_FAULT:  # no outcome of the job: it is run again
            raise disk_faults.said(words, job.run_dir)
        if code:
            state = results.DIVERGED if code == command_line.DIVERGED else results.FAILED
            return _keep(job, results.failure(job, state, words or f"exit code {code}"))
        if results.steps_done(job) < steps:
            raise Stopped
    return _keep(job, results.of_run(job))


def keep_outcome(job: Job, came: Result | BaseException) -> Result | None:
    """What an executor says of a job, as a result that is kept; None where the job was stopped.

    Args:
      job: the job.
      came: its result, which `run` has kept, or what was raised.

    Raises:
      OSError: the disk is full or cannot be written; the job has no outcome.
    """
    if isinstance(came, Stopped):
        return None
    if isinstance(came, BaseException):
        fault = disk_faults.find(came)
        if fault is not None:
            raise OSError(fault.number, fault.text, fault.path) from came
        return _keep(job, results.failure(job, results.FAILED, f"{type(came).__name__}: {came}"))
    return came


def _keep(job: Job, result: Result) -> Result:
    result.write(job.result_path)
    return result


def _wait_for_lock(job: Job, stop: Stop) -> None:
    """A process whose parent was killed may hold the run until its window ends."""
    for _ in range(int(_LOCK_WAIT / _POLL)):
        try:
            with run_lock(job.run_dir):
                return
        except ValueError:
            if stop.asked.wait(_POLL):
                raise Stopped from None


def _execute(command: Sequence[str], job: Job, variables: Mapping[str, str], stop: Stop) -> tuple[int, str]:
    """The exit code and the last words of a command.

    Raises:
      Stopped: it was stopped before it came to an end of its own.
    """
    with open(os.path.join(job.run_dir, LOG), "ab+") as log:
        begin = log.seek(0, os.SEEK_END)
        # A session of its own, so that a terminal's Ctrl-C reaches it through `stop` alone.
        process = subprocess.Popen(
            command, cwd=job.directory, env=variables, stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, start_new_session=True,
        )  # fmt: skip
        asked = _wait(process, stop)
        log.seek(begin)
        words = log.read().decode(errors="replace").strip()[-_SHOWN:]
    if asked and process.returncode < 0:
        raise Stopped
    return process.returncode, words


def _wait(process: subprocess.Popen, stop: Stop) -> bool:
    """Waits for a process, and passes on what `stop` says; whether it was asked to stop."""
    asked = False
    while process.poll() is None:
        try:
            if stop.asked.is_set() and not asked:
                process.send_signal(signal.SIGTERM)
                asked = True
            if stop.at_once.is_set():
                process.kill()
            time.sleep(_POLL)
        except KeyboardInterrupt:
            stop.asked.set()
    return asked


def environment() -> dict[str, str]:
    """Of a job's processes: this package, and the process with which they stop."""
    paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        command_line.PARENT: str(os.getpid()),
    }
