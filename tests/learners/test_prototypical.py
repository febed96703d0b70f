# SPDX-License-Identifier: Apache-2.0
"""Prototypical networks against their definition, and their kinship with others."""

from __future__ import annotations

import numpy as np
import pytest

from tests.learners import tiny_tasks
from tf_lwdgh.learners import ProtoMAML, PrototypicalNetwork
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.backbones import convnet4


def answers(learner, one, **network) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, and the features of support set and queries, all by batch statistics."""
    params = tiny_tasks.parameters(learner, **network)
    meta, told = params.values(), tiny_tasks.context(params, training=False)
    adapted = learner.adapt(told, meta, one.support_images, one.support_labels)
    logits, _ = learner.predict(told, meta, adapted, one.query_images)
    features = [
        params.model.features(meta.network, meta.state, images, training=True)[0].numpy()
        for images in (one.support_images, one.query_images)
    ]
    return logits.numpy(), *features


def test_logits_are_negative_squared_distances_to_class_means():
    one = tiny_tasks.task(tiny_tasks.episodes(k_shot=3))
    logits, support, queries = answers(PrototypicalNetwork(), one)
    labels = one.support_labels.numpy()
    for k in range(tiny_tasks.N_WAY):
        mean = support[labels == k].mean(0)
        np.testing.assert_allclose(logits[:, k], -np.square(queries - mean).sum(1), rtol=1e-10)
        # But for ‖z‖², which a softmax cancels, it is a linear head 2c·z − ‖c‖².
        linear = 2 * queries @ mean - mean @ mean
        np.testing.assert_allclose(logits[:, k] + np.square(queries).sum(1), linear, rtol=1e-9)


def test_with_one_shot_the_nearest_image_decides():
    one = tiny_tasks.task(tiny_tasks.episodes(k_shot=1, n_query=5))
    logits, support, queries = answers(PrototypicalNetwork(), one)
    nearest = np.linalg.norm(queries[:, None] - support, axis=-1).argmin(1)
    np.testing.assert_array_equal(logits.argmax(1), one.support_labels.numpy()[nearest])


def test_proto_maml_without_inner_steps_gives_the_same_probabilities():
    one = tiny_tasks.task(tiny_tasks.episodes())
    ours, _, queries = answers(PrototypicalNetwork(), one)
    theirs, _, _ = answers(ProtoMAML(inner_loop=InnerLoop(steps=0)), one)
    np.testing.assert_allclose(theirs - np.square(queries).sum(1, keepdims=True), ours, rtol=1e-9)


@pytest.mark.parametrize(("size", "channels", "count"), [(84, 3, 113_088), (28, 1, 111_936)])
def test_it_learns_the_embedding_and_nothing_else(size, channels, count):
    network = convnet4(image_size=size, channels=channels, filters=64)
    params = MetaParameters(network, PrototypicalNetwork())
    assert sum(int(np.prod(v.shape)) for v in params.variables_trained) == count
