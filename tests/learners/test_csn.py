# SPDX-License-Identifier: Apache-2.0
"""Conditionally shifted neurons against their equations, unit by unit."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from tests.learners import tiny_tasks
from tf_lwdgh.learners import CSN
from tf_lwdgh.learners.log_and_sign import log_and_sign
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.backbones import convnet4
from tf_lwdgh.types import Meta

SETTINGS = {"hidden": 3, "key_filters": 2}
BOTH = pytest.mark.parametrize("information", ["gradient", "feedback"])


def parameters(**settings) -> MetaParameters:
    return tiny_tasks.parameters(CSN(**SETTINGS, **settings), hooked=True)


def learned(params, meta, one):
    """The memory of a task, and the logits of its queries."""
    context, learner = tiny_tasks.context(params, training=False), params.learner
    memory = learner.adapt(context, meta, one.support_images, one.support_labels)
    return memory, learner.predict(context, meta, memory, one.query_images)[0].numpy()


def with_own(meta: Meta, **changes) -> Meta:
    """The values with those of the own parameters replaced whose names begin so, by multiples."""
    own = {
        name: next((k * v for start, k in changes.items() if name.startswith(start)), v) for name, v in meta.own.items()
    }
    return meta._replace(own=own)


def plain(params, meta, images) -> np.ndarray:
    """The network's own logits by batch statistics."""
    return params.model.apply(meta.network, meta.state, images, training=True)[0].numpy()


@BOTH
def test_values_of_zero_leave_the_network_as_it_is(information):
    params, one = parameters(information=information), tiny_tasks.task(tiny_tasks.episodes())
    meta = with_own(tiny_tasks.perturbed(params), value_=0.0)
    _, logits = learned(params, meta, one)
    np.testing.assert_allclose(logits, plain(params, meta, one.query_images), rtol=1e-10)


def test_equal_keys_read_the_mean_of_the_memory():
    params, one = parameters(), tiny_tasks.task(tiny_tasks.episodes())
    meta = with_own(tiny_tasks.perturbed(params), **{"key/norm4/gamma": 0.0})
    memory, logits = learned(params, meta, one)
    mean = {name: tf.repeat(tf.reduce_mean(v, 0)[None], len(v), 0) for name, v in memory.values.items()}
    context = tiny_tasks.context(params, training=False)
    same, _ = params.learner.predict(context, meta, memory._replace(values=mean), one.query_images)
    np.testing.assert_allclose(logits, same, rtol=1e-9)


@BOTH
def test_the_memory_holds_what_v_makes_of_each_image_s_loss(information):
    """The last layer's units feed the head alone, so that their gradients are known in closed form."""
    params, one = parameters(information=information), tiny_tasks.task(tiny_tasks.episodes())
    meta, found = tiny_tasks.perturbed(params), {}

    def hook(name, a):
        found[name] = a.numpy()
        return params.model.hooked[name].activation(a)

    features, _ = params.model.features(meta.network, meta.state, one.support_images, training=True, hook=hook)
    logits = params.model.head(meta.network, features).numpy()
    errors = special.softmax(logits, 1) - np.eye(tiny_tasks.N_WAY)[one.support_labels]
    a = found["relu2"]
    if information == "feedback":
        told = {
            "relu2": (a > 0)[..., None] * errors[:, None, None, None],
            "logits": errors[:, :, None] * errors[:, None],
        }
    else:
        told = {"relu2": _unpooled(errors @ meta.network[-2].numpy().T, a), "logits": errors}
        told = {name: log_and_sign(tf.constant(g), 7.0).numpy() for name, g in told.items()}
    memory, _ = learned(params, meta, one)
    assert set(memory.values) == {"relu2", "logits"}
    for name, x in told.items():
        np.testing.assert_allclose(memory.values[name], _v(meta, name, x), rtol=1e-7, atol=1e-10)


def _unpooled(g: np.ndarray, a: np.ndarray) -> np.ndarray:
    """The gradient before 2×2 max-pooling and ReLU, of that of the features laid out flat."""
    s, height, width, channels = a.shape
    wide = g.reshape(s, height // 2, width // 2, channels).repeat(2, 1).repeat(2, 2)
    h = np.maximum(a, 0)
    blocks = h.reshape(s, height // 2, 2, width // 2, 2, channels).max((2, 4))
    return wide * (h == blocks.repeat(2, 1).repeat(2, 2)) * (a > 0)


def _v(meta: Meta, layer: str, x: np.ndarray) -> np.ndarray:
    for name in ("dense1", "dense2", "value"):
        kernel, bias = (meta.own[f"value_{layer}/{name}/{kind}"] for kind in ("kernel", "bias"))
        x = x @ kernel.numpy() + bias.numpy()
        x = np.maximum(x, 0) if name != "value" else x
    return x[..., 0]


def test_a_query_s_units_are_shifted_by_what_it_attends_to():
    params, one = parameters(), tiny_tasks.task(tiny_tasks.episodes())
    meta = tiny_tasks.perturbed(params)
    memory, logits = learned(params, meta, one)
    context = tiny_tasks.context(params)
    keys = params.learner._keys(context, meta, meta.state, one.query_images, True)[0].numpy()
    attention = special.softmax(keys @ memory.keys.numpy().T, axis=1)
    np.testing.assert_allclose(np.linalg.norm(memory.keys, axis=1), 1, rtol=1e-9)
    beta = {n: np.tensordot(attention, v.numpy(), 1) for n, v in memory.values.items()}

    def hook(name, a):
        rho = np.maximum(a.numpy(), 0)
        return tf.constant(rho + np.maximum(beta[name], 0) if name in beta else rho)

    features, _ = params.model.features(meta.network, meta.state, one.query_images, training=True, hook=hook)
    expected = params.model.head(meta.network, features).numpy() + beta["logits"]
    np.testing.assert_allclose(logits, expected, rtol=1e-9)


def test_numbers_of_any_size_become_two_of_moderate_size():
    x = np.array([0.0, 1e-9, -np.exp(-7), 0.01, -1.0, 20.0])
    expected = [[-1, 0], [-1, 1e-9 * np.exp(7)], [-1, -1], [np.log(0.01) / 7, 1], [0, -1], [np.log(20) / 7, 1]]
    np.testing.assert_allclose(log_and_sign(tf.constant(x), 7.0), expected, rtol=1e-12, atol=1e-12)


def test_which_layers_are_shifted_is_a_setting():
    assert parameters().learner.shifted(parameters().model) == ["relu2"]
    params = parameters(layers=("relu*",))
    assert params.learner.shifted(params.model) == ["relu1", "relu2"]


def test_a_network_without_such_layers_is_refused():
    with pytest.raises(ValueError, match="CSN.layers must name layers .* convnet4 has none"):
        MetaParameters(convnet4(image_size=8, blocks=1), CSN())
    with pytest.raises(ValueError, match=r"adacnn has relu1, relu2. Received: CSN.layers = \('x',\)"):
        parameters(layers=("x",))


def test_keys_of_different_images_differ_from_the_start():
    params, one = tiny_tasks.parameters(CSN(), hooked=True), tiny_tasks.task(tiny_tasks.episodes())
    meta, context = params.values(), tiny_tasks.context(params)
    keys = params.learner._keys(context, meta, meta.state, one.query_images, True)[0].numpy()
    cosines = (keys @ keys.T)[np.triu_indices(len(keys), 1)]
    assert cosines.max() < 0.95 and np.median(cosines) < 0.8
