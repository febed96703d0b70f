# SPDX-License-Identifier: Apache-2.0
"""Learners as SavedModels, for the tests of this folder."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

from tf_lwdgh.data.images import ImageConfig, preprocess
from tf_lwdgh.learners import MAML
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks import backbones
from tf_lwdgh.serving import module as serving
from tf_lwdgh.serving import saved_models

SIZE, STEPS = 16, 3
CASES = {
    "transductive": ("convnet4", "transductive", "learned"),
    "inductive": ("convnet4", "inductive", "zero"),
    "global": ("convnet4", "global", "learned"),
    "residual": ("resnet12", "inductive", "learned"),
}


class Exported:
    """One learner, in this process and as a SavedModel."""

    def __init__(self, case: str, folder: str) -> None:
        backbone, batch_norm, head = CASES[case]
        sizes = {"filters": 8, "blocks": 2} if backbone == "convnet4" else {"widths": (6,)}
        keras_model = getattr(backbones, backbone)(image_size=SIZE, channels=3, n_way=5, **sizes)
        self.learner = MAML(inner_loop=InnerLoop(inner_lr=0.1), batch_norm=batch_norm, head=head)
        self.parameters = MetaParameters(keras_model, self.learner)
        self.model = self.parameters.model
        noise = tf.random.stateless_normal([20, SIZE, SIZE, 3], [1, 2])
        statistics = self.model.apply(self.model.values(), self.model.state(), noise, training=True)[1]
        for variable, value in zip(self.model.state_variables, statistics):
            variable.assign(value)
        self.images = ImageConfig(image_size=SIZE, normalisation="signed", invert=True)
        module = serving.ServingModule(self.parameters, self.images, inner_steps=STEPS, metadata={"step": 7})
        self.path = os.path.join(folder, case)
        saved_models.save(module, self.path)
        self.loaded = tf.saved_model.load(self.path)

    def in_process(self, support: np.ndarray, labels: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Probabilities by the way that training and evaluation go."""
        context = Context(self.model, n_way=int(max(labels)) + 1, steps=STEPS)
        meta = self.parameters.values()
        support, query = (preprocess(tf.constant(x), self.images) for x in (support, query))

        @tf.function(autograph=False)
        def answer():
            adapted = self.learner.adapt(context, meta, support, tf.constant(labels, tf.int32))
            return self.learner.predict(context, meta, adapted, query)[0]

        return tf.nn.softmax(answer()).numpy()


class Exports(dict):
    """Each of CASES, exported when it is first asked for.

    Args:
      folder: where the SavedModels go.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, case: str) -> Exported:
        self[case] = Exported(case, self._folder)
        return self[case]


def task(n_way: int = 5, k_shot: int = 2, n_query: int = 9, seed: int = 0):
    random = np.random.default_rng(seed)
    shape = (SIZE, SIZE, 3)
    support = random.integers(0, 256, (n_way * k_shot, *shape), np.uint8)
    query = random.integers(0, 256, (n_query, *shape), np.uint8)
    return support, np.repeat(np.arange(n_way), k_shot), query


def close(a, b) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=False)
