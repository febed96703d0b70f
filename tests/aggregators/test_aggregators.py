"""Every aggregator: values against a float64 NumPy oracle, edge cases, ugly inputs."""

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tf_lwdgh import aggregators
from tf_lwdgh.aggregators import trees
from tf_lwdgh.aggregators import LWDGH, Mean
from tf_lwdgh.aggregators.conflict import gradient_conflict_index
from tf_lwdgh.aggregators.collectives import Collective
from tf_lwdgh.aggregators.schedules import Clock, ExploreExploit

NAMES = ["conv/kernel", "conv/bias", "head/kernel"]
LAYERS = ["conv", "conv", "head"]
SHAPES = [(2, 3), (3,), (4,)]
EXPLOIT = ExploreExploit(mode="off")
EXPLORE = ExploreExploit(mode="fixed", transition=1.0)


def random_gradients(n_tasks=4, dtype=np.float64, scale=1.0):
    r = np.random.default_rng(n_tasks)
    return [(scale * r.normal(size=(n_tasks, *s))).astype(dtype) for s in SHAPES]


def aggregate(aggregator, gradients, step=0):
    units = trees.make_units(aggregator.unit, NAMES, LAYERS)
    clock = Clock(tf.constant(step), steps_per_epoch=10, epochs=10, seed=0)
    run = tf.function(
        lambda g: aggregator(g, units=units, clock=clock, collective=Collective())
    )
    return run([tf.constant(g) for g in gradients])


def flat(gradients, members):
    return np.concatenate([gradients[i].reshape(len(gradients[i]), -1) for i in members], 1)


@pytest.mark.parametrize("n_tasks", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("unit", trees.UNITS)
def test_lwdgh_equals_the_oracle(unit, temperature, n_tasks):
    gradients = random_gradients(n_tasks)
    out = aggregate(LWDGH(unit=unit, temperature=temperature, explore=EXPLOIT), gradients)
    for name, members in trees.make_units(unit, NAMES, LAYERS).items():
        rows = flat(gradients, members)
        weights, update = oracles.lwdgh(rows, temperature)
        np.testing.assert_allclose(out.metrics[f"weights/{name}"], weights, rtol=1e-12)
        ours = np.concatenate([np.ravel(out.gradients[i]) for i in members])
        np.testing.assert_allclose(ours, update, rtol=1e-11, atol=1e-14)
        expected = oracles.gci(rows, rows.mean(0)).sum()
        np.testing.assert_allclose(out.metrics[f"gci/{name}"], expected, rtol=1e-11, atol=1e-14)


def test_gci_by_hand():
    gradients = tf.constant([[3.0, 0.0], [0.0, 4.0]], tf.float64)
    mean = tf.constant([1.5, 2.0], tf.float64)
    # ‖ḡ‖ = 2.5: 3 - 4.5 / 2.5 and 4 - 8 / 2.5.
    np.testing.assert_allclose(gradient_conflict_index(gradients, mean), [1.2, 0.8], rtol=1e-14)


def test_harmonized_update_leans_to_the_tasks_that_agree():
    agree, odd = np.ones((3, 4)), -2 * np.ones((1, 4))
    out = aggregate(LWDGH(explore=EXPLOIT), [np.ones((4, 2, 3)), np.ones((4, 3)), np.r_[agree, odd]])
    weights = out.metrics["weights/head/kernel"].numpy()
    assert weights[3] < 0.01 and np.ptp(weights[:3]) == 0
    assert (out.gradients[2].numpy() > 0.9).all()


@pytest.mark.parametrize("aggregator", [Mean(), LWDGH(explore=EXPLORE)], ids=["mean", "explore"])
@pytest.mark.parametrize("n_tasks", [1, 3, 4, 7])
def test_mean_and_explore_steps_are_the_mean(aggregator, n_tasks):
    gradients = random_gradients(n_tasks)
    out = aggregate(aggregator, gradients)
    for ours, g in zip(out.gradients, gradients):
        np.testing.assert_allclose(ours, g.mean(0), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("n_tasks", [1, 2, 3, 5, 8])
def test_explore_steps_and_identical_gradients_give_the_mean_to_the_bit(n_tasks):
    different = random_gradients(n_tasks, np.float32)
    same = [np.repeat(g[:1], n_tasks, 0) for g in different]
    for gradients, schedule in ((different, EXPLORE), (same, EXPLOIT)):
        ours = aggregate(LWDGH(explore=schedule), gradients).gradients
        for a, b in zip(ours, aggregate(Mean(), gradients).gradients):
            np.testing.assert_array_equal(a, b)


def ugly_inputs():
    r = np.random.default_rng(0)
    base = r.normal(size=(4, 6))
    yield "all_zero", 0 * base
    yield "one_zero_row", base * np.array([0, 1, 1, 1])[:, None]
    yield "opposite_rows_cancel", np.stack([base[0], -base[0], base[1], -base[1]])
    yield "rank_one", np.outer([1, -2, 3, 0.5], base[0])
    yield "one_task", base[:1]
    for power in (-30, -15, 15, 30):
        yield f"scale_1e{power}", base * 10.0**power
    yield "mixed_scales", base * np.array([1e-20, 1e-3, 1e3, 1e15])[:, None]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name, rows", list(ugly_inputs()), ids=lambda x: x if type(x) is str else "")
@pytest.mark.parametrize("cls", list(aggregators.ALL.values()), ids=list(aggregators.ALL))
def test_ugly_inputs_give_finite_updates(cls, name, rows, dtype):
    gradients = [np.reshape(rows, (-1, 2, 3)), rows[:, :3], rows[:, :4]]
    gradients = [g.astype(dtype) for g in gradients]
    out = aggregate(cls(), gradients, step=55)
    for value in [*out.gradients, *out.metrics.values()]:
        assert np.isfinite(value).all()


@pytest.mark.parametrize("name, rows", list(ugly_inputs()), ids=lambda x: x if type(x) is str else "")
def test_gci_of_ugly_inputs_equals_the_oracle(name, rows):
    ours = gradient_conflict_index(tf.constant(rows), tf.constant(rows.mean(0))).numpy()
    scale = np.abs(rows).max() or 1
    np.testing.assert_allclose(ours / scale, oracles.gci(rows, rows.mean(0)) / scale, atol=1e-12)
    assert (ours >= 0).all()


def test_zero_gradient_or_zero_mean_has_cosine_zero():
    opposite = tf.constant([[3.0, 4.0], [-3.0, -4.0], [0.0, 0.0]])
    np.testing.assert_array_equal(gradient_conflict_index(opposite, tf.zeros(2)), [5, 5, 0])
    np.testing.assert_array_equal(gradient_conflict_index(tf.zeros([1, 2]), tf.ones(2)), [0])


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="unit must be one of variable, layer, model. Received: 'x'"):
        LWDGH(unit="x")
    with pytest.raises(ValueError, match="temperature must be finite and > 0. Received: 0"):
        LWDGH(temperature=0.0)


def test_units_partition_the_variables():
    assert trees.make_units("variable", NAMES, LAYERS) == {n: [i] for i, n in enumerate(NAMES)}
    assert trees.make_units("layer", NAMES, LAYERS) == {"conv": [0, 1], "head": [2]}
    assert trees.make_units("model", NAMES, LAYERS) == {"model": [0, 1, 2]}
