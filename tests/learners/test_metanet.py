# SPDX-License-Identifier: Apache-2.0
"""MetaNet: its size, its fast weights, and answers by them written out query by query."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from tests.learners import tiny_tasks
from tf_lwdgh.learners import MetaNet
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.encoders import metanet_encoder

SMALL = MetaNet(filters=2, hidden=3)


def learned(params, meta, one, **told):
    """What a task taught, and the logits of its queries."""
    context, learner = tiny_tasks.context(params, training=False, **told), params.learner
    fast = learner.adapt(context, meta, one.support_images, one.support_labels)
    return fast, learner.predict(context, meta, fast, one.query_images)[0].numpy()


def maps(params, meta, images, of: str = "base") -> tf.Tensor:
    if of == "base":
        found, _ = params.model.features(meta.network, meta.state, images, training=True)
    else:
        found, _ = params.model.parts["encoder"](meta.own, meta.state, images, training=True)
    return tf.reshape(found, [-1, *params.model.map_shape])


def slow(meta, network: str) -> dict:
    return {n: meta.own[f"{network}/{n}/kernel"] for n in ("conv4", "conv5", "dense1", "dense2")}


def network(h: tf.Tensor, kernels: list[dict]) -> tuple[tf.Tensor, tf.Tensor]:
    """One image's map through layers of several kernels each: codes and logits."""
    h = h[None]
    for layer in ("conv4", "conv5"):
        h = sum(tf.nn.relu(tf.nn.conv2d(h, k[layer], 1, "SAME")) for k in kernels)
        h = tf.nn.max_pool2d(h, 2, 2, "SAME")
    h = tf.reshape(h, [1, -1])
    codes = [tf.matmul(h, k["dense1"]) for k in kernels]
    h = sum(map(tf.nn.relu, codes))
    return sum(codes)[0], sum(tf.matmul(h, k["dense2"]) for k in kernels if "dense2" in k)[0]


def test_sizes_are_the_authors():
    keras.utils.set_random_seed(0)
    encoder = metanet_encoder(n_way=10)
    params = MetaParameters(encoder, MetaNet())
    assert params.model.map_shape == (11, 11, 32)
    shapes = params.learner.shapes(params.model)
    assert shapes["dense1"] == (288, 288)
    assert sum(int(np.prod(s)) for s in shapes.values()) == 104_256


def test_without_fast_weights_it_is_the_slow_network():
    params, one = tiny_tasks.parameters(SMALL), tiny_tasks.task(tiny_tasks.episodes())
    meta = tiny_tasks.perturbed(params)
    own = {n: 0 * v if n.startswith("fast_") and "weight" in n else v for n, v in meta.own.items()}
    meta = meta._replace(own=own)
    fast, logits = learned(params, meta, one)
    assert all((w.numpy() == 0).all() for w in fast.weights.values())
    expected = [network(h, [slow(meta, "base")])[1] for h in maps(params, meta, one.query_images)]
    np.testing.assert_allclose(logits, expected, rtol=1e-9)


def test_a_query_is_answered_by_slow_weights_and_the_mean_of_fast_ones_that_it_attends_to():
    params, one = tiny_tasks.parameters(SMALL), tiny_tasks.task(tiny_tasks.episodes())
    meta = tiny_tasks.perturbed(params)
    fast, logits = learned(params, meta, one)
    for k, image in enumerate(zip(*(maps(params, meta, one.query_images, n) for n in ("base", "keys")))):
        code, _ = network(image[1], [slow(meta, "keys"), fast.key_weights])
        cosines = fast.codes.numpy() @ (code.numpy() / np.linalg.norm(code))
        a = special.softmax(cosines)
        mixed = {n: tf.constant(np.tensordot(a, w.numpy(), 1)) for n, w in fast.weights.items()}
        _, expected = network(image[0], [slow(meta, "base"), mixed])
        np.testing.assert_allclose(logits[k], expected, rtol=1e-8)


def _m(meta, kind: str, g: np.ndarray) -> np.ndarray:
    """The fast weights that m makes of gradients."""
    x = np.stack([np.log(np.maximum(np.abs(g), np.exp(-7))) / 7, np.clip(g * np.exp(7), -1, 1)], -1)
    for name in ("dense1", "dense2", "weight"):
        x = x @ meta.own[f"fast_{kind}/{name}/kernel"].numpy() + meta.own[f"fast_{kind}/{name}/bias"].numpy()
        x = np.maximum(x, 0) if name != "weight" else x
    return x[..., 0]


def test_fast_weights_are_made_of_each_image_s_own_gradient():
    params, one = tiny_tasks.parameters(SMALL), tiny_tasks.task(tiny_tasks.episodes())
    meta = tiny_tasks.perturbed(params)
    fast, _ = learned(params, meta, one)
    kernels = slow(meta, "base")
    for i, h in enumerate(maps(params, meta, one.support_images)):
        with tf.GradientTape() as tape:
            tape.watch(kernels)
            _, logits = network(h, [kernels])
            loss = tf.reduce_logsumexp(logits) - logits[one.support_labels[i]]
        for name, g in tape.gradient(loss, kernels).items():
            expected = _m(meta, "conv" if name.startswith("conv") else "dense", g.numpy())
            np.testing.assert_allclose(fast.weights[name][i], expected, rtol=1e-6, atol=1e-9)


def test_one_image_in_ten_makes_the_keys_network_s_fast_weights_and_the_task_s_key_chooses_it():
    params, one = tiny_tasks.parameters(SMALL), tiny_tasks.task(tiny_tasks.episodes())
    meta = tiny_tasks.perturbed(params)
    seen = [
        learned(params, meta, one, key=tf.constant([0, k], tf.int64))[0].key_weights["conv4"].numpy() for k in range(6)
    ]
    assert len({w.tobytes() for w in seen}) > 1
    again, _ = learned(params, meta, one, key=tf.constant([0, 0], tf.int64))
    np.testing.assert_array_equal(again.key_weights["conv4"], seen[0])


@pytest.mark.parametrize("name", ["filters", "hidden"])
def test_settings_out_of_range_name_their_binding(name):
    with pytest.raises(ValueError, match=f"MetaNet.{name} must be at least 1"):
        MetaNet(**{name: 0})
