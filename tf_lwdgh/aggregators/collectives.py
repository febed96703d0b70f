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
        """Each tensor's sum over the replicas."""
        if self.size == 1:
            return list(tensors)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensors)

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

    def in_turn(self, values: tf.Tensor) -> list[tf.Tensor]:
        """Each replica's tensor in turn, in the order of their ids, sent to all: R sums of its size."""
        if self.size == 1:
            return [values]
        turns = []
        for replica in range(self.size):
            with tf.control_dependencies(turns[-1:]):  # one replica's copy at a time
                sent = tf.where(self._id() == replica, values, tf.zeros_like(values))
            turns += self.sum([sent])
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
