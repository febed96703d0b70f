# SPDX-License-Identifier: Apache-2.0
"""On which devices a run goes: one, all of one machine, or those of several processes."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_lwdgh.data.batches import Batches
from tf_lwdgh.outer import cluster

STRATEGIES = ("default", "mirrored", "multi_worker")


def make(name: str) -> tf.distribute.Strategy:
    """A tf.distribute strategy.

    Args:
      name: 'default' (TensorFlow's own choice of one device), 'mirrored' (all GPUs of the machine, or,
        without one, all logical CPU devices) or 'multi_worker' (those of all processes of the cluster
        that the environment names; see cluster.py).

    Raises:
      ValueError: another name, or an environment that names no cluster.
    """
    if name not in STRATEGIES:
        raise ValueError(
            f"Experiment.strategy must be one of {', '.join(STRATEGIES)}. Received: Experiment.strategy = {name!r}."
        )
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "multi_worker":
        return cluster.connect()
    if tf.config.list_physical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    # TensorFlow's own choice for CPUs, collective operations, can pair up unlike tensors.
    return tf.distribute.MirroredStrategy(
        [device.name for device in tf.config.list_logical_devices("CPU")],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def distribute(
    strategy: tf.distribute.Strategy,
    meta_batch_size: int,
    make_batches: Callable[[range, int], Batches],
) -> Batches:
    """Meta-batches, each split evenly over the replicas in the order of its tasks.

    A process makes no other tasks than those of its own replicas.

    Args:
      strategy: of R replicas.
      meta_batch_size: K, a multiple of R.
      make_batches: from the tasks of every step that are wanted, and the number of elements that a step
        of them comes in, to the batches; see pipeline.meta_batches.

    Returns:
      Batches, each a step: tensors, or one value of K/R tasks a replica.
    """
    if strategy.num_replicas_in_sync == 1:
        return make_batches(range(meta_batch_size), 1)

    made = []

    def of_one_process(context: tf.distribute.InputContext) -> tf.data.Dataset:
        share = meta_batch_size // context.num_input_pipelines
        first = context.input_pipeline_id * share
        replicas = context.num_replicas_in_sync // context.num_input_pipelines
        # Of data sets that end, the processes would ask each other at every step whether all go on.
        made.append(make_batches(range(first, first + share), replicas))
        return made[-1].dataset.repeat()

    distributed = strategy.distribute_datasets_from_function(of_one_process)
    return made[-1].through(lambda _: distributed)
