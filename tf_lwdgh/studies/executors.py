# SPDX-License-Identifier: Apache-2.0
"""Where a study's jobs run: in processes of this machine, or as tasks of Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence

from tf_lwdgh.studies import local, ray_executor
from tf_lwdgh.studies.local import Slot

NAMES = ("local", "ray")


@dataclasses.dataclass(frozen=True)
class Executor:
    """What runs jobs.

    Attributes:
      run: `run(jobs, started=…, ended=…, watch=…, stop=…)`, as `local.run` has it.
      shares: what each of the jobs that run side by side may use; for Ray, as if it were here.
    """

    run: Callable[..., None]
    shares: Sequence[Slot]

    @property
    def at_once(self) -> int:
        """How many jobs run side by side."""
        return len(self.shares)


@contextlib.contextmanager
def executor(name: str, *, jobs: int, gpus: int, ray_address: str | None, cores_per_job: int) -> Iterator[Executor]:
    """An executor, ready while the context lasts.

    Args:
      name: 'local' or 'ray'.
      jobs: at once, of 'local'.
      gpus: of this machine.
      ray_address: of a cluster; None: a Ray of this machine alone.
      cores_per_job: of 'ray'.

    Raises:
      ValueError: another name, or one of the others is wrong.
      ConnectionError: there is no cluster at the address.
    """
    if name not in NAMES:
        raise ValueError(f"--executor must be one of {', '.join(NAMES)}. Received: {name!r}.")
    if name == "local":
        shares = local.slots(jobs, gpus=gpus)
        yield Executor(functools.partial(local.run, shares=shares), shares)
        return
    with ray_executor.connect(ray_address, cores_per_job=cores_per_job) as cluster:
        here = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        share = Slot(frozenset(here[:cores_per_job]), 0 if cluster.gpus_per_job and gpus else None)
        run = functools.partial(ray_executor.run, cluster=cluster)
        yield Executor(run, [share] * cluster.at_once)
