# SPDX-License-Identifier: Apache-2.0
"""ANIL, BOIL and FOMAML: what moves, what is MAML's, and what of the outer gradient is left."""

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.learners import tiny_tasks
from tf_lwdgh.learners import ANIL, BOIL, FOMAML, MAML
from tf_lwdgh.learners.inner_loop import InnerLoop

BATCH_NORM = ["transductive", "inductive", "global"]
BATCH = tiny_tasks.episodes()


def inner_loop(**settings):
    return InnerLoop(**{"steps": 2, "inner_lr": 0.1, **settings})


def head_only(**settings):
    return inner_loop(inner_lr={"head": 0.1}, **settings)


def answers(params, meta, batch=BATCH, **settings):
    """The first task's adapted structure and query logits after training, as NumPy arrays."""
    one = tiny_tasks.task(batch)

    @tf.function(autograph=False)
    def run():
        told = tiny_tasks.context(params, training=False, **settings)
        adapted = params.learner.adapt(told, meta, one.support_images, one.support_labels)
        return adapted, params.learner.predict(told, meta, adapted, one.query_images)[0]

    with tiny_tasks.quickly_built():
        return tf.nest.map_structure(lambda x: x.numpy(), run())


def assert_close(ours, theirs, tolerance=1e-12):
    for a, b in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("batch_norm", BATCH_NORM)
def test_anil_is_maml_with_a_body_that_stays(batch_norm):
    maml = MAML(inner_loop=head_only(), batch_norm=batch_norm)
    anil = ANIL(inner_loop=inner_loop(), batch_norm=batch_norm)
    theirs = tiny_tasks.perturbed_outcome(maml)
    assert all(np.abs(g).max() > 1e-3 for g in theirs.gradients if g.ndim > 2)  # kernels
    ours = tiny_tasks.perturbed_outcome(anil)
    tiny_tasks.assert_same_gradients(ours, theirs)
    assert_close(ours.statistics, theirs.statistics)
    maml, anil = tiny_tasks.parameters(maml), tiny_tasks.parameters(anil)
    meta = tiny_tasks.perturbed(maml)
    assert_close(answers(anil, meta, steps=3), answers(maml, meta, steps=3))


def test_anil_is_maml_with_a_body_that_stays_whatever_the_step():
    settings = {"momentum": 0.5, "weight_decay": 0.05, "sharpness": 0.1, "second_order": False}
    theirs = tiny_tasks.perturbed_outcome(MAML(inner_loop=head_only(**settings)))
    ours = tiny_tasks.perturbed_outcome(ANIL(inner_loop=head_only(**settings)))
    tiny_tasks.assert_same_gradients(ours, theirs)


def test_recomputed_steps_and_plain_operations_give_anil_the_same_gradients():
    stored, recomputed = (ANIL(inner_loop=inner_loop(memory=m)) for m in ("store", "recompute"))
    theirs = tiny_tasks.perturbed_outcome(stored)
    tiny_tasks.assert_same_gradients(tiny_tasks.perturbed_outcome(recomputed), theirs)
    tiny_tasks.assert_same_gradients(tiny_tasks.perturbed_outcome(stored, fused=False), theirs)


def test_anil_lets_no_query_into_the_support_sets_statistics():
    params = tiny_tasks.parameters(ANIL(inner_loop=inner_loop(), batch_norm="inductive"))
    one, told = tiny_tasks.task(BATCH), tiny_tasks.context(params)
    changed = tf.tensor_scatter_nd_add(one.query_images, [[0]], 5 + tf.zeros_like(one.query_images[:1]))

    @tf.function(autograph=False)
    def run(queries):
        episode = one._replace(query_images=queries)
        return params.learner.objective(told, params.values(), episode).logits

    before, after = run(one.query_images).numpy(), run(changed).numpy()
    assert not np.allclose(before[0], after[0])
    np.testing.assert_array_equal(before[1:], after[1:])


@pytest.mark.parametrize("batch_norm", BATCH_NORM)
def test_anil_without_a_head_answers_by_mean_cosine(batch_norm):
    learner = ANIL(inner_loop=inner_loop(), batch_norm=batch_norm, test_head="cosine")
    assert learner.any_way and learner.inner_steps(7) == 0
    params = tiny_tasks.parameters(learner)
    batch = tiny_tasks.episodes(n_way=5, k_shot=2)  # of a network of 3 ways
    one, meta = tiny_tasks.task(batch), tiny_tasks.perturbed(params)

    def features(images, state=meta.state):
        out, state = params.model.features(
            meta.network, state, images, training=batch_norm != "global" and state is meta.state
        )
        out = out.numpy()
        return out / np.linalg.norm(out, axis=1, keepdims=True), state

    support, statistics = features(one.support_images)
    inductive = batch_norm == "inductive"
    queries, _ = features(one.query_images, statistics if inductive else meta.state)
    cosines = queries @ support.T
    labels = one.support_labels.numpy()
    expected = np.stack([cosines[:, labels == k].mean(1) for k in range(5)], 1)
    _, logits = answers(params, meta, batch, n_way=5)
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-12)


def test_anil_without_a_head_trains_as_with_one():
    ours = tiny_tasks.perturbed_outcome(ANIL(inner_loop=inner_loop(), test_head="cosine"))
    theirs = tiny_tasks.perturbed_outcome(ANIL(inner_loop=inner_loop()))
    tiny_tasks.assert_same_gradients(ours, theirs, 1e-14)


@pytest.mark.parametrize("batch_norm", ["transductive", "global"])
def test_boil_leaves_the_head_bit_for_bit(batch_norm):
    loop = inner_loop(inner_lr=0.5, adapt_batch_norm=True)
    params = tiny_tasks.parameters(BOIL(inner_loop=loop, batch_norm=batch_norm))
    meta = tiny_tasks.perturbed(params)
    (adapted, _), _ = answers(params, meta)
    for name, before, after in zip(params.model.names, meta.network, adapted):
        if name.startswith("head/"):
            np.testing.assert_array_equal(after, before)
        elif name != "conv1/bias" and name != "conv2/bias":  # which batch statistics cancel
            assert np.abs(after - before).max() > 1e-5, name


def test_boil_is_maml_with_a_head_that_stays_and_trains_the_head():
    rates = {".*": 0.3, "head": 0.0}
    boil = BOIL(inner_loop=inner_loop(inner_lr=0.3, adapt_batch_norm=True))
    maml = MAML(inner_loop=inner_loop(inner_lr=rates, adapt_batch_norm=True))
    ours, theirs = (tiny_tasks.perturbed_outcome(x) for x in (boil, maml))
    tiny_tasks.assert_same_gradients(ours, theirs)
    assert np.abs(ours.gradients[-2]).max() > 1e-3  # the head's kernel


def test_rates_that_leave_nothing_to_move_are_refused():
    with pytest.raises(ValueError, match="above 0 for a variable of the head.*'conv1': 0.1"):
        tiny_tasks.parameters(ANIL(inner_loop=inner_loop(inner_lr={"conv1": 0.1})))
    with pytest.raises(ValueError, match="above 0 for a variable of the body.*'head': 0.1"):
        tiny_tasks.parameters(BOIL(inner_loop=head_only()))
    with pytest.raises(ValueError, match=r"BOIL.head must be 'learned'.*BOIL.head = 'zero'"):
        BOIL(head="zero")
    with pytest.raises(ValueError, match=r"ANIL.test_head must be one of adapted, cosine.*'nil'"):
        ANIL(test_head="nil")
    with pytest.raises(ValueError, match="FOMAML.inner_loop must be a ready object"):
        FOMAML(inner_loop=InnerLoop)


def test_fomaml_is_the_query_gradient_where_the_inner_loop_ends():
    learner = FOMAML(inner_loop=inner_loop(second_order=True))
    params, ours = tiny_tasks.parameters(learner), tiny_tasks.perturbed_outcome(learner).gradients
    one, rates = tiny_tasks.task(BATCH), learner.rates(params.model)
    expected = oracles.maml_gradient(
        tiny_tasks.perturbed(params).network,
        (one.support_images, one.support_labels.numpy()),
        (one.query_images, one.query_labels.numpy()),
        rates=rates,
        steps=2,
        second_order=False,
    )
    scale = max(np.abs(e).max() for e in expected)
    for g, e in zip(ours, expected, strict=True):
        np.testing.assert_allclose(g[0], e, rtol=0, atol=1e-9 * scale)


def hessian_of_conv2(network, where, images, labels, h=1e-5):
    """∂²L/∂k² [D, D] of a kernel, by differences of the gradient of a network written out again."""

    @tf.autograph.experimental.do_not_convert
    def gradient(kernel):
        params = list(network)
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            params[where] = kernel
            value = oracles.loss(params, images, labels)
        return tape.gradient(value, kernel)

    kernel = network[where]
    size = int(np.prod(kernel.shape))
    steps = h * tf.reshape(tf.eye(size, dtype=kernel.dtype), [size, *kernel.shape])
    run = tf.function(lambda points: tf.map_fn(gradient, points), autograph=False)
    slopes = (run(kernel + steps) - run(kernel - steps)).numpy() / (2 * h)
    return slopes.reshape(size, size)


def test_maml_is_the_first_order_gradient_times_one_minus_alpha_hessian():
    rate = 0.2
    loop = InnerLoop(steps=1, inner_lr={"conv2/kernel": rate})
    params = tiny_tasks.parameters(MAML(inner_loop=loop))
    where, one = params.names.index("conv2/kernel"), tiny_tasks.task(BATCH)
    network = tiny_tasks.perturbed(params).network
    hessian = hessian_of_conv2(network, where, one.support_images, one.support_labels.numpy())
    second, first = (
        tiny_tasks.perturbed_outcome(c(inner_loop=loop)).gradients[where][0].ravel() for c in (MAML, FOMAML)
    )
    assert np.abs(second - first).max() > 1e-3
    np.testing.assert_allclose(second, first - rate * hessian @ first, rtol=1e-6, atol=1e-8)


def test_fomaml_is_maml_where_nothing_moves():
    still = inner_loop(inner_lr=0.0)
    ours, theirs = (tiny_tasks.perturbed_outcome(c(inner_loop=still)) for c in (FOMAML, MAML))
    tiny_tasks.assert_same_gradients(ours, theirs, 1e-13)
