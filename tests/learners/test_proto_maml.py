# SPDX-License-Identifier: Apache-2.0
"""Proto-MAML: the prototypical network it starts as, the way through the prototypes, its facts."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.learners import tiny_tasks
from tf_lwdgh.learners import ProtoMAML
from tf_lwdgh.learners.inner_loop import InnerLoop


def answers(params, meta, one, **settings):
    """Adapted structure and logits, as a structure of arrays."""
    told = tiny_tasks.context(params, **{"training": False, **settings})
    adapted = params.learner.adapt(told, meta, one.support_images, one.support_labels)
    logits, _ = params.learner.predict(told, meta, adapted, one.query_images)
    return tf.nest.map_structure(lambda x: x.numpy(), (adapted, logits))


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("n_way", [3, 5])
def test_without_steps_it_is_the_prototypical_network(n_way):
    """Softmax of minus the squared distances to the class means, of a network of 3 ways."""
    params = tiny_tasks.parameters(ProtoMAML(inner_loop=InnerLoop(steps=0)))
    meta = tiny_tasks.perturbed(params)
    one = tiny_tasks.task(tiny_tasks.episodes(n_way=n_way, k_shot=3))
    support, queries = (
        params.model.features(meta.network, meta.state, x, training=True)[0].numpy()
        for x in (one.support_images, one.query_images)
    )
    labels = one.support_labels.numpy()
    means = [support[labels == k].mean(0) for k in range(n_way)]
    distances = np.stack([((queries - c) ** 2).sum(1) for c in means], 1)
    _, logits = answers(params, meta, one, n_way=n_way)
    np.testing.assert_allclose(softmax(logits), softmax(-distances), rtol=1e-9, atol=1e-13)


def test_the_head_of_the_network_is_neither_used_nor_trained():
    params = tiny_tasks.parameters(ProtoMAML(inner_loop=InnerLoop(steps=2, inner_lr=0.05)))
    assert not [n for n in params.names if n.startswith("head/")] and not params.own
    assert params.learner.any_way
    meta, one = tiny_tasks.perturbed(params), tiny_tasks.task(tiny_tasks.episodes())
    other = meta._replace(network=[*meta.network[:-2], *(v + 1 for v in meta.network[-2:])])
    np.testing.assert_array_equal(answers(params, meta, one)[1], answers(params, other, one)[1])


def test_the_head_moves_in_the_inner_loop():
    params = tiny_tasks.parameters(ProtoMAML(inner_loop=InnerLoop(steps=1, inner_lr=0.05)))
    meta, one = tiny_tasks.perturbed(params), tiny_tasks.task(tiny_tasks.episodes())
    (before, _), _ = answers(params, meta, one, steps=0)
    (after, _), _ = answers(params, meta, one)
    for a, b in zip(before[-2:], after[-2:]):
        assert np.abs(a - b).max() > 1e-4


def test_neither_the_order_of_images_nor_of_classes_matters():
    params = tiny_tasks.parameters(ProtoMAML(inner_loop=InnerLoop(steps=2, inner_lr=0.05)))
    meta, one = tiny_tasks.perturbed(params), tiny_tasks.task(tiny_tasks.episodes())
    _, logits = answers(params, meta, one)
    order, classes = np.array([4, 0, 5, 2, 1, 3]), np.array([2, 0, 1])
    labels = tf.gather(tf.constant(classes, tf.int32), one.support_labels)
    other = one._replace(support_images=tf.gather(one.support_images, order), support_labels=tf.gather(labels, order))
    _, permuted = answers(params, meta, other)
    np.testing.assert_allclose(permuted[:, classes], logits, rtol=1e-8, atol=1e-10)


def test_in_first_order_the_gradient_still_goes_through_the_prototypes():
    """∂L_Q(θ + δ, head(θ) + ε)/∂θ with what the inner loop subtracts, δ and ε, held fast."""
    learner = ProtoMAML(inner_loop=InnerLoop(steps=2, inner_lr=0.05, second_order=False))
    params = tiny_tasks.parameters(learner)
    meta, one = tiny_tasks.perturbed(params), tiny_tasks.task(tiny_tasks.episodes())
    told = tiny_tasks.context(params)

    def adapted(at, steps):
        context = told._replace(steps=steps)
        return learner.adapt(context, at, one.support_images, one.support_labels).params

    fixed = [b - a for a, b in zip(adapted(meta, 0), adapted(meta, 2))]

    def loss(at):
        moved = [a + d for a, d in zip(adapted(at, 0), fixed)]
        logits, _ = params.model.apply(moved, at.state, one.query_images, training=True)
        chosen = np.log(softmax(logits.numpy()))[np.arange(6), one.query_labels.numpy()]
        return np.array([-chosen.mean()])

    batch = tf.nest.map_structure(lambda x: x[:1], tiny_tasks.episodes())
    tiny_tasks.assert_gradient_is_the_slope(params, batch, meta, objective=loss)


def test_plain_operations_and_recomputed_steps_give_the_same_gradients():
    stored = ProtoMAML(inner_loop=InnerLoop(steps=2, inner_lr=0.05))
    theirs = tiny_tasks.perturbed_outcome(stored)
    tiny_tasks.assert_same_gradients(tiny_tasks.perturbed_outcome(stored, fused=False), theirs)
    again = dataclasses.replace(stored.inner_loop, memory="recompute")
    again = dataclasses.replace(stored, inner_loop=again)
    tiny_tasks.assert_same_gradients(tiny_tasks.perturbed_outcome(again), theirs)
