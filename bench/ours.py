# SPDX-License-Identifier: Apache-2.0
"""tf_lwdgh as a contestant of the benchmark."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "--eigen" in sys.argv:  # read when TensorFlow is imported
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import keras
import numpy as np
import tensorflow as tf

from bench import worker, workloads
from tf_lwdgh.aggregators import LWDGH, Mean
from tf_lwdgh.aggregators.conflict_report import ConflictReport
from tf_lwdgh.aggregators.explore_exploit import ExploreExploit
from tf_lwdgh.learners import MAML, Learner, PrototypicalNetwork
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks import backbones
from tf_lwdgh.outer import strategies
from tf_lwdgh.outer.meta_step import MetaStep, OuterLoop
from tf_lwdgh.outer.outer_gradients import outer_gradients
from tf_lwdgh.outer.task_execution import MODES, TaskExecution
from tf_lwdgh.outer.threads import Threads
from tf_lwdgh.types import Episode

AGGREGATORS = {
    "lwdgh": (LWDGH(), None),
    "lwdgh_ee": (LWDGH(), ExploreExploit()),
    "mean": (Mean(), None),
}


class Ours:
    """The meta-step, or the evaluator, on one workload."""

    def __init__(self, w: workloads.Workload, arrays: worker.Arrays, args: argparse.Namespace) -> None:
        strategy = strategies.make("multi_worker" if args.multi_worker else "default")
        with strategy.scope():
            self._build(w, args, strategy.num_replicas_in_sync)
        self.model = self.parameters.model
        for name, variable in zip(self.model.names, self.model.variables):
            variable.assign(arrays[f"w:{name}"])
        names = ("support_x", "support_y", "query_x", "query_y")
        self.episodes = Episode(*(tf.constant(arrays[name]) for name in names))
        self.steps = 0

    def _build(self, w: workloads.Workload, args: argparse.Namespace, replicas: int) -> None:
        keras_model = self._model(w, args)
        self.execution = TaskExecution(args.mode, args.parallel_tasks, args.xla)
        self.parameters = MetaParameters(keras_model, self._learner(w, args))
        aggregator, explore = AGGREGATORS[args.aggregator]
        self.meta_step = MetaStep(
            parameters=self.parameters,
            aggregator=aggregator,
            explore=explore,
            optimizer=keras.optimizers.Adam(0.001),
            settings=OuterLoop(meta_batch_size=w.tasks * replicas),
            seed=0,
            execution=self.execution,
            report=ConflictReport(cosines=not args.without_cosines),
        )

    @staticmethod
    def _learner(w: workloads.Workload, args: argparse.Namespace) -> Learner:
        if w.learner == "prototypical_network":
            return PrototypicalNetwork(batch_norm="transductive")
        loop = InnerLoop(steps=w.inner_steps, inner_lr=w.inner_lr, adapt_batch_norm=True, memory=args.memory)
        return MAML(inner_loop=loop)

    @staticmethod
    def _model(w: workloads.Workload, args: argparse.Namespace):
        sizes = dict(image_size=w.image_size, channels=w.channels, n_way=w.n_way)
        sizes["dtype"] = args.products or args.dtype
        sizes["fused"] = not args.plain
        if w.backbone == "convnet4":
            return backbones.convnet4(**sizes, filters=w.filters)
        return backbones.resnet12(**sizes)

    def gradients(self) -> worker.Arrays:
        run = tf.function(lambda e: self._gradients(e))
        return {n: g.numpy() for n, g in zip(self.parameters.names, run(self.episodes))}

    def _gradients(self, episodes: Episode):
        return outer_gradients(self.parameters, episodes, execution=self.execution).gradients

    def step(self) -> None:
        metrics = self.meta_step(self.episodes, tf.constant(self.steps, tf.int64))
        self.steps += 1
        metrics["train/loss"].numpy()
        # The update runs beside the metrics; its end is the end of the step.
        self.parameters.variables_trained[-1].numpy()

    def adapt(self) -> np.ndarray:
        if not hasattr(self, "adapter"):
            self.adapter = tf.function(self._adapt)
        return self.adapter(self.episodes).numpy()

    def _adapt(self, episodes: Episode) -> tf.Tensor:
        learner, meta, context = self.parameters.learner, self.parameters.values(), Context(self.model)

        def one(e: Episode) -> tf.Tensor:
            adapted = learner.adapt(context, meta, e.support_images, e.support_labels)
            return learner.predict(context, meta, adapted, e.query_images)[0]

        shape = [episodes.query_labels.shape[1], self.model.n_way]
        signature = tf.TensorSpec(shape, meta.network[0].dtype)
        return self.execution.over(one, episodes, signature)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--plain", action="store_true", help="differentiate plain operations")
    parser.add_argument("--memory", default="store", choices=("store", "recompute"))
    parser.add_argument("--aggregator", default="lwdgh", choices=tuple(AGGREGATORS))
    parser.add_argument("--multi_worker", action="store_true", help="one process of those in TF_CONFIG")
    parser.add_argument("--without_cosines", action="store_true", help="report none")
    parser.add_argument("--mode", default="map", choices=MODES, help="how the tasks run")
    parser.add_argument("--parallel_tasks", type=int, help="tasks at once")
    parser.add_argument("--xla", action="store_true", help="compile each task")
    parser.add_argument("--eigen", action="store_true", help="without oneDNN's kernels")
    parser.add_argument("--products", help="a Keras dtype policy, such as mixed_bfloat16")
    parser.add_argument("--intra_op", type=int, help="threads an operation")
    parser.add_argument("--inter_op", type=int, help="operations at once")
    known, rest = parser.parse_known_args()
    tasks = workloads.parse(rest[rest.index("--workload") + 1]).tasks
    at_once = TaskExecution(known.mode, known.parallel_tasks).at_once(tasks)
    Threads(inter_op=known.inter_op, intra_op=known.intra_op).apply(at_once)
    packages = {p: importlib.metadata.version(p) for p in ("tensorflow", "keras", "numpy")}
    worker.serve(Ours, packages, parser)
