# SPDX-License-Identifier: Apache-2.0
"""Matching networks against their definition in NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from tests.learners import tiny_tasks
from tests.learners.tiny_tasks import features
from tf_lwdgh.learners import MatchingNetwork
from tf_lwdgh.types import Meta


def asked(learner, one, meta=None, params=None, **told) -> np.ndarray:
    """Logits of a task's queries after training."""
    params = params or tiny_tasks.parameters(learner)
    meta = meta or params.values()
    return tiny_tasks.answers(params, meta, one, **told)


def attended(queries, support, labels, scale) -> np.ndarray:
    """Probabilities of eq. 1 of the paper, with cosines."""
    cosines = (queries @ support.T) / np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(support, axis=1))
    weights = special.softmax(scale * cosines, axis=1)
    return weights @ np.eye(tiny_tasks.N_WAY)[labels]


def test_probabilities_are_the_attention_on_each_class():
    learner, one = MatchingNetwork(scale=3.0), tiny_tasks.task(tiny_tasks.episodes(k_shot=3))
    params = tiny_tasks.parameters(learner)
    meta = params.values()
    support, queries = (features(params, meta, x) for x in (one.support_images, one.query_images))
    expected = attended(queries, support, one.support_labels.numpy(), 3.0)
    found = np.exp(asked(learner, one, params=params))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("scale", [0.1, 1.0, 40.0])
def test_with_one_shot_the_nearest_image_by_cosine_decides_at_any_scale(scale):
    one = tiny_tasks.task(tiny_tasks.episodes(k_shot=1, n_query=5))
    learner = MatchingNetwork(scale=scale, learned_scale=False)
    params = tiny_tasks.parameters(learner)
    meta = params.values()
    assert not params.own
    support, queries = (features(params, meta, x) for x in (one.support_images, one.query_images))
    cosines = attended(queries, support, one.support_labels.numpy(), 1.0)
    np.testing.assert_array_equal(asked(learner, one, params=params).argmax(1), cosines.argmax(1))


def test_at_scale_one_no_probability_of_five_is_above_what_cosines_allow():
    one = tiny_tasks.task(tiny_tasks.episodes(n_way=5, k_shot=1, n_query=20))
    found = np.exp(asked(MatchingNetwork(scale=1.0), one, n_way=5))
    assert found.max() <= np.e / (np.e + 4 / np.e)  # 0.6488


def perturbed(params, scale: float) -> Meta:
    """The values at the start, with all weights of the parts moved."""
    r, meta = np.random.default_rng(0), params.values()
    own = {
        name: v if name == "matching/scale" else tf.constant(scale * r.normal(size=v.shape))
        for name, v in meta.own.items()
    }
    return meta._replace(own=own)


FULL = MatchingNetwork(full_context=True, reading_steps=3)


def test_full_context_with_weights_of_zero_is_without():
    one = tiny_tasks.task(tiny_tasks.episodes())
    params = tiny_tasks.parameters(FULL)
    expected = asked(MatchingNetwork(), one)
    np.testing.assert_allclose(asked(FULL, one, perturbed(params, 0.0), params), expected, rtol=1e-9)


def lstm(x, h, c, kernel, recurrent, bias) -> tuple[np.ndarray, np.ndarray]:
    """One step; Keras has the gates in the order i, f, c, o."""
    i, f, new, o = np.split(x @ kernel + h @ recurrent + bias, 4, axis=-1)
    c = special.expit(f) * c + special.expit(i) * np.tanh(new)
    return special.expit(o) * np.tanh(c), c


def test_full_context_reads_the_support_set_both_ways_and_attends_to_it():
    one = tiny_tasks.task(tiny_tasks.episodes())
    params = tiny_tasks.parameters(FULL)
    meta = perturbed(params, 0.3)
    own = {name: v.numpy() for name, v in meta.own.items()}
    support, queries = (features(params, meta, x) for x in (one.support_images, one.query_images))
    key = tiny_tasks.context(params).task_key
    order = tf.random.experimental.stateless_shuffle(tf.range(len(support)), key, alg="philox")
    support, labels = support[order], one.support_labels.numpy()[order]

    def weights(*of: str) -> list[np.ndarray]:
        return [v for name, v in own.items() if all(o in name for o in of)]

    width, read = support.shape[1], support.copy()
    for way, direction in (("forward", 1), ("backward", -1)):
        h = c = np.zeros(width)
        for k in range(len(support))[::direction]:
            h, c = lstm(support[k], h, c, *weights("support_context", way))
            read[k] += h
    h, c = queries, np.zeros_like(queries)
    for _ in range(3):
        seen = special.softmax(h @ read.T, axis=1) @ read
        h, c = lstm(np.hstack([queries, seen]), h, c, *weights("query_context"))
        h = h + queries
    expected = attended(h, read, labels, 10.0)
    found = np.exp(asked(FULL, one, meta, params))
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_full_context_draws_the_order_by_the_task_s_key():
    one, params = tiny_tasks.task(tiny_tasks.episodes()), tiny_tasks.parameters(FULL)
    meta = perturbed(params, 0.3)
    keys = [tf.constant([0, k], tf.int64) for k in (1, 1, 2)]
    first, again, other = (asked(FULL, one, meta, params, key=key) for key in keys)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-6
    # Without, the order of the support set does not matter.
    back = one._replace(support_images=one.support_images[::-1], support_labels=one.support_labels[::-1])
    plain = MatchingNetwork()
    np.testing.assert_allclose(asked(plain, one), asked(plain, back), rtol=1e-9)


def test_full_context_has_as_many_weights_as_published():
    params = tiny_tasks.parameters(FULL)
    d = params.model.n_features
    count = sum(int(np.prod(v.shape)) for n, v in params.own.items() if n != "matching/scale")
    assert count == 2 * 4 * (2 * d * d + d) + 4 * (3 * d * d + d)
    at_1600 = 2 * 4 * (2 * 1600**2 + 1600) + 4 * (3 * 1600**2 + 1600)
    assert round(at_1600 / 1e6, 1) == 71.7
    assert isinstance(params.own["query_context/cell/kernel"], keras.Variable)


@pytest.mark.parametrize(("name", "value"), [("scale", 0.0), ("reading_steps", 0)])
def test_settings_out_of_range_name_their_binding(name, value):
    with pytest.raises(ValueError, match=f"MatchingNetwork.{name} must be"):
        MatchingNetwork(**{name: value})
