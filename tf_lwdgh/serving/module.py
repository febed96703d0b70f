"""Serving: a trained learner as a SavedModel that learns a new task inside its graph.

What is saved needs TensorFlow and nothing of this package. Its functions, signatures too:

  adapt(support_images, support_labels) -> the learned classifier, a flat dict of named tensors
  predict(classifier, query_images) -> 'probabilities' [B, N] and 'labels' [B]
  adapt_and_predict(support_images, support_labels, query_images) -> the same in one call

Images are uint8 in 0..255; `adapt_float`, `predict_float` and `adapt_and_predict_float` take
float32 in [0, 1]. The signature `predict` takes the classifier's tensors by their names.
`serving_default` is `adapt_and_predict`, and `metadata` tells what was exported.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping

import tensorflow as tf

from tf_lwdgh.data.images import ImageConfig, preprocess
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.serving.checks import Checks
from tf_lwdgh.serving.graphs import Classifier, Prediction, TaskGraphs
from tf_lwdgh.serving.metadata import describe
from tf_lwdgh.types import Meta

Signature = tf.types.experimental.ConcreteFunction


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
        self.state = [_frozen(v, "batch_norm_average") for v in values.state]
        self._images = image_config
        self._most_ways = None if learner.any_way else model.n_way
        self._graphs = TaskGraphs(learner, model, self._meta, inner_steps)
        known = describe(parameters, learner, image_config, self._graphs.form, inner_steps)
        self.metadata = json.dumps({**known, **(metadata or {})}, indent=2, sort_keys=True)
        self.adapt, self.predict, self.adapt_and_predict = self._functions(tf.uint8)
        floating = self._functions(tf.float32)
        self.adapt_float, self.predict_float, self.adapt_and_predict_float = floating

    def _meta(self) -> Meta:
        read = tf.convert_to_tensor
        own = {name: read(v) for name, v in self.own.items()}
        return Meta([read(v) for v in self.network], own, [read(v) for v in self.state])

    def _functions(self, dtype: tf.DType) -> tuple[Callable, Callable, Callable]:
        """adapt, predict, adapt_and_predict of images of one dtype."""
        # Sizes are left open, so that the functions' own checks can say what is wrong.
        images, labels = tf.TensorSpec([None] * 4, dtype), tf.TensorSpec([None], tf.int32)
        specs = self._graphs.form.specs
        tensors = {name: tf.TensorSpec(None, spec.dtype) for name, spec in specs.items()}

        @tf.function(input_signature=[images, labels], autograph=False)
        def adapt(support_images, support_labels):
            return self._adapt(support_images, support_labels)

        @tf.function(input_signature=[tensors, images], autograph=False)
        def predict(classifier, query_images):
            return self._predict(classifier, query_images)

        @tf.function(input_signature=[images, labels, images], autograph=False)
        def adapt_and_predict(support_images, support_labels, query_images):
            return self._adapt_and_predict(support_images, support_labels, query_images)

        return adapt, predict, adapt_and_predict

    def _adapt(self, support_images: tf.Tensor, support_labels: tf.Tensor) -> Classifier:
        checks = Checks()
        checks.images("support_images", support_images, self._images.shape, "adapt")
        checks.labels(support_labels, tf.shape(support_images)[0], self._most_ways)
        support, labels = self._checked(checks, support_images, support_labels)
        return self._graphs.learn(support, labels)

    def _predict(self, classifier: Classifier, query_images: tf.Tensor) -> Prediction:
        checks = Checks()
        checks.images("query_images", query_images, self._images.shape, "predict")
        (queries,) = self._checked(checks, query_images)
        return self._graphs.answer(self._graphs.accept(classifier), queries)

    def _adapt_and_predict(
        self, support_images: tf.Tensor, support_labels: tf.Tensor, query_images: tf.Tensor
    ) -> Prediction:
        checks = Checks()
        for name, images in (("support_images", support_images), ("query_images", query_images)):
            checks.images(name, images, self._images.shape, "adapt_and_predict")
        checks.labels(support_labels, tf.shape(support_images)[0], self._most_ways)
        inputs = self._checked(checks, support_images, support_labels, query_images)
        return self._graphs.answer(self._graphs.learn(*inputs[:2]), inputs[2])

    def _checked(self, checks: Checks, *inputs: tf.Tensor) -> list[tf.Tensor]:
        """Inputs as the network takes them, once every check has passed."""
        shape = [None, *self._images.shape]
        with tf.control_dependencies(checks.passed):
            passed = [tf.identity(x) for x in inputs]
        return [
            preprocess(tf.ensure_shape(x, shape), self._images) if x.shape.rank == 4 else x
            for x in passed
        ]

    def signatures(self) -> dict[str, Signature]:
        """The named signatures, with the sizes that they take."""
        told = tf.function(lambda: {"json": tf.constant(self.metadata)}, input_signature=[])
        eight_bit = self._signatures("", tf.uint8)
        return {
            "serving_default": eight_bit["adapt_and_predict"],
            **eight_bit,
            **self._signatures("_float", tf.float32),
            "metadata": told.get_concrete_function(),
        }

    def _signatures(self, suffix: str, dtype: tf.DType) -> dict[str, Signature]:
        def images(name: str) -> tf.TensorSpec:
            return tf.TensorSpec([None, *self._images.shape], dtype, name)

        support = images("support_images")
        labels = tf.TensorSpec([None], tf.int32, "support_labels")
        queries = images("query_images")
        functions = {
            name: getattr(self, name + suffix) for name in ("adapt", "predict", "adapt_and_predict")
        }

        def predict(query_images, **classifier):
            return functions["predict"](classifier, query_images)

        found = {
            "adapt": _signature(functions["adapt"], support, labels),
            "predict": _signature(predict, queries, *self._graphs.form.specs.values()),
            "adapt_and_predict": _signature(
                functions["adapt_and_predict"], support, labels, queries
            ),
        }
        return {name + suffix: signature for name, signature in found.items()}


def _signature(function: Callable, *specs: tf.TensorSpec) -> Signature:
    """A function of tensors that are given by their specs' names."""
    named = tf.function(lambda **tensors: function(**tensors), autograph=False)
    return named.get_concrete_function(**{spec.name: spec for spec in specs})


def _frozen(value: tf.Tensor, name: str) -> tf.Variable:
    return tf.Variable(value, trainable=False, name=name)
