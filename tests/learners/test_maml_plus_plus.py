# SPDX-License-Identifier: Apache-2.0
"""MAML++: each of its pieces by itself, and what is left of it without them."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.learners import tiny_tasks as tiny
from tf_lwdgh.learners import MAML, MAMLPlusPlus
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.losses import cross_entropy
from tf_lwdgh.learners.maml_plus_plus import step_weights
from tf_lwdgh.outer.task_execution import TaskExecution
from tf_lwdgh.types import Clock

STEPS, RATE = 2, 0.1


@pytest.fixture(autouse=True)
def _eagerly():
    """Without graphs, whose tracing is most of the time of such small tasks."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def inner_loop(**settings):
    return InnerLoop(**{"steps": STEPS, "inner_lr": RATE, **settings})


def plus_plus(inner=None, **settings):
    return MAMLPlusPlus(inner_loop=inner or inner_loop(), **settings)


def parameters(learner):
    """On plain operations, which take less time to start."""
    return tiny.parameters(learner, fused=False)


def at_epoch(epoch):
    return Clock(tf.constant(2 * epoch), steps_per_epoch=2, epochs=99, seed=0)


def gradients(params, meta, epoch=0, k=0):
    """A task's outer gradient by name, and its result."""
    told = tiny.context(params, clock=at_epoch(epoch))
    found, result = params.learner.outer_gradient(told, meta, tiny.task(tiny.episodes(), k))
    return dict(zip(params.names, [g.numpy() for g in params.flatten(found)])), result


@functools.cache
def maml(second_order=True):
    """MAML's gradients at the perturbed values, those values, and its parameters."""
    params = parameters(MAML(inner_loop=inner_loop(second_order=second_order)))
    meta = tiny.perturbed(params)
    return gradients(params, meta)[0], meta, params


def like_mamls(params):
    """MAML's perturbed values, with every step's BatchNorm the network's."""
    meta, own = maml()[1], dict(params.values().own)
    for name, value in zip(params.model.names, meta.network):
        if f"{name}_by_step" in own:
            own[f"{name}_by_step"] = tf.tile(value[None], [STEPS, 1])
    return meta._replace(own=own)


def test_without_its_pieces_it_is_maml():
    learner = plus_plus(learned_rates="fixed", step_batch_norm=False, multi_step_epochs=0)
    params = parameters(learner)
    assert not params.own
    ours, _ = gradients(params, maml()[1])
    for name, theirs in maml()[0].items():
        np.testing.assert_allclose(ours[name], theirs, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("learned_rates", ["variable", "layer"])
def test_equal_rates_and_batch_norm_in_every_step_are_mamls(learned_rates):
    """Once the last loss alone counts; BatchNorm's gradients by step then add up to MAML's."""
    params = parameters(plus_plus(learned_rates=learned_rates))
    ours, result = gradients(params, like_mamls(params), epoch=15)
    assert not [n for n in params.names if n.endswith(("gamma", "beta"))]
    for name, theirs in maml()[0].items():
        found = ours[name] if name in ours else ours[f"{name}_by_step"].sum(0)
        np.testing.assert_allclose(found, theirs, rtol=1e-9, atol=1e-12)
    assert float(result.objective) == pytest.approx(float(result.loss), rel=1e-14)


def test_rates_have_an_entry_a_step_and_start_where_the_inner_loop_says():
    rates = {".*": 0.1, "head/bias": 0.3, "conv1": 0.0}
    params = parameters(plus_plus(inner_loop(steps=3, inner_lr=rates)))
    found = {n: v.numpy().tolist() for n, v in params.own.items() if n.startswith("inner_lr")}
    assert found == {
        "inner_lr/conv2/kernel": [0.1] * 3,  # and none for the bias, which batch statistics cancel
        "inner_lr/head/kernel": [0.1] * 3,
        "inner_lr/head/bias": [0.3] * 3,
    }
    assert params.own["norm2/gamma_by_step"].shape == (3, 3)
    layers = parameters(plus_plus(learned_rates="layer"))
    assert [n for n in layers.own if "lr" in n] == [
        "inner_lr/conv1", "inner_lr/conv2", "inner_lr/head"
    ]  # fmt: skip
    uneven = plus_plus(inner_loop(inner_lr=rates), learned_rates="layer")
    with pytest.raises(ValueError, match="one initial rate for all variables of a layer.*'head'"):
        parameters(uneven)


def test_rates_are_in_units_where_asked():
    kept_out = parameters(plus_plus()).units("variable")
    asked = parameters(plus_plus(harmonize_rates=True)).units("variable")
    assert not [u for u in kept_out if u.startswith("inner_lr")]
    assert {u for u in asked if u not in kept_out} == {
        "inner_lr/conv1/kernel",
        "inner_lr/conv2/kernel",
        "inner_lr/head/kernel",
        "inner_lr/head/bias",
    }
    assert "norm1/gamma_by_step" in kept_out


@pytest.mark.parametrize("batch_norm", ["transductive", "inductive"])
def test_outer_gradients_are_slopes_in_its_own_parameters_too(batch_norm):
    """At the first epoch, where every step's loss counts."""
    learner = plus_plus(inner_loop(steps=3), batch_norm=batch_norm)
    tiny.assert_gradient_is_the_slope(parameters(learner), tiny.episodes(), directions=1)


@pytest.mark.parametrize("learned_rates", ["variable", "layer"])
def test_recomputing_changes_nothing(learned_rates):
    stored = parameters(plus_plus(learned_rates=learned_rates))
    again = parameters(plus_plus(inner_loop(memory="recompute"), learned_rates=learned_rates))
    meta = tiny.perturbed(stored)
    ours, theirs = gradients(again, meta)[0], gradients(stored, meta)[0]
    assert any("inner_lr" in name for name in ours)
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-10, atol=1e-13)


def test_a_rates_gradient_is_that_of_its_step():
    """With one step, φ = θ − α∇L_S: ∂L_Q/∂α of a variable is −∇L_S(θ)·∇L_Q(φ)."""
    params = parameters(plus_plus(inner_loop(steps=1), step_batch_norm=False))
    meta, one = tiny.perturbed(params), tiny.task(tiny.episodes())

    def gradient(values, images, labels):
        with tf.GradientTape() as tape:
            tape.watch(values)
            logits, _ = params.model.apply(values, meta.state, images, training=True)
            value = cross_entropy(logits, labels)
        return tape.gradient(value, values)

    first = gradient(meta.network, one.support_images, one.support_labels)
    index = {n: i for i, n in enumerate(params.model.names)}
    phi = list(meta.network)
    for name, i in index.items():
        if f"inner_lr/{name}" in meta.own:
            phi[i] = phi[i] - meta.own[f"inner_lr/{name}"][0] * first[i]
    last = gradient(phi, one.query_images, one.query_labels)
    ours, _ = gradients(params, meta)
    for name in (n for n in index if f"inner_lr/{n}" in meta.own):
        expected = -np.sum(first[index[name]] * last[index[name]])
        np.testing.assert_allclose(ours[f"inner_lr/{name}"], [expected], rtol=1e-8, atol=1e-12)


def test_the_query_pass_has_the_batch_norm_of_the_step_before_it():
    params = parameters(plus_plus())
    meta, one = tiny.perturbed(params), tiny.task(tiny.episodes())
    told = tiny.context(params)._replace(training=False)
    for steps in (0, 1, 2):
        adapted = params.learner.adapt(told._replace(steps=steps), meta, one.support_images, one.support_labels)
        gamma = adapted.params[params.model.names.index("norm2/gamma")]
        own = meta.own["norm2/gamma_by_step"][max(steps - 1, 0)]
        np.testing.assert_array_equal(gamma, own)


def test_the_weights_of_the_steps_have_the_published_values():
    np.testing.assert_allclose(step_weights(0, 5, 15), [0.2] * 5, rtol=1e-12)
    np.testing.assert_allclose(step_weights(5, 5, 15), [2 / 15] * 4 + [7 / 15], rtol=1e-12)
    np.testing.assert_allclose(step_weights(14, 5, 15)[-1], 1 - 4 / 75, rtol=1e-12)
    np.testing.assert_allclose(step_weights(999, 5, 1000), [0.006] * 4 + [0.976], rtol=1e-12)
    for epoch in (15, 400):
        np.testing.assert_array_equal(step_weights(epoch, 5, 15), [0, 0, 0, 0, 1])
    assert all(float(tf.reduce_sum(step_weights(e, 3, 7))) == pytest.approx(1) for e in range(9))


def test_the_objective_weighs_the_losses_of_all_steps():
    params = parameters(plus_plus(inner_loop(steps=3)))
    meta, one = tiny.perturbed(params), tiny.task(tiny.episodes())
    losses = []
    for steps in (1, 2, 3):
        told = tiny.context(params, steps=steps)
        adapted = params.learner.adapt(told, meta, one.support_images, one.support_labels)
        logits, _ = params.learner.predict(told, meta, adapted, one.query_images)
        losses.append(float(cross_entropy(logits, one.query_labels)))
    for epoch, weights in ((0, [1 / 3] * 3), (6, [0.2, 0.2, 0.6]), (15, [0, 0, 1])):
        told = tiny.context(params, clock=at_epoch(epoch))
        result = params.learner.objective(told, meta, one)
        assert float(result.objective) == pytest.approx(np.dot(weights, losses), rel=1e-10)
        assert float(result.loss) == pytest.approx(losses[-1], rel=1e-10)


def test_the_gradient_is_of_first_order_in_the_first_epochs():
    learner = plus_plus(learned_rates="fixed", step_batch_norm=False, multi_step_epochs=0, first_order_epochs=3)
    params = parameters(learner)
    for epoch, second in ((0, False), (2, False), (3, True)):
        ours, _ = gradients(params, maml()[1], epoch)
        for name, theirs in maml(second)[0].items():
            np.testing.assert_allclose(ours[name], theirs, rtol=1e-9, atol=1e-12)
    different = maml(False)[0]["conv1/kernel"] - maml(True)[0]["conv1/kernel"]
    assert np.abs(different).max() > 1e-5


def test_more_steps_than_were_trained_are_refused_where_each_has_its_own():
    params = parameters(plus_plus())
    with pytest.raises(ValueError, match=r"TEST_INNER_STEPS = %INNER_STEPS.*Received: 3 steps"):
        params.learner.check(params.model, 3)
    for steps in (None, 0, STEPS):
        params.learner.check(params.model, steps)
    free = dataclasses.replace(params.learner, learned_rates="fixed", step_batch_norm=False)
    free.check(params.model, 10)


def test_one_graph_of_all_tasks_as_a_batch_serves_all_epochs():
    """The losses of the early steps drop out of a graph that was traced once."""
    learner = plus_plus(multi_step_epochs=2, first_order_epochs=1)
    params, batch, before = parameters(learner), tiny.episodes(), {}
    for epoch in (0, 1, 2):
        tasks = [gradients(params, params.values(), epoch, k)[0] for k in range(tiny.N_TASKS)]
        means = [np.mean([t[name] for t in tasks], 0) for name in params.names]
        before[epoch] = np.sqrt(sum((m**2).sum() for m in means))
    tf.config.run_functions_eagerly(False)
    execution = TaskExecution(mode="vectorized")
    step = tiny.meta_step(learner, execution=execution, fused=False, rate=0.0)
    for epoch in (0, 1, 2):
        norm = step(batch, tf.constant(20 * epoch, tf.int64))["gradient_norm/total"]  # of 20 steps
        assert float(norm) == pytest.approx(before[epoch], rel=1e-8)
    assert step.traces == 1 and len({round(norm, 9) for norm in before.values()}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learned_rates": "step"}, "learned_rates must be one of fixed, layer, variable"),
        ({"multi_step_epochs": -1}, "MAMLPlusPlus.multi_step_epochs must be at least 0"),
        ({"first_order_epochs": -1}, "Received: MAMLPlusPlus.first_order_epochs = -1"),
        ({"inner": inner_loop(adapt_batch_norm=True)}, "InnerLoop.adapt_batch_norm = False"),
        ({"inner": inner_loop(steps=0)}, "InnerLoop.steps must be at least 1"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        plus_plus(**settings)
