# SPDX-License-Identifier: Apache-2.0
"""The all-reduces in the graph of a meta-step, by what each process lays out for them."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from bench.communication import Setting
from tests.outer import replicas
from tests.toy_learners import Centres
from tf_lwdgh.aggregators import LWDGH, Mean, PCGrad, TrimmedMean
from tf_lwdgh.aggregators.conflict_report import ConflictReport
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.backbones import convnet4
from tf_lwdgh.outer.meta_step import MetaStep, OuterLoop

AGGREGATORS = {  # by what bench.communication calls them
    "mean": Mean(), "lwdgh": LWDGH(), "gram": PCGrad(), "gather": TrimmedMean()
}  # fmt: skip


def count(strategy: tf.distribute.Strategy, name: str, n_tasks: int) -> tuple[list[int], Setting]:
    """Traces a meta-step, and runs none.

    Returns:
      The bytes of each all-reduce, and what they are a function of.
    """
    share = n_tasks // strategy.num_replicas_in_sync
    with strategy.scope():
        model = convnet4(image_size=8, channels=1, n_way=3, filters=3, blocks=1, fused=False)
        parameters = MetaParameters(model, Centres())
        step = MetaStep(
            parameters=parameters,
            aggregator=AGGREGATORS[name],
            optimizer=keras.optimizers.Adam(0.01),
            settings=OuterLoop(meta_batch_size=n_tasks),
            seed=0,
            report=ConflictReport(cosines=False),
        )

    def part(x: np.ndarray) -> tf.Tensor:
        return tf.constant(x[:share], tf.float32 if x.dtype == np.float64 else x.dtype)

    batch = tf.nest.map_structure(part, replicas.episodes(0, n_tasks))
    graph = step.__call__.get_concrete_function(batch, tf.constant(0, tf.int64)).graph
    found = [
        int(np.prod(op.inputs[0].shape)) * op.inputs[0].dtype.size
        for op in operations(graph)
        if op.type.startswith("Collective")
    ]
    sizes = [int(np.prod(v.shape)) for v in parameters.variables_trained]
    members = [i for unit in step.units.values() for i in unit]
    harmonized = sum(sizes[i] for i in members)
    statistics = sum(int(np.prod(v.shape)) for v in parameters.model.state_variables)
    replicas_ = strategy.num_replicas_in_sync
    return found, Setting(sum(sizes), harmonized, len(step.units), share, replicas_, statistics)


def operations(graph: tf.Graph) -> list[tf.Operation]:
    """All operations of a graph and of the functions it calls."""
    found = list(graph.get_operations())
    for function in getattr(graph, "_functions", {}).values():
        inner = getattr(function, "graph", None)
        found += inner.get_operations() if inner is not None else []
    return found
