# SPDX-License-Identifier: Apache-2.0
"""A learner as two graphs: one learns a support set, one answers queries."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_lwdgh.data.images import ImageConfig, preprocess
from tf_lwdgh.learners import Learner
from tf_lwdgh.learners.context import Context
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.networks.kernels.plain import plain_operations
from tf_lwdgh.serving.checks import Checks
from tf_lwdgh.serving.classifier import N_WAY, ClassifierForm
from tf_lwdgh.types import Meta, Tensors

Classifier = dict[str, tf.Tensor]
Prediction = dict[str, tf.Tensor]
CHUNK = 128  # queries that the network takes at a time, so that the memory of a call is bounded
MOST_TOGETHER = 1000  # queries of a call, where each answer depends on all of them
_DIVERGED = "the adaptation to this support set diverged, some logits are NaN or infinite"
_MIXED = "classifier: its tensors must be of one task, with logits for n_way ways"


class TaskGraphs:
    """Learning and answering, on images whose values have been checked.

    Both stay functions of their own wherever they are called, and are optimised by themselves: so
    an answer has the same bits whether the classifier was learned in the same call or kept.
    Images are [B, H, W, C], uint8 in 0..255 or float32 in [0, 1].

    Attributes:
      form: how a classifier is written as named tensors.
      most_queries: that a call may have; None: any number, answered CHUNK at a time.

    Args:
      learner: the learner.
      model: the network.
      image_config: how pixels become the network's input.
      meta: gives the meta-parameters, as variables of the module that is saved.
      steps: inner steps; None: as in training.
    """

    def __init__(
        self,
        learner: Learner,
        model: FunctionalModel,
        image_config: ImageConfig,
        meta: Callable[[], Meta],
        steps: int | None,
    ) -> None:
        self._learner, self._model, self._meta, self._steps = learner, model, meta, steps
        self._images, self._dtype = image_config, tf.as_dtype(model.variables[0].dtype)
        self.most_queries = MOST_TOGETHER if learner.depends_on_queries else None
        inputs = tf.TensorSpec([None, *model.image_shape], self._dtype, "images")
        labels = tf.TensorSpec([None], tf.int32, "labels")
        with plain_operations():
            self._learn = concrete(self._learn_task, inputs, labels)
            sized = concrete(lambda x, y: self._adapt(x, y, model.n_way), inputs, labels)
            adapted = self._learn.structured_outputs
            self.form = ClassifierForm(adapted, sized.structured_outputs, model)
            self._answer = {
                dtype: concrete(
                    self._answer_queries,
                    self.form.specs,
                    tf.TensorSpec(inputs.shape, dtype, "images"),
                )
                for dtype in (tf.uint8, tf.float32)
            }
        specs = self.form.specs.items()
        self._accept = concrete(self._check, {n: tf.TensorSpec(None, s.dtype, n) for n, s in specs})

    def learn(self, images: tf.Tensor, labels: tf.Tensor) -> Classifier:
        """The classifier of a support set: images, and labels [B] int32."""
        adapted = self._learn(self._inputs(images), labels)
        return self.form.flatten(adapted, _ways(labels))

    def accept(self, classifier: Classifier) -> Classifier:
        """A classifier that came from outside, once all of its shapes are checked."""
        return self._accept(classifier)

    def answer(self, classifier: Classifier, images: tf.Tensor) -> Prediction:
        """'probabilities' [B, N] and 'labels' [B] int32 of queries."""
        return self._answer[images.dtype](classifier, images)

    def unchecked(self) -> tf.types.experimental.ConcreteFunction:
        """`answer` in one piece and without checks, for converters that take neither; by names."""

        def predict(query_images: tf.Tensor, **classifier: tf.Tensor) -> Prediction:
            logits, _ = self._predict(classifier, self._inputs(query_images))
            return _prediction(tf.cast(logits, tf.float32))

        images = tf.TensorSpec([None, *self._images.shape], tf.float32, "query_images")
        with plain_operations():
            function = tf.function(predict, autograph=False)
            return function.get_concrete_function(images, **self.form.specs)

    def _inputs(self, images: tf.Tensor) -> tf.Tensor:
        return tf.cast(preprocess(images, self._images), self._dtype)

    def _learn_task(self, images: tf.Tensor, labels: tf.Tensor):
        return self._adapt(images, labels, _ways(labels))

    def _adapt(self, images: tf.Tensor, labels: tf.Tensor, n_way: tf.Tensor | int):
        context = Context(self._model, n_way=n_way, steps=self._steps)
        return self._learner.adapt(context, self._meta(), images, labels)

    def _check(self, classifier: Classifier) -> Classifier:
        checks = Checks()
        checks.shape(f"classifier: {N_WAY}", classifier[N_WAY], [], tf.constant(0))
        with tf.control_dependencies(checks.passed):
            n_way = tf.reshape(classifier[N_WAY], [])
        for name, sizes in self.form.shapes.items():
            checks.shape(f"classifier: {name}", classifier[name], sizes, n_way)
        with tf.control_dependencies(checks.passed):
            known = {name: tf.identity(tensor) for name, tensor in classifier.items()}
        for name, tensor in known.items():
            # By tf.ensure_shape, TensorFlow's own words might come before the checks'.
            tensor.set_shape(self.form.specs[name].shape)
        return known

    def _answer_queries(self, classifier: Classifier, images: tf.Tensor) -> Prediction:
        n_way = classifier[N_WAY]

        def logits_of(part: tf.Tensor) -> tf.Tensor:
            return tf.cast(self._predict(classifier, self._inputs(part))[0], tf.float32)

        whole = self._learner.depends_on_queries
        logits = logits_of(images) if whole else _in_chunks(logits_of, images)
        checks = Checks()
        ways = tf.shape(logits)[1]
        checks.require(ways == n_way, _MIXED, tf.stack([n_way, ways]))
        not_finite = tf.reduce_sum(tf.cast(~tf.math.is_finite(logits), tf.int32))
        checks.require(not_finite == 0, _DIVERGED, not_finite)
        with tf.control_dependencies(checks.passed):
            return _prediction(logits)

    def _predict(self, classifier: Classifier, inputs: tf.Tensor) -> tuple[tf.Tensor, Tensors]:
        context = Context(self._model, n_way=classifier[N_WAY], steps=self._steps)
        return self._learner.predict(context, self._meta(), self.form.pack(classifier), inputs)


def _prediction(logits: tf.Tensor) -> Prediction:
    labels = tf.argmax(logits, -1, output_type=tf.int32)
    return {"probabilities": tf.nn.softmax(logits), "labels": labels}


def _in_chunks(logits_of: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor) -> tf.Tensor:
    """Logits [B, N] of images [B, ...], of CHUNK at a time."""
    n_chunks = (tf.shape(images)[0] + CHUNK - 1) // CHUNK
    found = tf.TensorArray(tf.float32, n_chunks, infer_shape=False, element_shape=[None, None])

    def step(i: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        return i + 1, found.write(i, logits_of(images[i * CHUNK : (i + 1) * CHUNK]))

    _, found = tf.while_loop(lambda i, _: i < n_chunks, step, (0, found), parallel_iterations=1)
    return found.concat()


def _ways(labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(labels) + 1


def concrete(function: Callable, *specs) -> tf.types.experimental.ConcreteFunction:
    """The concrete function of inputs of these specs.

    Not inlined: the sizes that a signature names must not reach the checks, which ask for them.
    """
    attributes = {"_noinline": True}
    traced = tf.function(function, autograph=False, experimental_attributes=attributes)
    return traced.get_concrete_function(*specs)
