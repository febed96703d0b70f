# SPDX-License-Identifier: Apache-2.0
"""Every aggregator on what breaks naive code: zeros, copies, opposites, extreme scales, many tasks.

The inputs of one number of tasks are the units of one call, so that none may spoil its neighbours.
"""

import numpy as np
import pytest

from tests.aggregators import harness
from tests.aggregators.cases import ALL, FIRST
from tf_lwdgh.aggregators.conflict_report import ConflictReport

every_case = pytest.mark.parametrize("case", ALL.values(), ids=list(ALL))
SCALES = (2.0**-66, 2.0**-30, 2.0**50)  # 1.4e-20, 9e-10, 1.1e15


def ugly(n_tasks: int) -> dict[str, np.ndarray]:
    """Gradients [K, 6] of at least four tasks by name, in float64."""
    r = np.random.default_rng(1)
    base = r.normal(size=(n_tasks, 6))
    first = np.arange(n_tasks) == 0
    inputs = {"plain": base} | {f"scale {s:.0e}": s * base for s in SCALES}
    return inputs | {
        "all zero": 0 * base,
        "one zero": np.where(first[:, None], 0, base),
        "one only": np.where(first[:, None], base, 0),
        "copies": np.repeat(base[:1], n_tasks, 0),
        "two copies": np.concatenate([base[:2], base[:2], base[4:]]),
        "cancelling": np.concatenate([base[:2], -base[:2], 0 * base[4:]]),
        "opposed": np.outer(np.where(first, -3, 1), base[0]),
        "nearly opposed": np.where(first[:, None], -base[1], base[1]) + 1e-6 * base,
        "nearly copies": base[0] + 1e-6 * base,
        "one dimension": base * (np.arange(6) == 2),
        "two dimensions": base * (np.arange(6) < 2),
        "mixed scales": base * np.logspace(-20, 15, n_tasks)[:, None],
        "one far larger": base * np.where(first, 1e5, 1)[:, None],
        "one far smaller": base * np.where(first, 1e-8, 1)[:, None],
    }


def not_finite(out) -> list[str]:
    """The names of what is not finite."""
    named = [(f"update {i}", g) for i, g in enumerate(out.gradients)]
    named += [*out.weights.items(), *out.metrics.items()]
    return [name for name, value in named if not np.isfinite(value).all()]


@every_case
def test_updates_are_finite_and_good_units_are_unharmed(case):
    n_tasks = 4 if 4 not in case.refuses else 5
    inputs = ugly(n_tasks)
    rows = [g.astype(np.float32) for g in inputs.values()]
    units = {name: [i] for i, name in enumerate(inputs)}
    losses = np.array([0.0, *harness.random_losses(n_tasks - 1)], np.float32)  # one task is solved
    out = harness.aggregate(case.aggregator, rows, losses, units)
    update = {name: np.float64(g) for name, g in zip(inputs, out.gradients)}
    bad = [name for name, g in update.items() if not np.isfinite(g).all()]
    assert not bad and not not_finite(out), (bad, not_finite(out))
    np.testing.assert_array_equal(update["all zero"], np.zeros(6))
    scale = np.abs(update["plain"]).max()
    if getattr(case.aggregator, "normalisation", "none") not in ("loss", "both"):
        expected = case.oracle(inputs["plain"], losses, update["plain"])
        np.testing.assert_allclose(update["plain"], expected, rtol=0, atol=1e-4 * scale)
    if case.degree is not None and case.symmetric:
        for s in SCALES:
            scaled = update[f"scale {s:.0e}"] / s**case.degree
            np.testing.assert_allclose(scaled, update["plain"], rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("name", ["GradDrop", "GradDrop leak", "PCGrad"])
@pytest.mark.parametrize("s", SCALES)
def test_random_methods_scale_with_the_gradients(name, s):
    rows, losses = harness.random_rows(5), harness.random_losses(5)
    run = harness.compiled(ALL[name].aggregator)
    for a, b in zip(run(3, losses, *rows).gradients, run(3, losses, *(s * g for g in rows)).gradients):
        np.testing.assert_allclose(b / s, a, rtol=1e-12)


@every_case
@pytest.mark.parametrize("n_tasks", [1, 2, 3, 6])
def test_equal_gradients_give_the_mean_or_the_stated_multiple(case, n_tasks):
    if n_tasks in case.refuses:
        with pytest.raises(ValueError, match=f"OuterLoop.meta_batch_size = {n_tasks}"):
            case.aggregator.check(n_tasks)
        return
    one, units = harness.random_rows(1), harness.units("layer")
    losses = np.full(n_tasks, 0.7)
    out = harness.compiled(case.aggregator)(0, losses, *(np.repeat(g, n_tasks, 0) for g in one))
    for members in units.values():
        gradient = harness.flat(one, members)[0]
        ours = harness.flat_update(out.gradients, members)
        np.testing.assert_allclose(ours, case.of_equals(gradient, n_tasks), rtol=1e-6)


@pytest.mark.parametrize("case", FIRST.values(), ids=list(FIRST))
def test_sixty_four_tasks(case):
    r = np.random.default_rng(2)
    wide = r.normal(size=(64, 100))
    rows = {"shared": wide + 3 * wide[:1], "wide": wide, "narrow": wide[:, :6]}
    square = r.normal(size=(64, 64))
    for name, g in (("wide", wide), ("square", square)):
        rows[f"one pair {name}"] = np.concatenate([-g[1:2] * (1 + 1e-5), g[1:]])
    rows["in pairs"] = np.concatenate([-wide[:32] * (1 + 1e-5), wide[:32]])
    rows["of all sizes"] = np.logspace(-8, 0, 64)[:, None] * wide
    rows = {name: g.astype(np.float32) for name, g in rows.items()}
    units = {name: [i] for i, name in enumerate(rows)}
    out = harness.aggregate(case.aggregator, rows.values(), harness.random_losses(64), units)
    assert not not_finite(out)
    # One common direction outweighs the noise: every method goes that way.
    common = wide[0] / np.linalg.norm(wide[0])
    assert np.dot(out.gradients[0], common) > 0.3 * np.linalg.norm(out.gradients[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", sorted(set(FIRST) - {"TrimmedMean"}))  # which leaves such values out
def test_what_is_not_a_number_stays_so_and_spoils_its_own_unit_only(name, bad):
    """So that a run stops with its own message, and no solver goes on for ever."""
    good = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)
    spoilt = good.copy()
    spoilt[1] = bad
    out = harness.aggregate(FIRST[name].aggregator, [good, spoilt, good])
    assert not np.isfinite(out.gradients[1]).any()
    assert np.isfinite(out.gradients[0]).all() and np.isfinite(out.gradients[2]).all()


def test_the_report_of_ugly_gradients_is_finite():
    inputs = ugly(4)
    rows = [g.astype(np.float32) for g in inputs.values()]
    tasks = harness.tasks(rows, units_={name: [i] for i, name in enumerate(inputs)})
    metrics = ConflictReport().measure(tasks, tasks.mean)
    assert not [name for name, value in metrics.items() if not np.isfinite(value).all()]
    assert metrics["gci/all zero"] == 0 and metrics["conflict_rate/all zero"] == 0
    assert metrics["update_cosine/all zero"] == 0
    np.testing.assert_allclose(metrics["cosines/mixed scales"], metrics["cosines/plain"], atol=1e-6)
    np.testing.assert_allclose(metrics["gci/copies"], 0, atol=1e-5)
