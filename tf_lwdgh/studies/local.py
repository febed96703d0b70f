# SPDX-License-Identifier: Apache-2.0
"""Jobs in processes of this machine, which share its cores or its GPUs."""

from __future__ import annotations

import dataclasses
import os
import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures

from tf_lwdgh.studies import worker
from tf_lwdgh.studies.jobs import Job
from tf_lwdgh.studies.results import Result
from tf_lwdgh.studies.worker import Stop

_WATCH = 1.0  # seconds between two looks at the running jobs


@dataclasses.dataclass(frozen=True)
class Slot:
    """What one job at a time may use.

    Attributes:
      cores: their numbers; empty: all.
      gpu: its number; None: no GPU.
    """

    cores: frozenset[int] = frozenset()
    gpu: int | None = None

    @property
    def variables(self) -> dict[str, str]:
        """The environment of its processes."""
        return {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": str(self.gpu)}


def slots(n: int, *, gpus: int = 0) -> list[Slot]:
    """Shares out cores, and GPUs if there are any, over n jobs at once.

    A meta-step on few images loses by threads that wait for each other, so that n jobs of a core each
    do more than one job on n cores; where jobs outnumber the cores, cores are shared.

    Raises:
      ValueError: n is below 1.
    """
    if isinstance(n, bool) or n < 1:
        raise ValueError(f"--jobs must be at least 1. Received: --jobs={n}.")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    shared = [cores[i::n] or [cores[i % len(cores)]] for i in range(n)] if cores else [()] * n
    return [Slot(frozenset(share), i % gpus if gpus else None) for i, share in enumerate(shared)]


def run(
    jobs: Mapping[Job, int],
    *,
    shares: Sequence[Slot],
    started: Callable[[Job], None],
    ended: Callable[[Job, Result | BaseException], Mapping[Job, int] | None],
    watch: Callable[[], None],
    stop: Stop,
) -> None:
    """Runs jobs, as many at once as there are slots, in their order.

    Args:
      jobs: the meta-steps of each.
      shares: of `slots`.
      started: is told of each job that begins.
      ended: is told what came of it: a result, or what was raised, `worker.Stopped` among it. It may
        give further jobs.
      watch: is called about once a second.
      stop: ends it early.
    """
    free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
    for share in shares:
        free.put(share)

    def one(job: Job, steps: int) -> Result:
        if stop.asked.is_set():
            raise worker.Stopped
        share = free.get()
        try:
            started(job)
            if share.cores:
                os.sched_setaffinity(0, share.cores)  # of this thread, and of the processes it starts
            return worker.run(job, steps, variables=share.variables, stop=stop)
        finally:
            free.put(share)

    with futures.ThreadPoolExecutor(max_workers=len(shares)) as pool:
        waiting: dict[futures.Future[Result], Job] = {}

        def submit(more: Mapping[Job, int]) -> None:
            waiting.update({pool.submit(one, job, steps): job for job, steps in more.items()})

        submit(jobs)
        try:
            while waiting:
                done, _ = futures.wait(waiting, timeout=_WATCH, return_when=futures.FIRST_COMPLETED)
                for future in done:
                    error = future.exception()
                    came = error if error is not None else future.result()
                    submit(ended(waiting.pop(future), came) or {})
                watch()
        except BaseException:
            stop.asked.set()  # the others are saved
            raise
