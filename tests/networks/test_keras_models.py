# SPDX-License-Identifier: Apache-2.0
"""Keras models as backbones: what is replaced, what is kept, and derivatives to second order."""

from __future__ import annotations

import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners import MAML
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.networks.keras_models import adopt, keras_application
from tf_lwdgh.networks.layers.batch_norm import BatchNormalization
from tf_lwdgh.networks.variables import leaves
from tf_lwdgh.outer.outer_gradients import outer_gradients
from tf_lwdgh.runs.experiment import Experiment
from tf_lwdgh.types import Episode

layers = keras.layers


@pytest.fixture(autouse=True)
def _names_of_a_fresh_process():
    keras.utils.clear_session()


def small(dtype="float64", **norm) -> keras.Model:
    """A model with BatchNorm on maps and on features, one of them in a model within it."""
    keras.utils.set_random_seed(0)
    with_dtype = {"dtype": dtype}
    inside = keras.Input((4, 4, 5), **with_dtype)
    y = layers.BatchNormalization(name="inner_norm", **with_dtype, **norm)(inside)
    bend = layers.Activation("tanh", name="bend", **with_dtype)
    block = keras.Model(inside, bend(y), name="block")
    images = keras.Input((8, 8, 2), **with_dtype)
    x = layers.Conv2D(5, 3, 2, "same", name="cut", **with_dtype)(images)
    x = block(x)
    x = layers.GlobalAveragePooling2D(name="pool", **with_dtype)(x)
    settings = {"epsilon": 0.01, "momentum": 0.5, **with_dtype, **norm}
    x = layers.BatchNormalization(name="last_norm", **settings)(x)
    return keras.Model(images, x, name="small")


def trained(model: keras.Model) -> keras.Model:
    """With weights and averages of no special values."""
    r = np.random.default_rng(1)
    model.set_weights([w + r.uniform(0.1, 0.5, w.shape) for w in model.get_weights()])
    return model


def features_of(copy: keras.Model) -> keras.Model:
    """An adopted model up to its head."""
    return keras.Model(copy.inputs[0], copy.layers[-1].input)


def images_of(size=8, channels=2, batch=4) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(batch, size, size, channels))


NORMS = pytest.mark.parametrize(
    "norm", [{}, {"center": False}, {"scale": False}, {"center": False, "scale": False}], ids=str
)


@NORMS
def test_the_copy_computes_what_the_model_does(norm):
    model = trained(small(**norm))
    copy = adopt(model, 3)
    images = images_of()
    np.testing.assert_allclose(features_of(copy)(images), model(images), atol=1e-12)
    in_training = features_of(copy)(images, training=True)
    np.testing.assert_allclose(in_training, model(images, training=True), atol=1e-10)
    norms = [x for _, x in leaves(copy) if isinstance(x, BatchNormalization)]
    assert [n.epsilon for n in norms] == [1e-3, 0.01]
    assert {n.momentum for n in norms} == {0.0}  # the meta-step averages
    names = FunctionalModel(copy).names
    assert ("inner_norm/gamma" in names) == norm.get("scale", True)
    assert ("last_norm/beta" in names) == norm.get("center", True)
    assert not any("moving" in name for name in names)


def test_the_model_itself_stays_as_it_was_and_can_be_adopted_again():
    model = trained(small())
    before = [w.copy() for w in model.get_weights()]
    copies = adopt(model, 3), adopt(model, 7)
    copies[0].set_weights([w + 1 for w in copies[0].get_weights()])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(features_of(copies[1])(images_of()), model(images_of()), atol=1e-12)
    assert [c.layers[-1].units for c in copies] == [3, 7]


def test_the_functional_view_equals_the_copy():
    copy = adopt(trained(small()), 3)
    view = FunctionalModel(copy)
    inputs = view.values(), view.state(), tf.constant(images_of())
    np.testing.assert_allclose(view.apply(*inputs, training=False)[0], copy(images_of()), atol=1e-12)
    _, state = view.apply(*inputs, training=True)
    cut = keras.Model(copy.inputs[0], copy.get_layer("cut").output)(images_of())
    np.testing.assert_allclose(state[0], np.mean(cut, (0, 1, 2)), atol=1e-12)
    np.testing.assert_allclose(state[1], np.var(cut, (0, 1, 2)), atol=1e-12)


def test_a_plain_network_equals_one_that_is_built_by_hand():
    """Convolution, BatchNorm, ReLU and a head, in a few lines of NumPy."""
    model = keras.Sequential(
        [keras.Input((4, 4, 2), dtype="float64"),
         layers.Conv2D(3, 1, name="conv", dtype="float64"),
         layers.BatchNormalization(name="norm", dtype="float64"), layers.ReLU(dtype="float64")]
    )  # fmt: skip
    copy = adopt(trained(model), 5)
    view = FunctionalModel(copy)
    assert view.names == [
        "conv/kernel", "conv/bias", "norm/gamma", "norm/beta", "head/kernel", "head/bias",
    ]  # fmt: skip
    kernel, bias, gamma, beta, head, offset = (np.asarray(v) for v in view.values())
    x = images_of(4)
    z = x @ kernel[0, 0] + bias
    z = gamma * (z - z.mean((0, 1, 2))) / np.sqrt(z.var((0, 1, 2)) + 1e-3) + beta
    expected = np.maximum(z, 0).mean((1, 2)) @ head + offset
    ours, _ = view.apply(view.values(), view.state(), tf.constant(x), training=True)
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_biases_that_batch_norm_cancels_are_in_no_unit():
    images = keras.Input((8, 8, 2))
    x = layers.Conv2D(3, 3, name="first")(images)
    x = layers.BatchNormalization(name="norm1")(x)
    x = layers.Conv2D(3, 3, activation="relu", name="bent")(x)
    x = y = layers.BatchNormalization(name="norm2")(x)
    x = layers.Conv2D(3, 1, name="branched")(x)
    x = layers.Add(name="sum")([layers.BatchNormalization(name="norm3")(x), y, x])
    view = FunctionalModel(adopt(keras.Model(images, x), 3))
    idle = [name for name, yes in zip(view.names, view.is_idle) if yes]
    assert idle == ["first/bias"]
    batch = tf.random.stateless_normal([6, 8, 8, 2], [0, 0])
    with tf.GradientTape() as tape:
        values = view.values()
        tape.watch(values)
        logits, _ = view.apply(values, view.state(), batch, training=True)
        loss = tf.reduce_sum(tf.sin(logits))
    norms = dict(zip(view.names, (float(tf.norm(g)) for g in tape.gradient(loss, values))))
    assert norms["first/bias"] < 1e-4 < 1e-3 < min(norms["bent/bias"], norms["branched/bias"])


def test_layers_in_models_within_the_model_have_short_names_where_they_are_unique():
    def part(name):
        conv = layers.Conv2D(2, 3, padding="same", name="conv")
        return keras.Sequential([keras.Input((8, 8, 2)), conv], name=name)

    images = keras.Input((8, 8, 2))
    x = layers.Conv2D(2, 1, name="own")(part("second")(part("first")(images)))
    view = FunctionalModel(adopt(keras.Model(images, x), 3))
    assert view.layer_names == [
        "first/conv", "first/conv", "second/conv", "second/conv", "own", "own", "head", "head",
    ]  # fmt: skip
    assert view.names[:2] == ["first/conv/kernel", "first/conv/bias"]


def test_variables_of_a_layer_of_several_have_the_names_of_the_inner_ones():
    images = keras.Input((4, 4, 2))
    x = layers.Reshape((16, 2), name="rows")(images)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    view = FunctionalModel(adopt(keras.Model(images, x), 3))
    assert view.names[:2] == ["attention/query/kernel", "attention/query/bias"]
    assert len(set(view.names)) == len(view.names)
    assert set(view.layer_names) == {"attention", "head"}


def test_operations_of_keras_are_copied():
    images = keras.Input((4, 4, 2))
    model = keras.Model(images, keras.ops.relu(images) * 2 + images)
    x = images_of(4).astype("float32")
    expected = np.mean(np.maximum(x, 0) * 2 + x, (1, 2))
    np.testing.assert_allclose(features_of(adopt(model, 3))(x), expected, atol=1e-6)


def test_a_normalization_becomes_constant_and_scaling_is_left_out_on_request():
    images = keras.Input((4, 4, 2))
    x = layers.Rescaling(0.5, name="halve")(images)
    x = layers.Normalization(name="normalize")(x)
    model = keras.Model(images, layers.Conv2D(3, 3, name="conv")(x))
    model.get_layer("normalize").adapt(images_of(4) * 3 + 1)
    kept, dropped = adopt(model, 3), adopt(model, 3, drop_scaling=True)
    x = images_of(4)
    for copy, map_of in ((kept, model), (dropped, model.get_layer("conv"))):
        np.testing.assert_allclose(features_of(copy)(x), np.mean(map_of(x), (1, 2)), atol=1e-5)
    assert FunctionalModel(kept).state_variables == []


def meta_batch(size=8, channels=2, dtype=tf.float64) -> Episode:
    r = np.random.default_rng(3)
    labels = tf.constant(np.tile(np.repeat(np.arange(3, dtype=np.int32), 2), (1, 1)))
    images = [tf.constant(r.normal(size=(1, 6, size, size, channels)), dtype) for _ in range(2)]
    return Episode(images[0], labels, images[1], labels)


@pytest.mark.parametrize("norm", [{}, {"center": False, "scale": False}], ids=["affine", "plain"])
def test_the_outer_gradient_through_batch_norm_is_right(norm):
    """Two inner steps, so that it holds second derivatives, against central differences."""
    parameters = MetaParameters(adopt(trained(small(**norm)), 3), MAML(inner_loop=InnerLoop(steps=2, inner_lr=0.5)))
    episodes, meta = meta_batch(), parameters.values()

    @tf.function(autograph=False)
    def run(values):
        return outer_gradients(parameters, episodes, meta=parameters.replaced(meta, values))

    values = parameters.flatten(meta)
    gradients = run(values).gradients
    r = np.random.default_rng(4)
    for _ in range(3):
        along = [tf.constant(r.normal(size=v.shape)) for v in values]
        ends = [run([v + h * d for v, d in zip(values, along)]).losses[0] for h in (1e-5, -1e-5)]
        slope = sum(float(tf.reduce_sum(g[0] * d)) for g, d in zip(gradients, along))
        assert slope == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-6)


@pytest.mark.slow
def test_an_application_of_keras_learns():
    keras.utils.set_random_seed(0)
    model = keras_application(image_size=32, channels=3, n_way=3, name="MobileNet", options={"alpha": 0.25})
    parameters = MetaParameters(model, MAML(inner_loop=InnerLoop(steps=1, inner_lr=0.01)))
    assert parameters.names[:2] == ["conv1/kernel", "conv1_bn/gamma"]
    assert len(parameters.units("variable")) == len(parameters.names)  # no bias is cancelled
    episodes = meta_batch(32, 3, tf.float32)
    outcome = tf.function(lambda: outer_gradients(parameters, episodes), autograph=False)()
    norms = [float(tf.norm(g)) for g in outcome.gradients]
    assert np.isfinite(norms).all() and sum(n > 0 for n in norms) > 0.9 * len(norms)


def test_mobilenet_v2_computes_what_keras_does_and_takes_its_weights_from_a_file(tmp_path):
    settings = {"alpha": 0.35}
    theirs = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3), **settings)
    path = str(tmp_path / "some.weights.h5")
    theirs.save_weights(path)
    ours = keras_application(image_size=32, n_way=5, weights=path, options=settings)
    assert ours.name.startswith("mobilenetv2") and ours.layers[-1].units == 5
    x = images_of(32, 3).astype("float32")
    expected = np.mean(theirs(x), (1, 2))
    np.testing.assert_allclose(features_of(ours)(x), expected, rtol=1e-3, atol=1e-5)


def test_an_application_may_be_float64_and_leaves_the_policy_as_it_was():
    before = keras.config.dtype_policy().name
    with pytest.raises(ValueError, match="filters"):
        keras_application(image_size=32, name="MobileNet", dtype="float64", options={"alpha": -1.0})
    assert keras.config.dtype_policy().name == before
    model = keras_application(image_size=32, n_way=3, name="MobileNet", dtype="float64", options={"alpha": 0.25})
    assert {v.dtype for v in model.variables} == {"float64"}
    assert keras.config.dtype_policy().name == before


def test_an_experiment_names_an_application_in_gin(tmp_path):
    config.parse(
        ["gin/base.gin", "gin/learners/maml.gin"],
        ["DatasetConfig.name = 'any'", "Experiment.backbone = @keras_application", "IMAGE_SIZE = 32",
         "keras_application.name = 'MobileNet'", "keras_application.options = {'alpha': 0.25}"],
    )  # fmt: skip
    assembly = Experiment().build(None)
    assert assembly.keras_model.layers[-1].units == 5
    assert assembly.parameters.names[0] == "conv1/kernel"


def test_an_adopted_model_survives_saving_and_loading(tmp_path):
    copy = adopt(trained(small()), 3)
    copy.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(images_of()), copy(images_of()))


def test_a_backbone_with_the_norm_of_keras_is_refused():
    images = keras.Input((8, 8, 2))
    x = layers.BatchNormalization(name="theirs")(layers.Flatten()(images))
    with pytest.raises(ValueError, match=r"Take keras_models.adopt.* Received: 'theirs'"):
        FunctionalModel(keras.Model(images, layers.Dense(3, name="head")(x)))


def test_the_documented_network_is_a_backbone():
    text = (pathlib.Path(__file__).parents[2] / "docs/keras_backbones.md").read_text("utf-8")
    names = {"__name__": "documented"}
    exec(compile(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], "documented", "exec"), names)
    view = FunctionalModel(names["my_network"](image_size=8, channels=3, n_way=5))
    assert view.names[:3] == ["conv1/kernel", "conv1/bias", "norm1/gamma"]
    assert view.n_way == 5 and any(view.is_batch_norm)


def test_the_documented_bindings_name_settings_that_exist(tmp_path, monkeypatch):
    text = (pathlib.Path(__file__).parents[2] / "docs/keras_backbones.md").read_text("utf-8")
    lines = [line.strip() for line in text.splitlines() if re.match(r"    ([A-Z_]+|\w+\.\w+) = ", line)]
    assert len(lines) >= 5
    defined = ["DatasetConfig.name = 'any'", "Experiment.backbone = @keras_application"]
    config.parse(["gin/base.gin"], defined + [x for x in lines if "my_network" not in x])
