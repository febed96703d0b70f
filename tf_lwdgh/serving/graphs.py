"""A learner as two graphs: one learns a support set, one answers queries."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_lwdgh.learners import Learner
from tf_lwdgh.learners.context import Context
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.networks.kernels.plain import plain_operations
from tf_lwdgh.serving.checks import Checks
from tf_lwdgh.serving.classifier import N_WAY, ClassifierForm
from tf_lwdgh.types import Meta

Classifier = dict[str, tf.Tensor]
Prediction = dict[str, tf.Tensor]
_DIVERGED = "the adaptation to this support set diverged, some logits are NaN or infinite"
_MIXED = "classifier: its tensors must be of one task, with logits for n_way ways"


class TaskGraphs:
    """Learning and answering, on network inputs whose values have been checked.

    Both stay functions of their own wherever they are called, and are optimised by themselves: so
    an answer has the same bits whether the classifier was learned in the same call or kept.

    Attributes:
      form: how a classifier is written as named tensors.

    Args:
      learner: the learner.
      model: the network.
      meta: gives the meta-parameters, as variables of the module that is saved.
      steps: inner steps; None: as in training.
    """

    def __init__(
        self, learner: Learner, model: FunctionalModel, meta: Callable[[], Meta], steps: int | None
    ) -> None:
        self._learner, self._model, self._meta, self._steps = learner, model, meta, steps
        dtype = tf.as_dtype(model.variables[0].dtype)
        images = tf.TensorSpec([None, *model.image_shape], dtype, "images")
        labels = tf.TensorSpec([None], tf.int32, "labels")
        with plain_operations():
            self._learn = _traced(self._learn_task, images, labels)
            sized = _traced(lambda *task: self._adapt(*task, model.n_way), images, labels)
            adapted = self._learn.structured_outputs
            self.form = ClassifierForm(adapted, sized.structured_outputs, model)
            self._answer = _traced(self._answer_queries, self.form.specs, images)
        specs = self.form.specs.items()
        self._accept = _traced(self._check, {n: tf.TensorSpec(None, s.dtype, n) for n, s in specs})
        self._dtype = dtype

    def learn(self, images: tf.Tensor, labels: tf.Tensor) -> Classifier:
        """The classifier of a support set: images [B, H, W, C], labels [B] int32."""
        adapted = self._learn(tf.cast(images, self._dtype), labels)
        return self.form.flatten(adapted, _ways(labels))

    def accept(self, classifier: Classifier) -> Classifier:
        """A classifier that came from outside, once all of its shapes are checked."""
        return self._accept(classifier)

    def answer(self, classifier: Classifier, images: tf.Tensor) -> Prediction:
        """'probabilities' [B, N] and 'labels' [B] int32 of queries [B, H, W, C]."""
        return self._answer(classifier, tf.cast(images, self._dtype))

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
        context = Context(self._model, n_way=n_way, steps=self._steps)
        logits, _ = self._learner.predict(context, self._meta(), self.form.pack(classifier), images)
        checks = Checks()
        ways = tf.shape(logits)[1]
        checks.require(ways == n_way, _MIXED, tf.stack([n_way, ways]))
        not_finite = tf.reduce_sum(tf.cast(~tf.math.is_finite(logits), tf.int32))
        checks.require(not_finite == 0, _DIVERGED, not_finite)
        with tf.control_dependencies(checks.passed):
            labels = tf.argmax(logits, -1, output_type=tf.int32)
            return {"probabilities": tf.nn.softmax(logits), "labels": labels}


def _ways(labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(labels) + 1


def _traced(function: Callable, *specs) -> tf.types.experimental.ConcreteFunction:
    attributes = {"_noinline": True}
    traced = tf.function(function, autograph=False, experimental_attributes=attributes)
    return traced.get_concrete_function(*specs)
