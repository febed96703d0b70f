# SPDX-License-Identifier: Apache-2.0
"""Sums over the replicas of a tf.distribute strategy; with one replica, the identity."""

from __future__ import annotations

import tensorflow as tf

from tf_lwdgh.types import Tensors


class Collective:
    """The replicas that share a meta-batch, seen from one of them."""

    @property
    def size(self) -> int:
        """How many replicas there are."""
        context = tf.distribute.get_replica_context()
        return context.num_replicas_in_sync if context else 1

    def sum(self, tensors: Tensors) -> Tensors:
        """Each tensor's sum over the replicas: one all-reduce, of all those of one dtype laid end to end."""
        if self.size == 1:
            return list(tensors)
        sums = list(tensors)
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            places = [i for i, t in enumerate(tensors) if t.dtype == dtype]
            for i, total in zip(places, _sum_as_one([tensors[i] for i in places])):
                sums[i] = total
        return sums

    def gather(self, values: tf.Tensor) -> tf.Tensor:
        """The replicas' values side by side, in the order of their ids.

        Args:
          values: [..., T]; few, since the sum of zero-padded copies carries them.

        Returns:
          [..., R*T].
        """
        if self.size == 1:
            return values
        place = tf.one_hot(self._id(), self.size, dtype=values.dtype)  # [R]
        padded = place[:, None] * values[..., None, :]  # [..., R, T]
        (everyone,) = self.sum([padded])
        shape = tf.concat([tf.shape(values)[:-1], [-1]], 0)
        return tf.reshape(everyone, shape)

    def in_turn(self, tensors: Tensors) -> list[Tensors]:
        """Each replica's tensors in turn, in the order of their ids, sent to all: R sums of their size."""
        if self.size == 1:
            return [list(tensors)]
        turns: list[Tensors] = []
        for replica in range(self.size):
            with tf.control_dependencies(turns[-1] if turns else []):  # one replica's copy at a time
                mine = self._id() == replica
                sent = [tf.where(mine, t, tf.zeros_like(t)) for t in tensors]
            turns.append(self.sum(sent))
        return turns

    def mine(self, gathered: tf.Tensor) -> tf.Tensor:
        """This replica's part of what `gather` returned: [..., R*T] -> [..., T]."""
        if self.size == 1:
            return gathered
        n_tasks = tf.shape(gathered)[-1] // self.size
        start = self._id() * n_tasks
        return gathered[..., start : start + n_tasks]

    @staticmethod
    def _id() -> tf.Tensor:
        return tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int32)


def _sum_as_one(tensors: Tensors) -> Tensors:
    """The sums over the replicas of tensors of one dtype."""
    context, sizes = tf.distribute.get_replica_context(), [tf.size(t) for t in tensors]
    flat = tf.concat([tf.reshape(t, [-1]) for t in tensors], 0)
    flat = context.all_reduce(tf.distribute.ReduceOp.SUM, flat)
    parts = tf.split(flat, sizes, num=len(tensors))
    shaped = [tf.reshape(part, tf.shape(t)) for part, t in zip(parts, tensors)]
    return [tf.ensure_shape(part, t.shape) for part, t in zip(shaped, tensors)]
