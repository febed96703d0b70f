# SPDX-License-Identifier: Apache-2.0
"""Relation networks: their size, their loss, their statistics and what they are indifferent to."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.learners import tiny_tasks
from tf_lwdgh.learners import RelationNetwork
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.backbones import convnet4
from tf_lwdgh.networks.encoders import relation_encoder

ONE_BLOCK = {"blocks": 1, "fused": False}
SMALL = RelationNetwork(filters=2, hidden=3)


def scores(params, meta, one, **told) -> np.ndarray:
    context, learner = tiny_tasks.context(params, **told), params.learner
    adapted = learner.adapt(context, meta, one.support_images, one.support_labels)
    return learner.predict(context, meta, adapted, one.query_images)[0].numpy()


@pytest.mark.parametrize(("size", "channels", "places", "count"), [(84, 3, 19, 228_689), (28, 1, 5, None)])
def test_sizes_are_the_authors(size, channels, places, count):
    keras.utils.set_random_seed(0)
    params = MetaParameters(relation_encoder(image_size=size, channels=channels), RelationNetwork())
    assert params.model.map_shape == (places, places, 64)
    if count:
        assert sum(int(np.prod(v.shape)) for v in params.variables_trained) == count
    kernel = params.own["relation/block1_conv/kernel"].numpy()
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.02)
    hidden = params.own["relation/hidden/kernel"].numpy()
    np.testing.assert_allclose(hidden.std(), 0.01, rtol=0.1)
    assert (params.own["relation/hidden/bias"].numpy() == 1).all()
    assert hidden.shape == ((576 if size == 84 else 64), 8)


def test_the_objective_is_the_mean_squared_error_of_all_pairs():
    one = tiny_tasks.task(tiny_tasks.episodes())
    params = tiny_tasks.parameters(SMALL, **ONE_BLOCK)
    meta = tiny_tasks.perturbed(params)
    result = SMALL.objective(tiny_tasks.context(params), meta, one)
    logits, labels = result.logits.numpy(), one.query_labels.numpy()
    wanted = np.eye(tiny_tasks.N_WAY)[labels]
    error = np.mean((1 / (1 + np.exp(-logits)) - wanted) ** 2)
    np.testing.assert_allclose(result.objective, error, rtol=1e-12)


def test_a_score_is_what_the_module_makes_of_a_class_s_sum_and_a_query():
    one = tiny_tasks.task(tiny_tasks.episodes(k_shot=3))
    params = tiny_tasks.parameters(SMALL, **ONE_BLOCK)
    meta = tiny_tasks.perturbed(params)

    def maps(images) -> np.ndarray:
        found, _ = params.model.features(meta.network, meta.state, images, training=True)
        return found.numpy().reshape(-1, *params.model.map_shape)

    support, queries = maps(one.support_images), maps(one.query_images)
    labels = one.support_labels.numpy()
    sums = [support[labels == k].sum(0) for k in range(tiny_tasks.N_WAY)]
    pairs = np.stack([np.concatenate([s, q], -1) for q in queries for s in sums])
    expected, _ = params.model.parts["relation"](meta.own, meta.state, tf.constant(pairs), training=True)
    np.testing.assert_allclose(scores(params, meta, one).ravel(), expected[:, 0], rtol=1e-9)


@pytest.mark.parametrize("batch_norm", ["transductive", "inductive", "global"])
def test_permuting_the_classes_permutes_the_scores(batch_norm):
    one = tiny_tasks.task(tiny_tasks.episodes())
    learner = RelationNetwork(filters=2, hidden=3, batch_norm=batch_norm)
    params = tiny_tasks.parameters(learner, **ONE_BLOCK)
    meta, order = tiny_tasks.perturbed(params), np.array([2, 0, 1])
    moved = one._replace(support_labels=tf.gather(tf.constant(order), one.support_labels))
    before = scores(params, meta, one, training=False)
    after = scores(params, meta, moved, training=False)
    np.testing.assert_allclose(after[:, order], before, rtol=1e-8)


def test_features_that_are_no_map_are_refused_by_name():
    small = convnet4(image_size=16, blocks=4)
    with pytest.raises(ValueError, match=r"a map of at least 4 × 4 places.*convnet4 with a map of \(1, 1"):
        MetaParameters(small, RelationNetwork())
