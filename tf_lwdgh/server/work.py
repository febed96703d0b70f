# SPDX-License-Identifier: Apache-2.0
"""Calls of the model: some at once in threads of their own, some in a queue, the rest refused."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from tf_lwdgh.server.limits import Limits
from tf_lwdgh.server.refusals import Refused

T = TypeVar("T")


@dataclasses.dataclass
class Timing:
    """What the time of a request went to.

    Attributes:
      waited: seconds in the queue.
      model: seconds in TensorFlow.
    """

    waited: float = 0.0
    model: float = 0.0

    @contextlib.contextmanager
    def of_model(self) -> Iterator[None]:
        """Counts the time within as the model's."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.model += time.perf_counter() - start


class Work:
    """Threads for jobs that call the model, with a queue before them.

    Attributes:
      held: jobs that wait or run.
      running: jobs that run.

    Args:
      limits: model_threads, max_queue and request_timeout count here.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits, self._lock = limits, threading.Lock()
        self._pool = concurrent.futures.ThreadPoolExecutor(limits.model_threads, "model")
        self.held = self.running = 0

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return self.held - self.running

    async def run(self, job: Callable[[], T], timing: Timing) -> T:
        """What a job returns, in its turn.

        Args:
          job: is called in a thread.
          timing: is told how long it waited.

        Raises:
          Refused: the queue is full (429), or it takes too long (504); then a job that has begun goes
            on in its thread, and its answer is dropped.
        """
        most, queued = self._limits.model_threads + self._limits.max_queue, time.perf_counter()
        with self._lock:
            if self.held >= most:
                raise Refused(429, f"{self._limits.max_queue} requests are waiting; try again.")
            self.held += 1

        def begin() -> T:
            timing.waited = time.perf_counter() - queued
            with self._lock:
                self.running += 1
            try:
                return job()
            finally:
                with self._lock:
                    self.running -= 1

        future = self._pool.submit(begin)
        future.add_done_callback(self._done)
        seconds = self._limits.request_timeout
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except asyncio.TimeoutError:
            raise Refused(504, f"no answer within {seconds:g} s.") from None

    def close(self) -> None:
        """Takes no more jobs, and drops those that wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, _: concurrent.futures.Future) -> None:
        with self._lock:
            self.held -= 1
