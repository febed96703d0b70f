# SPDX-License-Identifier: Apache-2.0
"""Batches of tasks, whose damaged images are named when they are drawn."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lwdgh.types import Episode


class Batches:
    """Batches of tasks in order, anew from the first at every iteration.

    What fails within tf.data says neither file nor class; but which images a batch holds depends on its
    number alone, so that they can be looked through once it has failed.

    Attributes:
      dataset: of batched Episode.

    Args:
      dataset: see above.
      check: is given the number of a batch that failed, and raises an error that names the cause if it
        finds it among the batch's images.
    """

    def __init__(self, dataset: Any, check: Callable[[int], None]) -> None:
        self.dataset, self._check = dataset, check

    def __iter__(self) -> Iterator[Episode]:
        """The batches.

        Raises:
          ValueError: an image is damaged or can't be decoded; the message names file, class and record.
          OSError: a file can't be read.
        """
        iterator = iter(self.dataset)
        for number in itertools.count():
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except tf.errors.OpError:
                self._check(number)
                raise
            yield batch

    @property
    def element_spec(self) -> Episode:
        """Of one batch."""
        return self.dataset.element_spec

    def take(self, count: int) -> Batches:
        """The first so many."""
        return self.through(lambda dataset: dataset.take(count))

    def through(self, change: Callable[[Any], Any]) -> Batches:
        """The same batches, from what `change` makes of their tf.data.Dataset."""
        return Batches(change(self.dataset), self._check)


def check_batch(
    tasks: tf.data.Dataset,
    batch_size: int,
    rows: Callable[..., tf.Tensor],
    check_rows: Callable[[np.ndarray], None],
) -> Callable[[int], None]:
    """A `check` for Batches: looks through the images of each of the batch's tasks.

    Args:
      tasks: what the batches are made of.
      batch_size: tasks in a batch.
      rows: the row numbers of a task's images.
      check_rows: raises an error where one of the images has a fault.
    """

    as_written = tf.autograph.experimental.do_not_convert(rows)

    def check(number: int) -> None:
        for task in tasks.skip(number * batch_size).take(batch_size).map(as_written):
            check_rows(task.numpy())

    return check
