# SPDX-License-Identifier: Apache-2.0
"""Meta-SGD: its rates' gradients against their closed form, MAML where all are alike, its facts."""

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.learners import tiny_tasks
from tf_lwdgh.learners import MAML, MetaSGD
from tf_lwdgh.learners.inner_loop import InnerLoop

NAMES = [f"{layer}/{v}" for layer in ("conv1", "conv2", "head") for v in ("kernel", "bias")]


def one_step(**settings):
    return InnerLoop(**{"steps": 1, "inner_lr": 0.1, **settings})


def gradient(params, images, labels):
    """∇L of the network written out again."""
    with tf.GradientTape() as tape:
        tape.watch(params)
        value = oracles.loss(params, images, labels.numpy())
    return tape.gradient(value, params)


@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize("second_order", [True, False])
def test_the_gradient_of_a_rate_is_minus_one_gradient_times_the_other(memory, second_order):
    learner = MetaSGD(inner_loop=one_step(memory=memory, second_order=second_order))
    params = tiny_tasks.parameters(learner)
    meta, one = tiny_tasks.perturbed(params), tiny_tasks.task(tiny_tasks.episodes())
    still = tf.constant(0.0, tf.float64)
    rates = [meta.own.get(f"inner_lr/{name}", still) for name in params.model.names]
    assert any((rate.numpy() < 0).any() for rate in rates)
    before = gradient(meta.network, one.support_images, one.support_labels)
    adapted = [v - a * g for v, a, g in zip(meta.network, rates, before)]
    after = gradient(adapted, one.query_images, one.query_labels)
    ours = dict(zip(params.names, tiny_tasks.perturbed_outcome(learner).gradients))
    for name, b, a in zip(params.model.names, before, after):
        if name in NAMES:
            expected = -(b * a).numpy()
            found = ours[f"inner_lr/{name}"][0]
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-13, err_msg=name)


def test_equal_rates_are_mamls():
    loop = InnerLoop(steps=2, inner_lr={".*": 0.1, "head": 0.3}, adapt_batch_norm=True)
    sgd, maml = MetaSGD(inner_loop=loop, init="constant"), MAML(inner_loop=loop)
    batch = tiny_tasks.episodes()
    ours, theirs = (tiny_tasks.outcome(tiny_tasks.parameters(x), batch) for x in (sgd, maml))
    count = len(theirs.gradients)
    assert len(ours.gradients) == 2 * count
    tiny_tasks.assert_same_gradients(ours._replace(gradients=ours.gradients[:count]), theirs, 1e-12)


def test_plain_operations_and_recomputed_steps_give_the_same_gradients():
    settings = {"steps": 2, "inner_lr": 0.1}
    stored = MetaSGD(inner_loop=InnerLoop(**settings))
    theirs = tiny_tasks.perturbed_outcome(stored)
    tiny_tasks.assert_same_gradients(tiny_tasks.perturbed_outcome(stored, fused=False), theirs)
    again = MetaSGD(inner_loop=InnerLoop(**settings, memory="recompute"))
    tiny_tasks.assert_same_gradients(tiny_tasks.perturbed_outcome(again), theirs)


def test_fewer_ways_take_the_first_rates():
    """As a learner on a narrower network whose values are the first columns."""
    learner = MetaSGD(inner_loop=one_step())
    wide, narrow = (tiny_tasks.parameters(learner, n_way=n) for n in (3, 2))
    meta, one = tiny_tasks.perturbed(wide), tiny_tasks.task(tiny_tasks.episodes(n_way=2))

    def sliced(values, like):
        return [v[tuple(slice(n) for n in w.shape)] for v, w in zip(values, like)]

    own = dict(zip(meta.own, sliced(meta.own.values(), narrow.values().own.values())))
    narrowed = meta._replace(network=sliced(meta.network, narrow.values().network), own=own)

    def logits(params, at, **settings):
        told = tiny_tasks.context(params, training=False, **settings)
        adapted = learner.adapt(told, at, one.support_images, one.support_labels)
        return learner.predict(told, meta, adapted, one.query_images)[0].numpy()

    found = logits(wide, meta, n_way=2)
    np.testing.assert_allclose(found, logits(narrow, narrowed), rtol=1e-12, atol=1e-13)
    assert not MetaSGD(head="zero").any_way


def test_rates_are_named_after_their_variables_and_start_as_told():
    params = tiny_tasks.parameters(MetaSGD(inner_loop=one_step()))
    assert list(params.own) == [f"inner_lr/{name}" for name in NAMES]
    shapes = dict(zip(params.model.names, (v.shape for v in params.model.variables)))
    for name, rates in params.values().own.items():
        assert rates.shape == shapes[name.removeprefix("inner_lr/")]
        assert np.all((0.005 <= rates) & (rates <= 0.1))
    kernel = params.values().own["inner_lr/conv2/kernel"].numpy()
    assert len(np.unique(kernel)) == kernel.size
    assert abs(kernel.mean() - 0.0525) < 0.01
    again = tiny_tasks.parameters(MetaSGD(inner_loop=one_step()), seed=8).values()
    np.testing.assert_array_equal(again.own["inner_lr/conv2/kernel"], kernel)
    other = tiny_tasks.parameters(MetaSGD(inner_loop=one_step(), seed=1)).values()
    assert not np.isin(other.own["inner_lr/conv2/kernel"].numpy(), kernel).any()
    loop = one_step(inner_lr={"conv1": 0.2, "head/bias": 0.3}, adapt_batch_norm=True)
    own = tiny_tasks.parameters(MetaSGD(inner_loop=loop, init="constant")).values().own
    assert {n: float(v.numpy().ravel()[0]) for n, v in own.items()} == pytest.approx(
        {"inner_lr/conv1/kernel": 0.2, "inner_lr/conv1/bias": 0.2, "inner_lr/head/bias": 0.3}
    )


@pytest.mark.parametrize("harmonize", [False, True])
def test_rates_are_in_the_units_only_if_asked(harmonize):
    learner = MetaSGD(inner_loop=one_step(), harmonize_rates=harmonize)
    params = tiny_tasks.parameters(learner)
    units = params.units("variable")
    rates = {n for n in params.own if n in units}
    # The bias in front of BatchNorm has no gradient, and nor has its rate.
    expected = {f"inner_lr/{n}" for n in NAMES if n not in ("conv1/bias", "conv2/bias")}
    assert rates == (expected if harmonize else set())


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="MetaSGD.init must be one of uniform, constant.*'normal'"):
        MetaSGD(init="normal")
    for bad in ((0.1, 0.005), (0.1,), (0.0, float("inf"))):
        with pytest.raises(ValueError, match="MetaSGD.init_range must be two numbers"):
            MetaSGD(init_range=bad)
