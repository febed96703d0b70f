"""Keras models as backbones: what is replaced, what is kept, what is refused, and derivatives to second order."""

import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh.learners import MAML
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.networks.keras_models import adopt, keras_application, leaves
from tf_lwdgh.networks.layers.batch_norm import BatchNormalization
from tf_lwdgh.outer.outer_gradients import outer_gradients
from tf_lwdgh.types import Episode


def small(dtype="float64", **norm) -> keras.Model:
    """A model with BatchNorm on maps and on features, one of them in a model within it."""
    keras.utils.set_random_seed(0)
    with_dtype = {"dtype": dtype}
    inside = keras.Input((4, 4, 5), **with_dtype)
    y = keras.layers.BatchNormalization(name="inner_norm", **with_dtype, **norm)(inside)
    bend = keras.layers.Activation("tanh", name="bend", **with_dtype)
    block = keras.Model(inside, bend(y), name="block")
    images = keras.Input((8, 8, 2), **with_dtype)
    x = keras.layers.Conv2D(5, 3, 2, "same", name="cut", **with_dtype)(images)
    x = block(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool", **with_dtype)(x)
    x = keras.layers.BatchNormalization(name="last_norm", epsilon=0.01, **with_dtype, **norm)(x)
    return keras.Model(images, x, name="small")


def trained(model: keras.Model) -> keras.Model:
    """With weights and averages of no special values."""
    r = np.random.default_rng(1)
    model.set_weights([w + r.uniform(0.1, 0.5, w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("norm", [{}, {"center": False}, {"scale": False}], ids=str)
def test_the_copy_computes_what_the_model_does(norm):
    model = trained(small(**norm))
    copy = adopt(model, 3)
    images = np.random.default_rng(2).normal(size=(4, 8, 8, 2))
    features = keras.Model(copy.inputs, copy.layers[-1].input)(images)
    np.testing.assert_allclose(features, model(images), atol=1e-12)
    norms = [layer for layer in leaves(copy) if isinstance(layer, BatchNormalization)]
    assert [n.epsilon for n in norms] == [1e-3, 0.01]
    assert not [x for x in leaves(copy) if isinstance(x, keras.layers.BatchNormalization)]
    assert "inner_norm/moving_mean" not in FunctionalModel(copy).names
    assert ("inner_norm/gamma" in FunctionalModel(copy).names) == norm.get("scale", True)


def test_a_map_is_averaged_and_a_sequential_model_will_do():
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
    )
    view = FunctionalModel(adopt(model, 5))
    assert view.n_features == 4 and view.n_way == 5 and view.image_shape == (8, 8, 1)


def meta_batch(size=8, channels=2, dtype=tf.float64) -> Episode:
    r = np.random.default_rng(3)
    labels = tf.constant(np.tile(np.repeat(np.arange(3, dtype=np.int32), 2), (1, 1)))
    images = [tf.constant(r.normal(size=(1, 6, size, size, channels)), dtype) for _ in range(2)]
    return Episode(images[0], labels, images[1], labels)


def test_the_outer_gradient_through_batch_norm_is_right():
    """Two inner steps, so that it holds second derivatives, against central differences."""
    parameters = MetaParameters(
        adopt(trained(small()), 3), MAML(inner_loop=InnerLoop(steps=2, inner_lr=0.5))
    )
    episodes, meta = meta_batch(), parameters.values()

    @tf.function
    def run(values):
        return outer_gradients(parameters, episodes, meta=parameters.replaced(meta, values))

    values = parameters.flatten(meta)
    gradients = run(values).gradients
    r = np.random.default_rng(4)
    for _ in range(3):
        along = [tf.constant(r.normal(size=v.shape)) for v in values]
        ends = [
            run([v + h * d for v, d in zip(values, along)]).losses[0] for h in (1e-5, -1e-5)
        ]
        slope = sum(float(tf.reduce_sum(g[0] * d)) for g, d in zip(gradients, along))
        assert slope == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_an_application_of_keras_learns():
    keras.utils.set_random_seed(0)
    model = keras_application(
        image_size=32, channels=3, n_way=3, name="MobileNet", options={"alpha": 0.25}
    )
    assert not [x for x in leaves(model) if isinstance(x, keras.layers.BatchNormalization)]
    parameters = MetaParameters(model, MAML(inner_loop=InnerLoop(steps=1, inner_lr=0.01)))
    episodes = meta_batch(32, 3, tf.float32)
    outcome = tf.function(lambda: outer_gradients(parameters, episodes))()
    norms = [float(tf.norm(g)) for g in outcome.gradients]
    assert np.isfinite(norms).all() and sum(n > 0 for n in norms) > 0.9 * len(norms)


def test_what_cannot_be_a_backbone_is_refused():
    images = keras.Input((8, 8, 1))
    noisy = keras.Model(images, keras.layers.Dropout(0.5, name="drop")(images))
    with pytest.raises(ValueError, match="drop_noise=True .* Received: Dropout named 'drop'"):
        adopt(noisy, 5)
    assert "drop" in [x.name for x in adopt(noisy, 5, drop_noise=True).layers]
    wrong = keras.Model(images, keras.layers.BatchNormalization(axis=1, name="rows")(images))
    with pytest.raises(ValueError, match="over the last axis .* Received: axis 1 of .* in 'rows'"):
        adopt(wrong, 5)
    shared = keras.layers.Dense(1, name="shared")
    with pytest.raises(ValueError, match="used once.* Received: 'shared', used 2 times"):
        adopt(keras.Model(images, shared(shared(images))), 5)
    with pytest.raises(ValueError, match="one input and one output. Received: 1 and 2"):
        adopt(keras.Model(images, [images, keras.layers.Flatten()(images)]), 5)
    with pytest.raises(ValueError, match=r"to features .* Received: .* to \(None, 8, 8\)"):
        adopt(keras.Model(images, keras.layers.Reshape((8, 8))(images)), 5)
    with pytest.raises(ValueError, match="keras_application.name must be one of .*MobileNetV2"):
        keras_application(name="NoNet")


def test_the_documented_network_is_a_backbone():
    text = (pathlib.Path(__file__).parents[2] / "docs/keras_backbones.md").read_text("utf-8")
    names = {"__name__": "documented"}
    exec(compile(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], "documented", "exec"), names)
    view = FunctionalModel(names["my_network"](image_size=8, channels=3, n_way=5))
    assert view.names[:3] == ["conv1/kernel", "conv1/bias", "norm1/gamma"]
    assert view.n_way == 5 and any(view.is_batch_norm)
