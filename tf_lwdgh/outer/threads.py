# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's thread pools: one task a core and one thread an operation, or all cores for one task."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os

import tensorflow as tf

from tf_lwdgh import config

_log = logging.getLogger(__name__)


@config.configurable
@dataclasses.dataclass(frozen=True)
class Threads:
    """TensorFlow's thread pools.

    On a CPU the tasks of a meta-batch run side by side, and an operation on a handful of images loses
    by several threads that wait for each other: with two tasks or more, one thread an operation measured
    best (docs/performance.md). With a GPU the defaults are TensorFlow's own (not measured).

    Attributes:
      inter_op: operations at once; None: the cores this process may use.
      intra_op: threads an operation; None: 1, or with a single task at a time the cores.
    """

    inter_op: int | None = None
    intra_op: int | None = None

    def __post_init__(self) -> None:
        for name in ("inter_op", "intra_op"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Threads.{name} must be at least 1. Received: {value}.")

    def apply(self, tasks: int | None = None) -> None:
        """Sets the pools and oneDNN's memory of kernels; must run before TensorFlow's first operation.

        TensorFlow's convolutions build their oneDNN kernel for the input's gradient anew at every call
        unless TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE is 0, which is set here if it is not set: 3 % of a step,
        for no measurable memory.

        Args:
          tasks: how many run at once, on all replicas; None: many.

        Raises:
          RuntimeError: TensorFlow has started already.
        """
        os.environ.setdefault("TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE", "0")
        inter_op, intra_op = self.inter_op, self.intra_op
        if not tf.config.list_physical_devices("GPU"):
            inter_op = inter_op or cores()
            intra_op = intra_op or (cores() if tasks == 1 else 1)
        if inter_op:
            tf.config.threading.set_inter_op_parallelism_threads(inter_op)
        if intra_op:
            tf.config.threading.set_intra_op_parallelism_threads(intra_op)
        _log.info(
            "threads: %s operations at once (Threads.inter_op), %s threads an operation "
            "(Threads.intra_op)", inter_op or "TensorFlow's choice of", intra_op or "its choice of",
        )  # fmt: skip

    def apply_if_unstarted(self, tasks: int | None = None) -> None:
        """`apply` in a process that is not the run's alone: where TensorFlow has started, its pools stay."""
        with contextlib.suppress(RuntimeError):
            self.apply(tasks)


def cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
