# SPDX-License-Identifier: Apache-2.0
"""Serving: a trained learner as a SavedModel that learns a new task inside its graph.

What is saved needs TensorFlow and nothing of this package. Its functions, signatures too:

  adapt(support_images, support_labels) -> the learned classifier, a flat dict of named tensors
  predict(classifier, query_images) -> 'probabilities' [B, N] and 'labels' [B]
  adapt_and_predict(support_images, support_labels, query_images) -> the same in one call

Images are uint8 in 0..255; with `_float` at the end of a name they are float32 in [0, 1], with
`_bytes` encoded images in strings, which are decoded and resized. Before that end, `_tasks` stands
for a batch of tasks of one size: every tensor has a leading axis of tasks.

The signature `predict` takes the classifier's tensors by their names; those of encoded images end
in `_bytes`. Labels are float32 to a function, int32 to a signature, and whole numbers to both.
`predict_unchecked` is `predict_float` in one piece and without checks, for converters to other
runtimes, such as LiteRT's. `serving_default` is `adapt_and_predict`, and `metadata` tells what was
exported.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import tensorflow as tf

from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.serving import warmup
from tf_lwdgh.serving.functions import Function, Functions
from tf_lwdgh.serving.graphs import TaskGraphs
from tf_lwdgh.serving.metadata import describe
from tf_lwdgh.types import Meta


class ServingModule(tf.Module):
    """A learner, all that it has learned, and the way from pixels to probabilities.

    Attributes:
      network: the network's values, frozen.
      own: those of the learner's own meta-parameters, by name.
      state: BatchNorm's averages.
      metadata: what was exported, as JSON text.

    Args:
      parameters: the trained learner and its variables, whose values are copied.
      image_config: how pixels become the network's input. Augmentation plays no part.
      batch_norm: the statistics that BatchNorm uses here (Learner.batch_norm); None: the learner's.
      inner_steps: gradient steps of the adaptation; None: as in training.
      metadata: what else to tell whoever loads it (training step, data set, ...); JSON values.

    Raises:
      ValueError: the learner can't work with these settings, or the image settings are not the
        network's.
    """

    def __init__(
        self,
        parameters: MetaParameters,
        image_config: ImageConfig,
        *,
        batch_norm: str | None = None,
        inner_steps: int | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(name="few_shot_learner")
        model, learner = parameters.model, parameters.learner
        if batch_norm is not None:
            learner = dataclasses.replace(learner, batch_norm=batch_norm)
        if inner_steps is not None and inner_steps < 0:
            raise ValueError(f"inner_steps must be at least 0. Received: {inner_steps}.")
        if model.image_shape != image_config.shape:
            raise ValueError(
                "The images must have the model's size and channels "
                f"(ImageConfig.image_size, ImageConfig.channels). Received: {image_config.shape} "
                f"for a model of {model.image_shape}."
            )
        learner.check(model, inner_steps)
        values = parameters.values()
        self.network = [_frozen(v, n) for v, n in zip(values.network, model.names)]
        self.own = {name: _frozen(v, name) for name, v in values.own.items()}
        self.state = [_frozen(v, n) for v, n in zip(values.state, model.state_names)]
        self._images, self._n_way = image_config, model.n_way
        most_ways = None if learner.any_way else model.n_way
        graphs = TaskGraphs(learner, model, image_config, self._meta, inner_steps)
        known = describe(parameters, learner, image_config, graphs, inner_steps)
        self.metadata = json.dumps({**known, **(metadata or {})}, indent=2, sort_keys=True)
        self._functions = Functions(graphs, image_config, most_ways)
        self._concrete = self._functions.concrete()
        for name, function in self._concrete.items():
            setattr(self, name, function)
        self.predict_unchecked = graphs.unchecked()

    def _meta(self) -> Meta:
        read = tf.convert_to_tensor
        own = {name: read(v) for name, v in self.own.items()}
        return Meta([read(v) for v in self.network], own, [read(v) for v in self.state])

    def signatures(self) -> dict[str, Function]:
        """The named signatures, with the sizes that they take."""
        told = tf.function(lambda: {"json": tf.constant(self.metadata)}, input_signature=[], autograph=False)
        found = self._functions.signatures(self._concrete)
        return {
            "serving_default": found["adapt_and_predict"],
            **found,
            "predict_unchecked": self.predict_unchecked,
            "metadata": told.get_concrete_function(),
        }

    def write_warmup(self, folder: str, signatures: Mapping[str, Function], name: str) -> None:
        """Writes warm-up requests into the folder of this module's SavedModel."""
        warmup.write(folder, signatures, self._images, self._n_way, name)


def _frozen(value: tf.Tensor, name: str) -> tf.Variable:
    return tf.Variable(value, trainable=False, name=name)
