# SPDX-License-Identifier: Apache-2.0
"""Every aggregator of the registry: published values, oracles, the properties that it promises."""

import numpy as np
import pytest

from tests.aggregators import harness
from tests.aggregators.cases import ALL, CASES, FIRST
from tests.aggregators.harness import J
from tf_lwdgh import aggregators
from tf_lwdgh.aggregators.explore_exploit import ExploreExploit

every_case = pytest.mark.parametrize("case", ALL.values(), ids=list(ALL))
first_cases = pytest.mark.parametrize("case", FIRST.values(), ids=list(FIRST))


def having(**wanted):
    """Parametrises over the cases whose attributes are truthy, or are not."""
    chosen = {
        name: case
        for name, case in ALL.items()
        if all((getattr(case, attribute) not in (None, "", False)) == v for attribute, v in wanted.items())
    }
    return pytest.mark.parametrize("case", chosen.values(), ids=list(chosen))


def close(ours, expected, rows, tolerance):
    """Compares updates [D] relative to the longest row, or the largest element if that is more."""
    size = max(np.sqrt((rows * rows).sum(1)).max(), np.abs(expected).max())
    np.testing.assert_allclose(ours / size, expected / size, rtol=0, atol=tolerance)


def check_against_oracle(case, out, rows, losses, units):
    for name, members in units.items():
        mine = harness.flat(rows, members)
        ours = harness.flat_update(out.gradients, members)
        close(ours, case.oracle(mine, losses, ours), mine, case.tolerance)
        if out.weights:
            close(ours, out.weights[name].numpy() @ mine, mine, 1e-12)


def test_every_aggregator_has_a_case():
    missing = sorted(set(aggregators.ALL) - set(CASES))
    assert not missing, f"no case in tests/aggregators/cases.py for: {', '.join(missing)}"
    for name, variants in CASES.items():
        assert variants and {type(c.aggregator) for c in variants.values()} == {aggregators.ALL[name]}


@pytest.mark.parametrize("name", aggregators.ALL)
def test_it_states_where_it_comes_from(name):
    cls = aggregators.ALL[name]
    assert cls.reference and cls.equation and cls.__doc__


@having(on_j=True)
def test_published_values_on_the_example(case):
    (update,) = harness.aggregate(case.aggregator, [J]).gradients
    first, second = case.on_j
    expected = np.array([first, second, second]) / case.published_scale
    np.testing.assert_allclose(update, expected, rtol=0, atol=5.1e-5)


def test_the_projected_mean_is_near_what_torchjd_gives():
    """It adds 1e-4 to the Gram matrix; its tests print .5563 and 1.1109."""
    (update,) = harness.aggregate(aggregators.DualProj(), [J]).gradients
    np.testing.assert_allclose(update, [0.5563, 1.1109, 1.1109], atol=1e-3)


def test_cagrad_keeps_the_scale_of_equal_gradients_with_rescale_two():
    (free,) = harness.aggregate(aggregators.CAGrad(c=0.25, rescale=0), [J]).gradients
    (kept,) = harness.aggregate(aggregators.CAGrad(c=0.25, rescale=2), [J]).gradients
    np.testing.assert_allclose(1.25 * kept, free, rtol=1e-14)
    (mean,) = harness.aggregate(aggregators.CAGrad(c=0.0, rescale=2), [J]).gradients
    np.testing.assert_allclose(mean, [1, 1, 1], rtol=1e-14)


def test_krum_by_hand():
    """At 0, 1, 3, 7, 20 the squared distances to the two nearest sum to 10, 5, 13, 52, 458."""
    rows = np.array([[0.0], [1.0], [3.0], [7.0], [20.0]])
    for selected, expected in ((1, 1.0), (2, 0.5), (3, 4 / 3)):
        (update,) = harness.aggregate(aggregators.Krum(f=1, selected=selected), [rows]).gradients
        np.testing.assert_allclose(update, [expected], rtol=1e-15)


def test_trimmed_mean_by_hand():
    rows = np.array([[1.0, 9.0], [2.0, -7.0], [30.0, 0.0], [-50.0, 1.0], [4.0, 2.0]])
    for trim, expected in ((0, [-2.6, 1.0]), (1, [7 / 3, 1.0]), (2, [2.0, 1.0])):
        (update,) = harness.aggregate(aggregators.TrimmedMean(trim=trim), [rows]).gradients
        np.testing.assert_allclose(update, expected, rtol=1e-14)


@every_case
def test_it_equals_its_oracle_from_two_to_five_tasks(case):
    units = harness.units("layer")
    for n_tasks, seed in ((2, 0), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1), (5, 0)):
        if n_tasks in case.refuses:
            continue
        rows = harness.random_rows(n_tasks, seed)
        losses = harness.random_losses(n_tasks, seed)
        out = harness.compiled(case.aggregator)(seed, losses, *rows)
        check_against_oracle(case, out, rows, losses, units)


@pytest.mark.parametrize("unit", ["variable", "model"])
@first_cases
def test_each_unit_is_an_aggregation_of_its_own(case, unit):
    n_tasks = 3 if 3 not in case.refuses else 4
    units = harness.units(unit)
    rows, losses = harness.random_rows(n_tasks, 7), harness.random_losses(n_tasks)
    out = harness.aggregate(case.aggregator, rows, losses, units)
    check_against_oracle(case, out, rows, losses, units)
    assert set(out.weights) in (set(), set(units))
    assert [tuple(g.shape) for g in out.gradients] == harness.SHAPES


@having(symmetric=True)
def test_the_order_of_the_tasks_has_no_effect(case):
    rows, losses = harness.random_rows(5), harness.random_losses(5)
    order, run = [3, 0, 4, 1, 2], harness.compiled(case.aggregator)
    before, after = run(0, losses, *rows), run(0, losses[order], *(g[order] for g in rows))
    for a, b in zip(before.gradients, after.gradients):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-9 * np.abs(a).max())
    for name, weights in before.weights.items():
        np.testing.assert_allclose(after.weights[name], weights.numpy()[order], rtol=1e-6, atol=1e-7)


def random_matrices(n=20, n_tasks=4, n_dims=8):
    """Rows that conflict with one another and with their mean, more often than not."""
    r = np.random.default_rng(11)
    return [r.normal(size=(n_tasks, n_dims)) * r.uniform(0.05, 2, (n_tasks, 1)) for _ in range(n)]


@having(never_conflicts=True)
def test_its_update_conflicts_with_no_task(case):
    matrices = random_matrices()
    out = harness.aggregate(case.aggregator, matrices)
    promised = 0
    for rows, update, weights in zip(matrices, out.gradients, out.weights.values()):
        if case.never_conflicts == "positive_weights" and (weights.numpy() < 0).any():
            continue
        promised += 1
        norms = np.sqrt((rows * rows).sum(1)) * np.sqrt(np.square(update).sum())
        assert (rows @ update.numpy() / norms).min() >= -1e-6
        assert (rows @ update.numpy()).min() >= -1e-9 * np.square(rows).sum(1).max()
    assert promised >= 3


@pytest.mark.parametrize("name", ["Mean", "CAGrad", "LWDGH", "PCGrad"])
def test_others_conflict_on_the_same_matrices(name):
    matrices = random_matrices()
    updates = harness.aggregate(FIRST[name].aggregator, matrices).gradients
    assert min((rows @ d.numpy()).min() for rows, d in zip(matrices, updates)) < -1e-2


@first_cases
def test_it_is_traced_once_and_the_graph_gives_what_eager_calls_give(case):
    n_tasks = next(k for k in (2, 3, 4, 5) if k not in case.refuses)
    rows, losses = harness.random_rows(n_tasks), harness.random_losses(n_tasks)
    run = harness.compiled(case.aggregator)
    ours = [run(step, losses, *rows) for step in (1, 2, 25)][-1]
    eager = harness.aggregate(case.aggregator, rows, losses, harness.units("layer"), step=25)
    for a, b in zip(ours.gradients, eager.gradients):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)
    assert run.experimental_get_tracing_count() == 1


@every_case
def test_exploring_is_the_mean_to_the_bit(case):
    n_tasks = next(k for k in (4, 5) if k not in case.refuses)
    rows, losses = harness.random_rows(n_tasks), harness.random_losses(n_tasks)
    tasks, clock = harness.tasks(rows, losses), harness.clock(5)
    exploit = harness.compiled(case.aggregator)(5, losses, *rows)
    explored = ExploreExploit(mode="fixed", transition=1.0).over(exploit, tasks, clock)
    exploited = ExploreExploit(mode="fixed", p_max=0.0, transition=1.0).over(exploit, tasks, clock)
    means = aggregators.Mean()(tasks, clock).gradients
    for i, mean in enumerate(means):
        np.testing.assert_array_equal(explored.gradients[i], mean)
        np.testing.assert_array_equal(exploited.gradients[i], exploit.gradients[i])
    assert explored.metrics["explore/flag"] == 1 and exploited.metrics["explore/flag"] == 0
    for weights in explored.weights.values():
        np.testing.assert_array_equal(weights, np.full(n_tasks, 1 / n_tasks))
