# SPDX-License-Identifier: Apache-2.0
"""Runs the cases that it is given on one and on several CPU replicas and prints the largest differences as JSON.

A program of its own, since the number of logical devices is fixed when TensorFlow starts.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from tests.toy_learners import CountedCentres, CoupledCentres
from tf_lwdgh.aggregators import LWDGH
from tf_lwdgh.aggregators.explore_exploit import ExploreExploit
from tf_lwdgh.learners import MAML
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.backbones import convnet4
from tf_lwdgh.outer.meta_step import MetaStep, OuterLoop
from tf_lwdgh.types import Episode

LEARNER = MAML(inner_loop=InnerLoop(steps=1, inner_lr=0.1), batch_norm="global")
CASES = {  # learner, aggregator, explore-exploit, sharpness of the outer loop
    "own": (
        CountedCentres(harmonized=False, batch_norm="global"),
        LWDGH(unit="model", temperature=0.5), None, 0.0,
    ),
    "lwdgh_ee": (LEARNER, LWDGH(), ExploreExploit(p_max=0.5), 0.0),
    "coupled_sharp": (
        CoupledCentres(), LWDGH(scale="relative", unit="layer"), ExploreExploit(p_max=0.5), 0.1
    ),
}  # fmt: skip
REPLICAS = {"own": (2, 4), "lwdgh_ee": (2,), "coupled_sharp": (2,)}
N_TASKS, STEPS = 4, 4


def episodes(step: int, n_tasks: int = N_TASKS) -> Episode:
    r = np.random.default_rng(step)
    labels = np.tile(np.repeat(np.arange(3, dtype=np.int32), 2), (n_tasks, 1))
    images = [r.normal(size=(n_tasks, 6, 8, 8, 1)) + labels[..., None, None, None] for _ in "sq"]
    return Episode(images[0], labels, images[1], labels)


def run(strategy: tf.distribute.Strategy, name: str, n_tasks: int = N_TASKS) -> tuple[list[np.ndarray], list[dict]]:
    """The variables after some steps of Adam, in float64, and each step's metrics."""
    learner, aggregator, explore, sharpness = CASES[name]
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = convnet4(image_size=8, channels=1, n_way=3, filters=3, blocks=2, dtype="float64", fused=False)
        parameters = MetaParameters(model, learner)
        step = MetaStep(
            parameters=parameters,
            aggregator=aggregator,
            explore=explore,
            optimizer=keras.optimizers.Adam(0.01),
            settings=OuterLoop(meta_batch_size=n_tasks, steps_per_epoch=2, epochs=4, sharpness=sharpness),
            seed=0,
        )
    history = []
    for s in range(STEPS):
        everything = episodes(s, n_tasks)

        def mine(context, everything=everything):
            share = n_tasks // context.num_replicas_in_sync
            start = context.replica_id_in_sync_group * share
            return tf.nest.map_structure(lambda x: tf.constant(x[start : start + share]), everything)

        batch = strategy.experimental_distribute_values_from_function(mine)
        out = step(batch, tf.constant(s, tf.int64))
        history.append({key: value.numpy() for key, value in out.items()})
    return [v.numpy() for v in (*model.variables, *parameters.own.values())], history


def difference(one: tuple, other: tuple) -> dict:
    """The largest of two runs, in the variables and in the metrics, and when the second explored."""
    (weights_one, metrics_one), (weights, metrics) = one, other
    return {
        "weights": max(float(np.abs(a - b).max()) for a, b in zip(weights_one, weights, strict=True)),
        "metrics": max(float(np.abs(a[key] - b[key]).max()) for a, b in zip(metrics_one, metrics) for key in a),
        "flags": [float(m.get("explore/flag", -1)) for m in metrics],
    }


def main() -> None:
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # slower than the steps
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    report = {}
    for name in sys.argv[1:]:
        alone = run(tf.distribute.get_strategy(), name)
        for replicas in REPLICAS[name]:
            strategy = tf.distribute.MirroredStrategy(
                [f"CPU:{i}" for i in range(replicas)],
                cross_device_ops=tf.distribute.ReductionToOneDevice(),
            )
            report[f"{name} on {replicas}"] = difference(alone, run(strategy, name))
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
