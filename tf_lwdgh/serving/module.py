"""Serving: a trained model as a SavedModel that adapts to a new task inside its graph.

What is saved needs TensorFlow and nothing of this package. It holds two functions, which are also its
signatures: `adapt_and_predict` for uint8 images in 0..255 (as `serving_default` too) and
`adapt_and_predict_float` for float32 images in [0, 1]; and the signature `metadata`.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping

import keras
import tensorflow as tf

import tf_lwdgh
from tf_lwdgh.learners import Algorithm
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.data.images import ImageConfig, preprocess
from tf_lwdgh.networks.layers.batch_norm import plain_operations

Prediction = dict[str, tf.Tensor]
_IMAGE_SETTINGS = ("image_size", "channels", "normalisation", "mean", "std", "invert")
_DIVERGED = "the adaptation to this support set diverged, some logits are NaN or infinite"


class ServingModule(tf.Module):
    """A learner, its trained parameters and the way from pixels to probabilities.

    Args:
      model: the trained model's functional view; its values are copied.
      algorithm: the learner.
      image_config: how pixels become the network's input. Augmentation plays no part.
      inner_steps: gradient steps of the adaptation; None: as in training.
      metadata: what else to tell whoever loads it (training step, data set, ...); JSON values.

    Raises:
      ValueError: inner_steps is negative, or the image settings are not the model's.
    """

    def __init__(
        self,
        model: FunctionalModel,
        algorithm: Algorithm,
        image_config: ImageConfig,
        *,
        inner_steps: int | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(name="few_shot_learner")
        if inner_steps is not None and inner_steps < 0:
            raise ValueError(f"inner_steps must be at least 0. Received: {inner_steps}.")
        if model.image_shape != image_config.shape:
            raise ValueError(
                "The images must have the model's size and channels "
                f"(ImageConfig.image_size, ImageConfig.channels). Received: {image_config.shape} "
                f"for a model of {model.image_shape}."
            )
        self._model, self._algorithm, self._images = model, algorithm, image_config
        self._steps = inner_steps
        self.parameters = [_frozen(v, n) for v, n in zip(model.values(), model.names)]
        self.statistics = [_frozen(v, "batch_norm_average") for v in model.state()]
        known = _describe(model, algorithm, image_config, inner_steps)
        self.metadata = json.dumps({**known, **(metadata or {})}, indent=2, sort_keys=True)
        # Sizes are left open in the functions, so that their own checks can say what is wrong.
        images = tf.TensorSpec([None] * 4, tf.float32)
        labels = tf.TensorSpec([None], tf.int32)
        learn = tf.function(self._learn, input_signature=[images, labels, images])
        self.adapt_and_predict_float = _function(learn, self._checked, tf.float32)
        self.adapt_and_predict = _function(learn, self._checked, tf.uint8)

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """The named signatures, with the sizes that they take."""
        eight_bit = self._signature(self.adapt_and_predict, tf.uint8)
        floating = self._signature(self.adapt_and_predict_float, tf.float32)
        told = tf.function(lambda: {"json": tf.constant(self.metadata)}, input_signature=[])
        return {
            "serving_default": eight_bit,
            "adapt_and_predict": eight_bit,
            "adapt_and_predict_float": floating,
            "metadata": told.get_concrete_function(),
        }

    def _signature(self, function, dtype: tf.DType):
        def images(name: str) -> tf.TensorSpec:
            return tf.TensorSpec([None, *self._images.shape], dtype, name=name)

        labels = tf.TensorSpec([None], tf.int32, name="support_labels")

        @tf.function(input_signature=[images("support_images"), labels, images("query_images")])
        def adapt_and_predict(support_images, support_labels, query_images):
            return function(support_images, support_labels, query_images)

        return adapt_and_predict.get_concrete_function()

    def _learn(
        self, support_images: tf.Tensor, support_labels: tf.Tensor, query_images: tf.Tensor
    ) -> Prediction:
        """Adapts and predicts, given network inputs whose values have been checked."""
        params = [tf.convert_to_tensor(v) for v in self.parameters]
        state = [tf.convert_to_tensor(v) for v in self.statistics]
        dtype = params[0].dtype
        n_way = tf.reduce_max(support_labels) + 1
        if self._algorithm.head == "learned":  # the first ways of the head, where fewer are asked for
            params[-2:] = [params[-2][:, :n_way], params[-1][:n_way]]
        images = [
            tf.ensure_shape(tf.cast(x, dtype), [None, *self._images.shape])
            for x in (support_images, query_images)
        ]
        with plain_operations():
            logits = self._algorithm.adapt_and_predict(
                self._model, params, state, images[0], support_labels, images[1],
                n_way=n_way, steps=self._steps,
            )  # fmt: skip
        check = _Checks()
        not_finite = tf.reduce_sum(tf.cast(~tf.math.is_finite(logits), tf.int32))
        check.require(not_finite == 0, _DIVERGED, not_finite)
        with tf.control_dependencies(check.passed):
            labels = tf.argmax(logits, -1, output_type=tf.int32)
        return {"probabilities": tf.nn.softmax(logits), "labels": labels}

    def _checked(
        self, support_images: tf.Tensor, support_labels: tf.Tensor, query_images: tf.Tensor
    ) -> list[tf.Tensor]:
        """The inputs as the network takes them, once every check has passed."""
        checks = _Checks()
        for name, images in (("support_images", support_images), ("query_images", query_images)):
            self._check_images(checks, name, images)
        self._check_labels(checks, support_labels, tf.shape(support_images)[0])
        with tf.control_dependencies(checks.passed):
            shape = [None, *self._images.shape]
            support_images = tf.ensure_shape(tf.identity(support_images), shape)
            query_images = tf.ensure_shape(tf.identity(query_images), shape)
            labels = tf.identity(support_labels)
        return [preprocess(support_images, self._images), labels, preprocess(query_images, self._images)]

    def _check_images(self, checks: _Checks, name: str, images: tf.Tensor) -> None:
        shape = tf.shape(images)
        checks.require(
            tf.reduce_all(shape[1:] == self._images.shape),
            f"{name}: images must have height, width and channels {self._images.shape}",
            shape[1:],
        )
        checks.require(shape[0] > 0, f"{name}: there must be at least one image", shape[0])
        if not images.dtype.is_floating:
            # NumPy's float images in [0, 1] would come in silently cut down to 0 and 1.
            largest = tf.reduce_max(tf.cast(images, tf.int32))
            checks.require(
                largest > 1,
                f"{name}: uint8 images must lie in 0..255, with some pixel above 1; pass float images "
                "in [0, 1] to adapt_and_predict_float",
                largest,
            )
            return
        not_finite = tf.reduce_sum(tf.cast(~tf.math.is_finite(images), tf.int32))
        checks.require(
            not_finite == 0, f"{name}: every value must be finite, no NaN or infinity", not_finite
        )
        extremes = tf.stack([tf.reduce_min(images), tf.reduce_max(images)])
        checks.require(
            (extremes[0] >= 0) & (extremes[1] <= 1),
            f"{name}: float images must lie in [0, 1]; pass those in 0..255 as uint8 to "
            "adapt_and_predict",
            extremes,
        )

    def _check_labels(self, checks: _Checks, labels: tf.Tensor, n_images: tf.Tensor) -> None:
        counts = tf.stack([n_images, tf.shape(labels)[0]])
        checks.require(
            counts[0] == counts[1],
            "support_images and support_labels must be of one length",
            counts,
        )
        checks.require(
            tf.reduce_min(labels) >= 0, "support_labels must be 0, 1, ..., way - 1", labels
        )
        n_way = tf.reduce_max(labels) + 1
        if self._algorithm.head == "learned":
            most = self._model.n_way
            checks.require(
                n_way <= most, f"support_labels: the model's head has {most} ways, 0..{most - 1}", labels
            )
        present, _ = tf.unique(labels)
        checks.require(
            tf.size(present) == n_way,
            "support_labels: every label of 0, 1, ..., largest must have an example",
            labels,
        )


class _Checks:
    """Assertions in a graph, one after the other, so that the first that fails is the one told."""

    def __init__(self) -> None:
        self.passed: list[tf.Operation] = []

    def require(self, holds: tf.Tensor, rule: str, received: tf.Tensor) -> None:
        with tf.control_dependencies(self.passed):
            text = tf.strings.format(f"{rule}. Received: {{}}.", tf.identity(received), summarize=10)
            check = tf.debugging.Assert(tf.identity(holds), [text])
        if check is not None:  # eager execution has already checked
            self.passed = [check]


def _frozen(value: tf.Tensor, name: str) -> tf.Variable:
    return tf.Variable(value, trainable=False, name=name)


def _function(learn, checked, dtype: tf.DType):
    """The function of images of one dtype."""
    images = tf.TensorSpec([None] * 4, dtype)

    @tf.function(input_signature=[images, tf.TensorSpec([None], tf.int32), images])
    def adapt_and_predict(support_images, support_labels, query_images):
        return learn(*checked(support_images, support_labels, query_images))

    return adapt_and_predict


def _describe(
    model: FunctionalModel,
    algorithm: Algorithm,
    image_config: ImageConfig,
    inner_steps: int | None,
) -> dict[str, object]:
    """What is known of every exported model."""
    any_way = algorithm.head != "learned"
    trained_steps = algorithm.inner_loop.steps
    return {
        "algorithm": type(algorithm).__name__,
        "backbone": model.keras_model.name,
        "trainable_parameters": sum(int(v.shape.num_elements()) for v in model.values()),
        "batch_norm": algorithm.batch_norm,
        "predictions_depend_on_the_other_queries": algorithm.batch_norm == "transductive",
        "head": algorithm.head,
        "trained_n_way": model.n_way,
        "largest_n_way": None if any_way else model.n_way,
        "inner_steps": trained_steps if inner_steps is None else inner_steps,
        "image": {
            **{k: v for k, v in dataclasses.asdict(image_config).items() if k in _IMAGE_SETTINGS},
            "input": "uint8 in 0..255, or float32 in [0, 1]",
        },
        "versions": {
            "tf_lwdgh": tf_lwdgh.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "python": platform.python_version(),
        },
    }
