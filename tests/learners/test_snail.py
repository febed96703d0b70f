# SPDX-License-Identifier: Apache-2.0
"""SNAIL: its size, and its reading of the support set once for all queries, against whole sequences."""

from __future__ import annotations

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from tests.learners import tiny_tasks
from tests.learners.tiny_tasks import answers
from tf_lwdgh.learners import SNAIL
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.learners.snail import Attention
from tf_lwdgh.networks.encoders import snail_resnet

SMALL = SNAIL(most_items=7, filters=2, attention=((2, 3), (3, 2)))
SMALL_ENCODER = {"image_size": 16, "widths": (2,)}


@pytest.mark.parametrize(("items", "count"), [(25, 8_529_790), (5, 4_747_646)])
def test_sizes_are_others(items, count):
    keras.utils.set_random_seed(0)
    encoder = snail_resnet(**SMALL_ENCODER)  # its 384 features count, and not how it comes to them
    params = MetaParameters(encoder, SNAIL(most_items=items))
    assert sum(int(np.prod(v.shape)) for v in params.own.values()) == count
    kernels = [params.own[f"attention1/{part}/kernel"].numpy() for part in ("query", "key")]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01


def whole(blocks, own: dict, x: np.ndarray) -> np.ndarray:
    """All steps of a sequence [T, C] through all blocks, by their equations."""
    for block in blocks:
        if isinstance(block, Attention):
            q, k, v = (
                x @ own[f"{block.name}/{p}/kernel"] + own[f"{block.name}/{p}/bias"] for p in ("query", "key", "value")
            )
            seen = [special.softmax(q[t] @ k[: t + 1].T / np.sqrt(block.keys)) @ v[: t + 1] for t in range(len(x))]
        else:
            kernel, bias = own[f"{block.name}/kernel"], own[f"{block.name}/bias"]
            seen = []
            for t in range(len(x)):
                early = t - block.dilation
                before = x[early] if early >= 0 else np.zeros(x.shape[1])
                a, b = np.split(before @ kernel[0] + x[t] @ kernel[1] + bias, 2)
                seen.append(np.tanh(a) * special.expit(b))
        x = np.hstack([x, seen])
    return x @ own["logits/kernel"] + own["logits/bias"]


@pytest.mark.parametrize("k_shot", [1, 2, 3])
def test_each_query_is_answered_as_the_last_item_of_a_sequence_of_its_own(k_shot):
    one, params = tiny_tasks.task(tiny_tasks.episodes(k_shot=k_shot)), tiny_tasks.parameters(SMALL)
    meta = tiny_tasks.perturbed(params)
    own = {name: v.numpy() for name, v in meta.own.items()}
    features = functools.partial(tiny_tasks.features, params, meta)
    known = np.hstack([features(one.support_images), np.eye(3)[one.support_labels]])
    key = tiny_tasks.context(params).task_key
    known = known[tf.random.experimental.stateless_shuffle(tf.range(len(known)), key, alg="philox")]
    blocks = SMALL.blocks(params.model)
    expected = [
        whole(blocks, own, np.vstack([known, np.hstack([q, np.zeros(3)])]))[-1] for q in features(one.query_images)
    ]
    np.testing.assert_allclose(answers(params, meta, one), expected, rtol=1e-8)


def test_an_item_changes_nothing_before_it():
    learner = dataclasses.replace(SMALL, batch_norm="global")  # else BatchNorm spreads the change
    params, one = tiny_tasks.parameters(learner), tiny_tasks.task(tiny_tasks.episodes())
    meta, context = tiny_tasks.perturbed(params), tiny_tasks.context(params, training=False)
    count = len(one.support_labels)
    order = tf.random.experimental.stateless_shuffle(tf.range(count), context.task_key, alg="philox").numpy()
    changed = one.support_images + tf.one_hot(order[4], count, dtype="float64")[:, None, None, None]
    before, after = (
        tf.nest.flatten(learner.adapt(context, meta, images, one.support_labels).memory)
        for images in (one.support_images, changed)
    )
    for a, b in zip(before, after):
        np.testing.assert_array_equal(a[:4], b[:4])
        assert np.abs(a - b)[4].max() > 1e-9


def test_the_order_is_drawn_by_the_task_s_key():
    one, params = tiny_tasks.task(tiny_tasks.episodes()), tiny_tasks.parameters(SMALL)
    meta = tiny_tasks.perturbed(params)
    keys = [tf.constant([0, k], tf.int64) for k in (1, 1, 2)]
    first, again, other = (answers(params, meta, one, key=key) for key in keys)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-6


def test_dropout_of_its_network_is_of_training_alone():
    keras.utils.set_random_seed(0)
    size = {"image_size": tiny_tasks.SIZE, "channels": tiny_tasks.CHANNELS, "n_way": 3}
    encoder = snail_resnet(**size, widths=(2,), n_features=4, dropout=0.5, dtype="float64")
    params = MetaParameters(encoder, SMALL)
    meta, one = params.values(), tiny_tasks.task(tiny_tasks.episodes())

    def loss(**told) -> float:
        return float(SMALL.objective(tiny_tasks.context(params, **told), meta, one).loss)

    assert loss() == loss() != loss(key=tf.constant([5, 6], tf.int64))
    np.testing.assert_array_equal(answers(params, meta, one), answers(params, meta, one))


@pytest.mark.parametrize(
    ("name", "value"),
    [("most_items", 0), ("filters", 0), ("attention", ()), ("attention", ((2, 0),))],
)
def test_settings_out_of_range_name_their_binding(name, value):
    with pytest.raises(ValueError, match=f"SNAIL.{name} must"):
        SNAIL(**{name: value})
