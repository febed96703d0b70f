# SPDX-License-Identifier: Apache-2.0
"""The functions of a SavedModel, of one task and of a batch of them, with all checks in their graphs.

TensorFlow's polymorphic functions (2.21) take a lock, bind the inputs, and keep the lock where an
input does not bind: every later call from another thread then waits for ever. So what is made here
are concrete functions, which take no lock. They bind inputs of any rank, so that the checks in the
graph can say what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import tensorflow as tf

from tf_lwdgh.data.images import ImageConfig, decode
from tf_lwdgh.serving.checks import Checks
from tf_lwdgh.serving.classifier import N_WAY
from tf_lwdgh.serving.graphs import Classifier, TaskGraphs, concrete

Function: TypeAlias = tf.types.experimental.ConcreteFunction

# How images come, by the end of the functions' names.
IMAGES = {"": tf.uint8, "_float": tf.float32, "_bytes": tf.string}
NAMES = ("adapt", "predict", "adapt_and_predict")
TASKS = "_tasks"  # after a name: of a batch of tasks, all tensors with one more leading axis
AT_ONCE = 4  # tasks of a batch
_PREDICTION = {
    "probabilities": tf.TensorSpec([None, None], tf.float32),
    "labels": tf.TensorSpec([None], tf.int32),
}


class Functions:
    """adapt, predict and adapt_and_predict, of one task or of many, for one kind of images.

    Args:
      graphs: what learns and answers.
      image_config: the images' size, and how encoded ones are resized.
      most_ways: that the learner takes; None: any number.
    """

    def __init__(self, graphs: TaskGraphs, image_config: ImageConfig, most_ways: int | None) -> None:
        self._graphs, self._images, self._most_ways = graphs, image_config, most_ways

    def concrete(self) -> dict[str, Function]:
        """Every function by its name, such as 'adapt_tasks_float'.

        Labels are float32, so that fractions arrive as what they are: NumPy's would come in an int32
        silently cut down.
        """
        found = {}
        self._apart = concrete(_told_apart, self._specs(tf.uint8)[2], tf.TensorSpec([], tf.int32))
        for suffix, dtype in IMAGES.items():
            of_one = self._of_one(dtype)
            for batch, functions in (("", of_one), (TASKS, self._of_many(dtype, *of_one))):
                found.update({n + batch + suffix: f for n, f in zip(NAMES, functions, strict=True)})
        return found

    def signatures(self, functions: Mapping[str, Function]) -> dict[str, Function]:
        """The functions as signatures, which name the sizes that they take, and labels as int32."""
        return {
            name + batch + suffix: self._signature(functions, name, batch, suffix)
            for suffix in IMAGES
            for batch in ("", TASKS)
            for name in NAMES
        }

    def _signature(self, functions: Mapping[str, Function], name: str, batch: str, suffix: str) -> Function:
        function = functions[name + batch + suffix]
        form, leading = self._graphs.form.specs, [None] * bool(batch)
        # TensorFlow Serving's REST interface wants this end in a name whose value is base64.
        end = "_bytes" if suffix == "_bytes" else ""
        sizes = [None] if end else [None, *self._images.shape]
        images = {
            f"{role}_images{end}": tf.TensorSpec(leading + sizes, IMAGES[suffix]) for role in ("support", "query")
        }
        support, query = images
        labels = {"support_labels": tf.TensorSpec([*leading, None], tf.int32)}
        classifier = {n: tf.TensorSpec(leading + s.shape, s.dtype) for n, s in form.items()}

        def call(**tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            if name == "predict":
                return function({n: tensors[n] for n in form}, tensors[query])
            taught = tensors[support], tf.cast(tensors["support_labels"], tf.float32)
            return function(*taught) if name == "adapt" else function(*taught, tensors[query])

        taken = {
            "adapt": {support: images[support], **labels},
            "predict": {query: images[query], **classifier},
            "adapt_and_predict": {**images, **labels},
        }[name]
        named = {n: tf.TensorSpec(spec.shape, spec.dtype, n) for n, spec in taken.items()}
        return tf.function(call, autograph=False).get_concrete_function(**named)

    def _of_one(self, dtype: tf.DType) -> tuple[Function, ...]:
        support, labels, classifier, query = self._specs(dtype)
        taught, asked = concrete(self._support, support, labels), concrete(self._queries, query)

        @_concretely(support, labels)
        def adapt(support_images, support_labels):
            return self._graphs.learn(*taught(support_images, support_labels))

        @_concretely(classifier, query)
        def predict(classifier, query_images):
            queries = asked(query_images)
            return self._graphs.answer(self._graphs.accept(classifier), queries)

        @_concretely(support, labels, query)
        def adapt_and_predict(support_images, support_labels, query_images):
            images, labels = taught(support_images, support_labels)
            with tf.control_dependencies([images]):  # of several faults the first is the one told
                queries = asked(tf.identity(query_images))
            with tf.control_dependencies([queries]):  # nothing is learned where they are refused
                images = tf.identity(images)
            return self._graphs.answer(self._graphs.learn(images, labels), queries)

        return adapt, predict, adapt_and_predict

    def _of_many(
        self, dtype: tf.DType, adapt_one: Function, predict_one: Function, whole_one: Function
    ) -> tuple[Function, ...]:
        support, labels, classifier, query = self._specs(dtype)
        form = self._graphs.form.specs.items()
        learned = {name: tf.TensorSpec(spec.shape, spec.dtype) for name, spec in form}

        @_concretely(support, labels)
        def adapt_tasks(support_images, support_labels):
            return _each(adapt_one, self._tasks(support_images, support_labels), learned)

        @_concretely(classifier, query)
        def predict_tasks(classifier, query_images):
            checks = Checks()
            images = self._batched(checks, "query_images", query_images)
            tensors = self._apart(classifier, tf.shape(images)[0])
            return _each(predict_one, (tensors, checks.guarded(images)), _PREDICTION)

        @_concretely(support, labels, query)
        def adapt_and_predict_tasks(support_images, support_labels, query_images):
            inputs = self._tasks(support_images, support_labels, query_images)
            return _each(whole_one, inputs, _PREDICTION)

        return adapt_tasks, predict_tasks, adapt_and_predict_tasks

    def _specs(self, dtype: tf.DType) -> tuple:
        """Of support images, labels, a classifier and queries, of any rank."""
        form = self._graphs.form.specs.items()
        return (
            tf.TensorSpec(None, dtype, "support_images"),
            tf.TensorSpec(None, tf.float32, "support_labels"),
            {name: tf.TensorSpec(None, spec.dtype, name) for name, spec in form},
            tf.TensorSpec(None, dtype, "query_images"),
        )

    def _support(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        checks = Checks()
        images = checks.images("support_images", images, self._images.shape)
        labels = checks.labels(labels, tf.shape(images)[0], self._most_ways)
        return self._decoded(checks.guarded(images)), labels

    def _queries(self, images: tf.Tensor) -> tf.Tensor:
        checks = Checks()
        images = checks.images("query_images", images, self._images.shape)
        most = self._graphs.most_queries
        if most is not None:
            count = tf.shape(images)[0]
            rule = f"query_images: a call may have at most {most} queries, since each answer depends on all of them"
            checks.require(count <= most, rule, count)
        return self._decoded(checks.guarded(images))

    def _decoded(self, images: tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, C], from strings too."""
        return decode(images, self._images) if images.dtype == tf.string else images

    def _tasks(self, images: tf.Tensor, labels: tf.Tensor, *queries: tf.Tensor) -> tuple:
        """The inputs of a batch of tasks, once it is checked that they can be told apart."""
        checks = Checks()
        images = self._batched(checks, "support_images", images)
        labels = checks.shaped("support_labels", labels, [None, None])
        counts = tf.stack([tf.shape(images)[:2], tf.shape(labels)])
        rule = "support_images and support_labels must be of as many tasks and images"
        checks.require(tf.reduce_all(counts[0] == counts[1]), rule, counts)
        asked = [self._batched(checks, "query_images", x) for x in queries]
        for batch in asked:
            counts = tf.stack([tf.shape(images)[0], tf.shape(batch)[0]])
            rule = "support_images and query_images must be of as many tasks"
            checks.require(counts[0] == counts[1], rule, counts)
        ways = tf.reduce_max(checks.guarded(labels), 1) + 1
        rule = "support_labels: all tasks of a call must have the same number of ways"
        checks.require(tf.reduce_all(ways == ways[:1]), rule, ways)
        return tuple(checks.guarded(x) for x in (images, labels, *asked))

    def _batched(self, checks: Checks, name: str, images: tf.Tensor) -> tf.Tensor:
        size = [] if images.dtype == tf.string else self._images.shape
        images = checks.shaped(name, images, [None, None, *size])
        count = tf.shape(images)[0]
        checks.require(count > 0, f"{name}: there must be at least one task", count)
        return checks.guarded(images)


def _told_apart(classifier: Classifier, n_tasks: tf.Tensor) -> Classifier:
    """The classifiers of a batch of tasks, once it is checked that each tensor has as many."""
    checks = Checks()
    for name, tensor in classifier.items():
        shape = tf.shape(tensor)
        first = tf.concat([shape, [-1]], 0)[0]
        rule = f"classifier: {name} must have a leading axis of as many tasks as query_images"
        checks.require(first == n_tasks, rule, tf.concat([shape[:1], [n_tasks]], 0))
    known = {name: checks.guarded(tensor) for name, tensor in classifier.items()}
    ways = checks.guarded(tf.reshape(known[N_WAY], [-1]))
    rule = "classifier: all tasks of a call must have the same number of ways"
    checks.require(tf.reduce_all(ways == ways[:1]), rule, ways)
    return {name: checks.guarded(tensor) for name, tensor in known.items()}


def _each(function: Callable, inputs: tuple, specs: dict[str, tf.TensorSpec]):
    @tf.autograph.experimental.do_not_convert
    def one(task: tuple):
        return function(*task)

    return tf.map_fn(one, inputs, fn_output_signature=specs, parallel_iterations=AT_ONCE)


def _concretely(*specs) -> Callable[[Callable], Function]:
    """A decorator: the concrete function of inputs of these specs."""
    return lambda function: concrete(function, *specs)
