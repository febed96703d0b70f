# SPDX-License-Identifier: Apache-2.0
"""The processes that share a run, seen from one of them; with one process, as if they were not there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tf_lwdgh.aggregators.collectives import Collective


class Workers:
    """The processes of a strategy.

    Its methods, but `share`, must be called by all of them, in the same order.

    Attributes:
      index: this process's number.
      count: how many there are.

    Args:
      strategy: theirs.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        ids = strategy.experimental_local_results(
            strategy.experimental_distribute_values_from_function(
                lambda context: tf.constant(context.replica_id_in_sync_group)
            )
        )
        self._strategy, self._here = strategy, len(ids)
        self.index = int(ids[0]) // len(ids)
        self.count = strategy.num_replicas_in_sync // len(ids)

    @property
    def is_chief(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0

    def share(self, n: int) -> range:
        """This process's part of n things: as even as they can be, in order; the first has some."""
        first, last = (-(-i * n // self.count) for i in (self.index, self.index + 1))
        return range(first, last)

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Each process's values [n], of one dtype and length everywhere: [count, n]."""
        if self.count == 1:
            return values[None]
        everyone = self._gather(tf.constant(values[:, None]))  # [n, R]
        return everyone.numpy().T[:: self._here]

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return bool(self.gather(np.array([flag], np.int32)).any())

    def judged(self, n: int, judge: Callable[[range], Sequence[np.ndarray]]) -> list[np.ndarray]:
        """Shares n things out, and gives each process what all of them found.

        Args:
          n: how many things.
          judge: from some of them to arrays of a value each.

        Returns:
          The arrays of all n, in their order, to the bit as `judge` gave them.
        """
        mine = self.share(n)
        found = judge(mine)
        if self.count == 1:
            return list(found)
        whole = [np.zeros(n, array.dtype) for array in found]
        for padded, array in zip(whole, found):
            padded[mine.start : mine.stop] = array
        return [self.gather(padded).sum(0) for padded in whole]

    def agree(self, values: Mapping[str, str], advice: str) -> None:
        """Makes sure that all processes have the same values.

        Args:
          values: by what they are called in a message; the same names everywhere.
          advice: what else must hold, in one sentence.

        Raises:
          ValueError: they don't; in each of them.
        """
        digests = np.array([_digest(value) for value in values.values()], np.int64)
        everyone = self.gather(digests)
        for name, column in zip(values, everyone.T):
            others = np.flatnonzero(column != column[0])
            if len(others):
                raise ValueError(
                    f"all processes of a run must have the same {name}. {advice} Received: another in "
                    f"process {', '.join(map(str, others))} than in process 0."
                )

    @tf.function(autograph=False)
    def _gather(self, values: tf.Tensor) -> tf.Tensor:
        gathered = self._strategy.run(lambda v: Collective().gather(v), args=(values,))
        return self._strategy.experimental_local_results(gathered)[0]


def _digest(value: str) -> int:
    return int.from_bytes(hashlib.sha256(value.encode()).digest()[:8], "little", signed=True)
