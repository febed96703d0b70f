# SPDX-License-Identifier: Apache-2.0
"""Whatever structure a learner returns becomes a flat dict of readable names, and comes back."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.learners import MAML, Learner
from tf_lwdgh.learners.base import OwnParameter
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks import backbones
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.serving.classifier import ClassifierForm
from tf_lwdgh.serving.module import ServingModule


class Pair(NamedTuple):
    first: object
    second: object


@pytest.fixture(scope="module")
def model() -> FunctionalModel:
    sizes = dict(image_size=8, channels=1, n_way=3, filters=2, blocks=1)
    return FunctionalModel(backbones.convnet4(**sizes))


def form(structure, model) -> ClassifierForm:
    return ClassifierForm(structure, structure, model)


def spec(*shape, dtype=tf.float32) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype)


NESTS = {
    "a tensor": (spec(2), ["adapted"]),
    "a tuple": ((spec(2), spec(3)), ["adapted_0", "adapted_1"]),
    "a named tuple": (Pair(spec(2), [spec(3)]), ["first", "second_0"]),
    "a dict": ({"b": spec(2), "a/c": (spec(3), spec())}, ["a_c_0", "a_c_1", "b"]),
    "names that clash": ({"a": {"b": spec(2)}, "a_b": spec(3)}, ["a_b", "a_b_"]),
    "names that are taken": ({"n_way": spec(), "query_images": spec(3)}, ["n_way_", "query_images_"]),
    "names that Python has": ({"lambda": spec(), "λ": spec(3)}, ["lambda_", "adapted"]),
    "nothing": ((), []),
}


@pytest.mark.parametrize("nest", NESTS)
def test_every_nest_gets_names_in_its_order_and_comes_back(model, nest):
    structure, names = NESTS[nest]
    made = form(structure, model)
    assert list(made.specs) == ["n_way", *names]
    values = iter(range(100))
    full = tf.nest.map_structure(lambda s: tf.fill(s.shape, float(next(values))), structure)
    flat = made.flatten(full, tf.constant(3))
    assert list(flat) == ["n_way", *names]
    back = made.pack(flat)
    tf.nest.assert_same_structure(back, full)
    for a, b in zip(tf.nest.flatten(back), tf.nest.flatten(full)):
        np.testing.assert_array_equal(a, b)


def test_lists_of_one_tensor_a_variable_are_named_by_the_variables(model):
    params = [spec(*v.shape) for v in model.variables]
    params[-2:] = [spec(params[-2].shape[0], None), spec(None)]
    state = [spec(*v.shape) for v in model.state_variables]
    made = form(Pair(params, (state, params[:-1])), model)
    expected = [f"first_{name.replace('/', '_')}" for name in model.names]
    expected += ["second_0_norm1_moving_mean", "second_0_norm1_moving_variance"]
    expected += [f"second_1_{i}" for i in range(len(params) - 1)]  # the head is not among them
    assert list(made.specs) == ["n_way", *expected]
    assert "first_conv1_kernel" in expected


def test_a_list_as_long_as_the_variables_but_of_other_shapes_is_numbered(model):
    made = form({"x": [spec(7)] * len(model.variables)}, model)
    assert list(made.specs) == ["n_way", *(f"x_{i}" for i in range(len(model.variables)))]


def test_what_is_no_tensor_is_refused_with_its_place(model):
    with pytest.raises(ValueError, match="structure of tensors.*Received: None at second/1"):
        form(Pair(spec(2), (spec(2), None)), model)


def test_sizes_that_are_the_ways_are_told_from_others(model):
    structure = [spec(None, 4), spec(3, None)]
    made = ClassifierForm(structure, [spec(3, 4), spec(3, None)], model)
    assert made.shapes == {"n_way": [], "adapted_0": ["n_way", 4], "adapted_1": [3, None]}


@dataclasses.dataclass(frozen=True)
class Neighbours(Learner):
    """Keeps the support set and answers by the nearest image, scaled by a parameter of its own."""

    reference: ClassVar[str] = "none"

    @property
    def any_way(self) -> bool:
        return True

    @property
    def depends_on_queries(self) -> bool:
        return False

    def own(self, model):
        return [OwnParameter("scale/all", tf.constant(2.0))]

    def adapt(self, context, meta, images, labels):
        flat = tf.reshape(images, [tf.shape(images)[0], -1])
        kept = {"seen": labels > 0, "hot": tf.one_hot(labels, context.ways, dtype=tf.int64)}
        return Pair(tf.cast(flat, tf.bfloat16), (kept, meta.own["scale/all"]))

    def predict(self, context, meta, adapted, images):
        memory, (kept, scale) = adapted
        assert memory.dtype == tf.bfloat16
        assert (kept["seen"].dtype, kept["hot"].dtype) == (tf.bool, tf.int64)
        flat = tf.reshape(images, [tf.shape(images)[0], 1, -1])
        distance = tf.reduce_sum(tf.square(flat - tf.cast(memory, tf.float32)), -1)
        nearest = tf.gather(kept["hot"], tf.argmin(distance, 1))
        return scale * tf.cast(nearest, tf.float32), []


def test_a_learner_of_any_kind_is_served(model, tmp_path):
    """Without inner steps, of many dtypes, with a parameter of its own, and with its support kept."""
    parameters = MetaParameters(model.keras_model, Neighbours())
    parameters.own["scale/all"].assign(3.0)
    module = ServingModule(parameters, ImageConfig(image_size=8, channels=1), inner_steps=5)
    parameters.own["scale/all"].assign(9.0)  # the module has a copy
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.signatures())
    loaded = tf.saved_model.load(str(tmp_path / "m"))
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)
    labels = [0, 1, 2, 3, 0, 1, 2, 3]
    classifier = loaded.adapt(images, labels)
    assert {k: v.dtype for k, v in classifier.items()} == {
        "n_way": tf.int32, "first": tf.float32, "second_0_hot": tf.int64, "second_0_seen": tf.bool,
        "second_1": tf.float32,
    }  # fmt: skip
    np.savez(tmp_path / "kept.npz", **classifier)
    answer = loaded.predict(dict(np.load(tmp_path / "kept.npz")), images[::-1])
    np.testing.assert_array_equal(answer["labels"], labels[::-1])
    odds = np.exp(3.0)
    np.testing.assert_allclose(np.max(answer["probabilities"], 1), odds / (odds + 3), rtol=1e-6)
    whole = loaded.adapt_and_predict(images, labels, images[::-1])
    np.testing.assert_array_equal(answer["probabilities"], whole["probabilities"])


def test_none_in_what_a_learner_returns_is_refused_before_anything_is_saved(model):
    class Gap(MAML):
        def adapt(self, context, meta, images, labels):
            return super().adapt(context, meta, images, labels), None

    parameters = MetaParameters(model.keras_model, Gap())
    with pytest.raises(ValueError, match="Received: None at 1"):
        ServingModule(parameters, ImageConfig(image_size=8, channels=1))
