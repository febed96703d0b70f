# SPDX-License-Identifier: Apache-2.0
"""Ordinary classification against its definition in NumPy, and the learners that compare its features."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.learners import tiny_tasks
from tests.learners.tiny_tasks import features
from tf_lwdgh.learners import Classifier, MetaBaseline, PrototypicalNetwork, SimpleShot
from tf_lwdgh.learners.losses import cross_entropy

N_CLASSES, N_WAY = tiny_tasks.N_CLASSES, tiny_tasks.N_WAY
NETWORK = {"fused": False, "blocks": 1}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def normal(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return x / np.linalg.norm(x, axis=axis, keepdims=True)


def answers(learner, one, *, mean=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, and the features of support set and queries, all by batch statistics."""
    params = tiny_tasks.parameters(learner, **NETWORK)
    meta, told = params.values(), tiny_tasks.context(params, training=False)
    if mean is not None:
        meta = meta._replace(state=[*meta.state[:-2], tf.constant(mean), meta.state[-1]])
    adapted = learner.adapt(told, meta, one.support_images, one.support_labels)
    logits, _ = learner.predict(told, meta, adapted, one.query_images)
    return logits.numpy(), *(features(params, meta, images) for images in (one.support_images, one.query_images))


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_its_loss_is_that_of_the_classes_numbers_among_all(head):
    learner = Classifier(n_classes=N_CLASSES, head=head, label_smoothing=0.3)
    params = tiny_tasks.parameters(learner, **NETWORK)
    meta, one = tiny_tasks.perturbed(params), tiny_tasks.task(tiny_tasks.episodes())
    found = learner.objective(tiny_tasks.context(params), meta, one)
    z = features(params, meta, tf.concat([one.support_images, one.query_images], 0))
    kernel = meta.own["classifier/kernel"].numpy()
    if head == "linear":
        logits = z @ kernel + meta.own["classifier/bias"].numpy()
    else:
        logits = meta.own["classifier/scales"].numpy() * (normal(z) @ normal(kernel, 0))
    labels = np.concatenate([one.support_labels, one.query_labels])
    numbers = one.class_ids.numpy()[labels]
    scores, rows = log_softmax(logits), np.arange(len(labels))
    right = -scores[rows, numbers]
    np.testing.assert_allclose(found.objective, 0.7 * right.mean() - 0.3 * scores.mean(), rtol=1e-10)
    queries = len(one.support_labels)
    np.testing.assert_allclose(found.loss, right[queries:].mean(), rtol=1e-10)
    hits = found.logits.numpy().argmax(-1) == one.query_labels.numpy()
    np.testing.assert_array_equal(hits, (logits.argmax(-1) == numbers)[queries:])
    assert found.logits.shape[1] == N_CLASSES


def test_the_features_mean_is_among_the_statistics():
    learner = Classifier(n_classes=N_CLASSES)
    params = tiny_tasks.parameters(learner, **NETWORK)
    meta, one = tiny_tasks.perturbed(params), tiny_tasks.task(tiny_tasks.episodes())
    state = learner.objective(tiny_tasks.context(params), meta, one).state
    z = features(params, meta, tf.concat([one.support_images, one.query_images], 0))
    assert len(state) == len(params.model.state_variables)
    np.testing.assert_allclose(state[-2], z.mean(0), rtol=1e-10)


@pytest.mark.parametrize(
    ("classes", "images", "expected"),
    [
        (64, 600, (32, 1, 1)),
        (351, 700, (32, 1, 1)),
        (20, 20, (20, 1, 2)),
        (6, 12, (6, 5, 5)),
        (6, 3, (6, 1, 2)),
    ],
)
def test_a_training_task_has_as_many_classes_as_fit(classes, images, expected):
    shape = Classifier(batch_size=64).training_shape(classes, images)
    assert (shape["n_way"], shape["k_shot"], shape["n_query"]) == expected


def test_it_is_held_to_the_number_of_training_classes():
    assert Classifier().for_classes(20).n_classes == 20
    with pytest.raises(ValueError, match="Classifier.n_classes must be that of the training classes, 20"):
        Classifier(n_classes=64).for_classes(20)
    params = tiny_tasks.parameters(Classifier(), **NETWORK)
    assert not params.own and not params.model.parts
    with pytest.raises(ValueError, match="Classifier.n_classes must be known to train"):
        one = tiny_tasks.task(tiny_tasks.episodes())
        params.learner.objective(tiny_tasks.context(params), params.values(), one)


@pytest.mark.parametrize("learner", [Classifier(), MetaBaseline(scale=10.0)])
def test_they_compare_by_cosine_with_the_means(learner):
    one = tiny_tasks.task(tiny_tasks.episodes())
    logits, support, queries = answers(learner, one)
    means = np.stack([support[one.support_labels.numpy() == k].mean(0) for k in range(N_WAY)])
    np.testing.assert_allclose(logits, 10 * normal(queries) @ normal(means).T, rtol=1e-9)


@pytest.mark.parametrize("transform", ["none", "l2", "cl2"])
def test_simple_shot_is_the_nearest_mean_of_what_it_makes_of_features(transform):
    one = tiny_tasks.task(tiny_tasks.episodes())
    learner = SimpleShot(transform=transform)
    mean = 0.3 + np.random.default_rng(0).random(48) if transform == "cl2" else None
    logits, support, queries = answers(learner, one, mean=mean)

    def change(z):
        z = z - mean if transform == "cl2" else z
        return z if transform == "none" else normal(z)

    labels = one.support_labels.numpy()
    means = np.stack([change(support)[labels == k].mean(0) for k in range(N_WAY)])
    expected = -np.square(change(queries)[:, None] - means).sum(-1)
    np.testing.assert_allclose(logits, expected, rtol=1e-9)


def test_simple_shot_without_a_change_is_a_prototypical_network():
    one = tiny_tasks.task(tiny_tasks.episodes())
    ours, theirs = (answers(x, one)[0] for x in (SimpleShot(transform="none"), PrototypicalNetwork()))
    np.testing.assert_array_equal(ours, theirs)


def test_with_one_shot_normalised_features_and_cosines_order_alike():
    one = tiny_tasks.task(tiny_tasks.episodes(k_shot=1, n_query=5))
    cosine, _, _ = answers(Classifier(), one)
    distance, _, _ = answers(SimpleShot(transform="l2"), one)
    np.testing.assert_allclose(distance, 2 * cosine / 10 - 2, rtol=1e-9)


def test_smoothing_takes_from_the_label_what_it_gives_to_all():
    logits = np.random.default_rng(0).normal(size=(4, 3))
    labels = np.array([0, 2, 1, 1])
    targets = 0.8 * np.eye(3)[labels] + 0.2 / 3
    expected = -(targets * log_softmax(logits)).sum(-1).mean()
    found = cross_entropy(tf.constant(logits), tf.constant(labels), 0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
