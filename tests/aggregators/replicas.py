# SPDX-License-Identifier: Apache-2.0
"""Aggregates on one and on several CPU replicas; prints the largest differences by aggregator as JSON.

A program of its own, since the number of logical devices is fixed when TensorFlow starts. All run on two
replicas, and one of each kind on four; with --all, all on both.
"""

import json
import sys

import numpy as np
import tensorflow as tf

from tests.aggregators import harness
from tests.aggregators.cases import FIRST
from tf_lwdgh.aggregators import LWDGH, MGDA, TrimmedMean
from tf_lwdgh.aggregators.collectives import Collective
from tf_lwdgh.aggregators.conflict_report import ConflictReport
from tf_lwdgh.aggregators.explore_exploit import MODES, ExploreExploit

# Those that use more than the gradients' inner products: norms, losses, all tasks' coordinates.
MORE = {
    "LWDGH relative": LWDGH(scale="relative"),
    "MGDA both": MGDA(normalisation="both"),
    "TrimmedMean 2": TrimmedMean(trim=2),
}
KINDS = ("Mean", "LWDGH", "LWDGH relative", "GradDrop", "PCGrad", "TrimmedMean 2")
N_TASKS = {"TrimmedMean 2": 6, "Krum": 6}
UNITS = {"conv": [0, 1], "bias": [3]}  # variable 2 belongs to none
STEP = 7


def everything(names, n_tasks):
    """A function of the rows and losses at hand to all that is compared, by name."""
    aggregators = {name: case.aggregator for name, case in FIRST.items()} | MORE
    explores = {mode: ExploreExploit(mode, p_max=0.5, p_min=0.5) for mode in MODES}

    def run(losses, *rows):
        collective = Collective()
        tasks = harness.tasks(rows, losses, UNITS, collective)
        assert tasks.n_tasks == n_tasks
        clock = harness.clock(tf.constant(STEP, tf.int64))
        out = {name: aggregators[name](tasks, clock) for name in names}
        first = next(iter(out.values()))
        out |= {f"explore {m}": e.over(first, tasks, clock) for m, e in explores.items()}
        return {"report": ConflictReport().measure(tasks, tasks.mean)} | out

    return run


def replicated(strategy, run, losses, rows):
    """What each replica returns, given its part of the tasks: a dictionary each."""
    share = len(losses) // strategy.num_replicas_in_sync

    @tf.function(autograph=False)
    def all_of_them():
        def mine():
            start = tf.distribute.get_replica_context().replica_id_in_sync_group * share
            return run(*(tf.constant(x)[start : start + share] for x in (losses, *rows)))

        return strategy.run(mine)

    out = all_of_them()

    def of_replica(i):
        parts = strategy.experimental_local_results
        return tf.nest.map_structure(lambda value: parts(value)[i].numpy(), out)

    return [of_replica(i) for i in range(strategy.num_replicas_in_sync)]


def largest(a, b):
    """The largest difference of two nests of arrays, relative to elements above 1."""
    pairs = list(zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True))
    return max(float((np.abs(x - y) / np.maximum(1, np.abs(x))).max()) for x, y in pairs)


def compare(strategy, names, n_tasks):
    rows, losses = harness.random_rows(n_tasks), harness.random_losses(n_tasks)
    run = everything(names, n_tasks)
    alone = tf.nest.map_structure(lambda v: v.numpy(), run(losses, *rows))
    first, *others = replicated(strategy, run, losses, rows)
    return {
        f"{name} of {n_tasks}": {
            "one_and_several": largest(alone[name], first[name]),
            "replicas": max(largest(first[name], other[name]) for other in others),
        }
        for name in alone
    }


def main() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    two, four = (
        tf.distribute.MirroredStrategy(
            [f"CPU:{i}" for i in range(count)], cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
        for count in (2, 4)
    )
    names = [*FIRST, *MORE]
    report = {}
    for n_tasks in (4, 6):
        report |= compare(two, [n for n in names if N_TASKS.get(n, 4) == n_tasks], n_tasks)
    report |= compare(four, names if "--all" in sys.argv else KINDS, 8)
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
