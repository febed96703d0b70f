"""On which devices a run goes: one, or a copy of the model on each GPU of the machine."""

from __future__ import annotations

import tensorflow as tf

from tf_lwdgh.data.batches import Batches

STRATEGIES = ("default", "mirrored")


def make(name: str) -> tf.distribute.Strategy:
    """A tf.distribute strategy.

    Args:
      name: 'default' (TensorFlow's own choice of one device) or 'mirrored' (all GPUs of the machine, or,
        without one, all logical CPU devices).

    Raises:
      ValueError: another name.
    """
    if name not in STRATEGIES:
        raise ValueError(
            f"Experiment.strategy must be one of {', '.join(STRATEGIES)}. "
            f"Received: Experiment.strategy = {name!r}."
        )
    if name == "default":
        return tf.distribute.get_strategy()
    if tf.config.list_physical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    # TensorFlow's own choice for CPUs, collective operations, can pair up unlike tensors.
    return tf.distribute.MirroredStrategy(
        [device.name for device in tf.config.list_logical_devices("CPU")],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def distribute(strategy: tf.distribute.Strategy, batches: Batches) -> Batches:
    """Meta-batches, each split evenly over the replicas in the order of its tasks."""
    if strategy.num_replicas_in_sync == 1:
        return batches
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.through(
        lambda dataset: strategy.experimental_distribute_dataset(dataset.with_options(options))
    )
