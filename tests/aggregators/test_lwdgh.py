# SPDX-License-Identifier: Apache-2.0
"""LWDGH and its conflict index: values against a float64 NumPy oracle, by hand, on ugly inputs."""

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.aggregators import harness
from tf_lwdgh.aggregators import LWDGH, Mean, trees
from tf_lwdgh.aggregators.conflict import gradient_conflict_index
from tf_lwdgh.aggregators.lwdgh import INDICES
from tf_lwdgh.aggregators.trees import measured


@pytest.mark.parametrize("temperature", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("unit", trees.UNITS)
def test_it_equals_the_oracle(unit, temperature):
    units = harness.units(unit)
    for n_tasks in (1, 2, 3, 4, 9):
        rows = harness.random_rows(n_tasks)
        out = harness.aggregate(LWDGH(temperature=temperature), rows, units_=units)
        assert set(out.weights) == set(units)
        for name, members in units.items():
            weights, update = oracles.lwdgh(harness.flat(rows, members), temperature)
            np.testing.assert_allclose(out.weights[name], weights, rtol=1e-12)
            ours = harness.flat_update(out.gradients, members)
            np.testing.assert_allclose(ours, update, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("n_tasks", [1, 2, 4])
def test_relative_scale_divides_by_the_mean_norm(n_tasks):
    units = harness.units("layer")
    rows = harness.random_rows(n_tasks)
    out = harness.aggregate(LWDGH(scale="relative", temperature=0.7), rows, units_=units)
    for name, members in units.items():
        mine = harness.flat(rows, members)
        mean_norm = np.mean([np.sqrt(g @ g) for g in mine])
        weights, update = oracles.lwdgh(mine, 0.7 * mean_norm)
        np.testing.assert_allclose(out.weights[name], weights, rtol=1e-12)
        ours = harness.flat_update(out.gradients, members)
        np.testing.assert_allclose(ours, update, rtol=1e-11, atol=1e-14)


def numpy_index(kind: str, gradients: np.ndarray) -> np.ndarray:
    """Each index from its words, of [K, D] float64."""
    mean = gradients.mean(0)
    norms, mean_norm = np.linalg.norm(gradients, axis=1), np.linalg.norm(mean)
    products = gradients @ mean
    return {
        "gci": norms - products / mean_norm,
        "printed": (norms - products) / mean_norm,
        "cosine": 1 - products / (norms * mean_norm),
        "norm": norms,
    }[kind]


KINDS = [*((index, "absolute") for index in INDICES), ("gci", "relative"), ("norm", "relative")]


@pytest.mark.parametrize("opposite", [False, True])
@pytest.mark.parametrize(("index", "scale"), KINDS)
def test_the_weights_are_the_softmax_of_the_chosen_index(index, scale, opposite):
    units = harness.units("layer")
    rows = harness.random_rows(5)
    made = LWDGH(index=index, scale=scale, opposite=opposite, temperature=0.7)
    out = harness.aggregate(made, rows, units_=units)
    for name, members in units.items():
        mine = np.array(harness.flat(rows, members))
        values = numpy_index(index, mine)
        values = values / np.linalg.norm(mine, axis=1).mean() if scale == "relative" else values
        expected = np.exp((values if opposite else -values) / 0.7)
        np.testing.assert_allclose(out.weights[name], expected / expected.sum(), rtol=1e-11)


@pytest.mark.parametrize("index", ["cosine", "printed"])
def test_an_index_without_the_norms_scale_has_no_relative_one(index):
    with pytest.raises(ValueError, match=f"LWDGH.scale must be 'absolute' with LWDGH.index = '{index}'"):
        LWDGH(index=index, scale="relative")


@pytest.mark.parametrize(("index", "scale"), KINDS)
def test_every_index_is_finite_where_gradients_or_their_mean_are_zero(index, scale):
    for rows in (np.zeros((4, 6)), np.array([[1.0, 2], [-1, -2]]), np.array([[0.0, 0], [3, 1]])):
        out = harness.aggregate(LWDGH(index=index, scale=scale), [rows])
        assert np.isfinite(out.weights["v0"]).all() and np.isfinite(out.gradients[0]).all()
        np.testing.assert_allclose(np.sum(out.weights["v0"]), 1, rtol=1e-12)


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**40])
def test_relative_weights_do_not_depend_on_the_gradients_scale_and_absolute_ones_do(scale):
    rows = harness.random_rows(4, dtype=np.float32)
    scaled = [(scale * g).astype(np.float32) for g in rows]
    for kind, same in (("relative", True), ("absolute", False)):
        a, b = (harness.aggregate(LWDGH(scale=kind), r).weights["v0"] for r in (rows, scaled))
        assert np.allclose(a, b, atol=1e-6) == same
    # A large scale is an arg min, a small one the mean.
    extreme = harness.aggregate(LWDGH(), scaled).weights["v0"].numpy()
    np.testing.assert_allclose(extreme.max(), 1.0 if scale > 1 else 0.25, rtol=1e-6)


def test_a_high_temperature_is_the_mean_and_a_low_one_the_task_of_least_conflict():
    rows = harness.random_rows(4)
    hot = harness.aggregate(LWDGH(temperature=1e9), rows).gradients
    for a, b in zip(hot, harness.aggregate(Mean(), rows).gradients):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
    cold = harness.aggregate(LWDGH(temperature=1e-6), rows).gradients
    flat = rows[0].reshape(4, -1)
    least = oracles.gci(flat, flat.mean(0)).argmin()
    np.testing.assert_allclose(cold[0], rows[0][least], rtol=1e-12)


def test_the_update_leans_to_the_tasks_that_agree():
    rows = np.r_[np.ones((3, 4)), -2 * np.ones((1, 4))]
    out = harness.aggregate(LWDGH(), [rows])
    weights = out.weights["v0"].numpy()
    assert weights[3] < 0.01 and np.ptp(weights[:3]) == 0
    assert (out.gradients[0].numpy() > 0.9).all()


@pytest.mark.parametrize(("index", "scale"), KINDS)
@pytest.mark.parametrize("n_tasks", [1, 2, 3, 5, 8])
def test_identical_gradients_give_the_mean_to_the_bit(n_tasks, index, scale):
    rows = [np.repeat(g, n_tasks, 0) for g in harness.random_rows(1, dtype=np.float32)]
    ours = harness.aggregate(LWDGH(index=index, scale=scale), rows).gradients
    for a, b in zip(ours, harness.aggregate(Mean(), rows).gradients):
        np.testing.assert_array_equal(a, b)


def gci(gradients: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
    return gradient_conflict_index(measured(gradients), measured(mean))


def test_gci_by_hand():
    gradients = tf.constant([[3.0, 0.0], [0.0, 4.0]], tf.float64)
    mean = tf.constant([1.5, 2.0], tf.float64)
    # ‖ḡ‖ = 2.5: 3 - 4.5 / 2.5 and 4 - 8 / 2.5.
    np.testing.assert_allclose(gci(gradients, mean), [1.2, 0.8], rtol=1e-14)


def ugly_inputs():
    base = np.random.default_rng(0).normal(size=(4, 6))
    yield "all_zero", 0 * base
    yield "one_zero_row", base * np.array([0, 1, 1, 1])[:, None]
    yield "opposite_rows_cancel", np.stack([base[0], -base[0], base[1], -base[1]])
    yield "rank_one", np.outer([1, -2, 3, 0.5], base[0])
    yield "one_task", base[:1]
    for power in (-30, -15, 15, 30):
        yield f"scale_1e{power}", base * 10.0**power
    yield "mixed_scales", base * np.array([1e-20, 1e-3, 1e3, 1e15])[:, None]


@pytest.mark.parametrize(("name", "rows"), [pytest.param(n, r, id=n) for n, r in ugly_inputs()])
def test_gci_of_ugly_inputs_equals_the_oracle(name, rows):
    ours = gci(tf.constant(rows), tf.constant(rows.mean(0))).numpy()
    scale = np.abs(rows).max() or 1
    np.testing.assert_allclose(ours / scale, oracles.gci(rows, rows.mean(0)) / scale, atol=1e-12)
    assert (ours >= 0).all()


def test_zero_gradient_or_zero_mean_has_cosine_zero():
    opposite = tf.constant([[3.0, 4.0], [-3.0, -4.0], [0.0, 0.0]])
    np.testing.assert_array_equal(gci(opposite, tf.zeros(2)), [5, 5, 0])
    np.testing.assert_array_equal(gci(tf.zeros([1, 2]), tf.ones(2)), [0])
