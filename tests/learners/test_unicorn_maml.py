# SPDX-License-Identifier: Apache-2.0
"""UNICORN-MAML: classes in any order, and the head at zero that its one vector amounts to."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.learners import tiny_tasks
from tf_lwdgh.learners import MAML, UnicornMAML
from tf_lwdgh.learners.inner_loop import InnerLoop

LOOP = InnerLoop(steps=2, inner_lr=0.1)


def logits(params, meta, one, **settings):
    told = tiny_tasks.context(params, **{"training": False, **settings})
    adapted = params.learner.adapt(told, meta, one.support_images, one.support_labels)
    return params.learner.predict(told, meta, adapted, one.query_images)[0].numpy()


@pytest.mark.parametrize("learner", [UnicornMAML, MAML])
def test_permuting_the_classes_permutes_the_predictions(learner):
    params = tiny_tasks.parameters(learner(inner_loop=LOOP))
    meta, one = tiny_tasks.perturbed(params), tiny_tasks.task(tiny_tasks.episodes())
    classes = np.array([2, 0, 1])
    labels = tf.gather(tf.constant(classes, tf.int32), one.support_labels)
    before = logits(params, meta, one)
    after = logits(params, meta, one._replace(support_labels=labels))[:, classes]
    if learner is UnicornMAML:
        np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-12)
    else:  # a learned head: the same images, with other names, are answered otherwise
        assert np.abs(after - before).max() > 1e-2


def test_the_head_starts_with_copies_and_the_vectors_gradient_is_their_sum():
    params = tiny_tasks.parameters(UnicornMAML(inner_loop=LOOP))
    meta, told = tiny_tasks.perturbed(params), tiny_tasks.context(params, n_way=4)
    own = {name: tf.Variable(value) for name, value in meta.own.items()}
    with tf.GradientTape() as tape:
        kernel, bias = params.learner.start(told, meta._replace(own=own), None, None)[-2:]
    for k in range(4):
        np.testing.assert_array_equal(kernel[:, k], meta.own["head/vector"])
        np.testing.assert_array_equal(bias[k], meta.own["head/bias"])
    r = np.random.default_rng(0)
    rows, ends = r.normal(size=kernel.shape), r.normal(size=bias.shape)
    found = tape.gradient([kernel, bias], own, [tf.constant(rows), tf.constant(ends)])
    np.testing.assert_allclose(found["head/vector"], rows.sum(1), rtol=1e-12)
    np.testing.assert_allclose(found["head/bias"], ends.sum(), rtol=1e-12)


def test_the_vector_cancels_in_the_softmax():
    """Its gradient is 0, and all else as with a head that starts at zero."""
    ours = tiny_tasks.perturbed_outcome(UnicornMAML(inner_loop=LOOP))
    theirs = tiny_tasks.perturbed_outcome(MAML(inner_loop=LOOP, head="zero"))
    scale = max(np.abs(g).max() for g in theirs.gradients)
    for g in ours.gradients[-2:]:
        assert np.abs(g).max() < 1e-13 * scale
    tiny_tasks.assert_same_gradients(ours._replace(gradients=ours.gradients[:-2]), theirs)
    params = tiny_tasks.parameters(UnicornMAML(inner_loop=LOOP))
    assert set(params.own) == {"head/vector", "head/bias"}
    assert not set(params.own) & set(params.units("variable"))


def test_the_temperature_divides_the_queries_logits_alone():
    warm, cold = (tiny_tasks.parameters(UnicornMAML(inner_loop=LOOP, query_temperature=t)) for t in (1.0, 0.5))
    meta, one = tiny_tasks.perturbed(warm), tiny_tasks.task(tiny_tasks.episodes())
    for training in (False, True):
        expected = 2 * logits(warm, meta, one, training=training)
        found = logits(cold, meta, one, training=training)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_any_number_of_ways_with_one_head_that_is_not_the_networks():
    params = tiny_tasks.parameters(UnicornMAML(inner_loop=LOOP))
    assert params.learner.any_way
    assert [n for n in params.names if n.startswith("head/")] == ["head/vector", "head/bias"]
    meta = params.values()
    assert np.abs(meta.own["head/vector"]).max() <= params.model.n_features**-0.5
    assert len(np.unique(meta.own["head/vector"])) == params.model.n_features
    one = tiny_tasks.task(tiny_tasks.episodes(n_way=5))
    assert logits(params, meta, one, n_way=5).shape == (10, 5)


def test_recomputed_steps_give_the_same_gradients():
    theirs = tiny_tasks.perturbed_outcome(UnicornMAML(inner_loop=LOOP))
    again = InnerLoop(steps=2, inner_lr=0.1, memory="recompute")
    ours = tiny_tasks.perturbed_outcome(UnicornMAML(inner_loop=again))
    tiny_tasks.assert_same_gradients(ours, theirs)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf])
def test_a_temperature_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match="UnicornMAML.query_temperature must be > 0, finite"):
        UnicornMAML(query_temperature=bad)
