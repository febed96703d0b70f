# SPDX-License-Identifier: Apache-2.0
"""The small problems behind the aggregators: optimal to 1e-8, by SciPy and by enumeration."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import linprog, nnls

from tf_lwdgh.aggregators import solvers

TOLERANCE = 1e-8  # of an objective, the largest diagonal element being 1


def graph(solve, *ranks):
    """One graph of a solver for any number of problems and tasks, given matrices [U, K, K]."""
    shapes = [[None] * 3] + [[None] * rank for rank in ranks]
    return tf.function(solve, autograph=False, input_signature=[tf.TensorSpec(s, tf.float64) for s in shapes])


simplex_minimum = graph(solvers.simplex_minimum, 2)
simplex_minimum_with_norm = graph(solvers.simplex_minimum_with_norm, 2, 2)
cone_weights = graph(solvers.cone_weights, 2)


def families(n_tasks: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows [K, D] by name, the longest of length 1: plain ones, and some with many minima."""
    r = np.random.default_rng((seed, n_tasks))
    wide, k = r.normal(size=(n_tasks, n_tasks + 3)), n_tasks
    rows = {
        "wide": wide,
        "square": r.normal(size=(k, k)),
        "two dimensions": r.normal(size=(k, 2)),
        "one dimension": r.normal(size=(k, 1)),
        "zero row": np.concatenate([wide[:-1], 0 * wide[-1:]]),
        "all zero": 0 * wide,
        "copies": np.repeat(wide[:1], k, 0),
        "a copy": np.concatenate([wide[:-1], wide[:1]]),
        "opposed": np.concatenate([wide[:-1], -0.7 * wide[:1]]),
        "nearly opposed": np.concatenate([wide[:-1], -wide[:1]]) + 1e-5 * wide,
        "nearly copies": wide[:1] + 1e-4 * wide,
        "one direction in common": wide + 2 * r.normal(size=wide.shape[1]),
        "all sizes": wide * np.logspace(-6, 0, k)[:, None],
        "one small": wide * np.where(np.arange(k) == 0, 1e-4, 1)[:, None],
    }
    longest = {name: np.sqrt((g * g).sum(1)).max() or 1.0 for name, g in rows.items()}
    return {name: g / longest[name] for name, g in rows.items()}


def grams(rows: dict[str, np.ndarray]) -> np.ndarray:
    """[U, K, K]."""
    return np.stack([g @ g.T for g in rows.values()])


def subsets(n):
    return (list(s) for k in range(1, n + 1) for s in itertools.combinations(range(n), k))


def check_simplex(w):
    assert np.isfinite(w).all() and (w >= 0).all()
    np.testing.assert_allclose(w.sum(-1), 1, rtol=1e-12)


def enumerated_minimum(matrix, linear):
    """The least ½wᵀMw + cᵀw over the simplex, of the stationary points of all its faces."""
    best = np.inf
    for s in subsets(len(linear)):
        ones = np.ones((len(s), 1))
        system = np.block([[matrix[np.ix_(s, s)], -ones], [ones.T, np.zeros((1, 1))]])
        w = np.linalg.lstsq(system, np.append(-linear[s], 1.0), rcond=1e-12)[0][:-1]
        if (w >= -1e-9).all():
            w = np.maximum(w, 0) / np.maximum(w, 0).sum()
            best = min(best, 0.5 * w @ matrix[np.ix_(s, s)] @ w + linear[s] @ w)
    return best


@pytest.mark.parametrize("n_tasks", [1, 2, 3, 4])
def test_the_quadratic_minimum_equals_the_best_of_all_faces(n_tasks):
    rows = families(n_tasks)
    matrix = grams(rows)
    r = np.random.default_rng(5)
    for linear in (0 * matrix[:, 0], 0.3 * matrix.mean(-1), r.normal(size=matrix[:, 0].shape)):
        w = simplex_minimum(matrix, linear).numpy()
        check_simplex(w)
        for i, name in enumerate(rows):
            value = 0.5 * w[i] @ matrix[i] @ w[i] + linear[i] @ w[i]
            assert value <= enumerated_minimum(matrix[i], linear[i]) + TOLERANCE, name


@pytest.mark.parametrize("n_tasks", [8, 64])
def test_the_quadratic_minimum_of_many_tasks_leaves_no_duality_gap(n_tasks):
    """f(w) - min f <= ∇f·w - min_k ∇f_k for convex f (Frank & Wolfe).

    And the shortest combination is as short as that of non-negative least squares.
    """
    rows = families(n_tasks)
    matrix = grams(rows)
    for linear in (0 * matrix[:, 0], 0.3 * matrix.mean(-1)):
        w = simplex_minimum(matrix, linear).numpy()
        check_simplex(w)
        slope = np.einsum("uij,uj->ui", matrix, w) + linear
        assert ((slope * w).sum(-1) - slope.min(-1)).max() <= TOLERANCE
    w = simplex_minimum(matrix, 0 * linear).numpy()
    for g, mine in zip(rows.values(), w):
        stacked = np.concatenate([g.T, np.ones((1, n_tasks))])
        x = nnls(stacked, np.append(np.zeros(g.shape[1]), 1.0), maxiter=100 * n_tasks)[0]
        best = (x / x.sum()) @ g
        assert 0.5 * np.square(mine @ g).sum() <= 0.5 * best @ best + TOLERANCE


def least_with_norm(rows, linear, factor):
    """The least bᵀw + a‖Σ w_k g_k‖ over the simplex.

    Either Σ w_k g_k = 0, a linear program; or on the face of w the rows are independent, and w is
    (A Aᵀ)⁻¹(t - b) up to its sum, with t from the quadratic equation that says ‖u‖ = 1.
    """
    count = len(linear)
    equal = np.vstack([rows.T, np.ones(count)])
    goal = np.append(np.zeros(rows.shape[1]), 1.0)
    program = linprog(linear, A_eq=equal, b_eq=goal, bounds=(0, None))
    best = program.fun if program.status == 0 else np.inf
    best = min(best, *(linear + factor * np.sqrt((rows * rows).sum(1))))
    for s in subsets(count):
        gram = rows[s] @ rows[s].T
        if np.linalg.cond(gram) > 1e13:
            continue
        inverse, one, b = np.linalg.inv(gram), np.ones(len(s)), linear[s]
        square = one @ inverse @ one, -2 * one @ inverse @ b, b @ inverse @ b - factor**2
        for t in np.roots(square):
            w = inverse @ (t.real - b)
            if np.isreal(t) and (w >= 0).all() and w.sum() > 0:
                w = w / w.sum()
                best = min(best, b @ w + factor * np.sqrt(np.square(w @ rows[s]).sum()))
    return best


@pytest.mark.parametrize("n_tasks", [1, 2, 3, 4])
@pytest.mark.parametrize("c", [0.01, 0.4, 0.9, 3.0])
def test_the_minimum_with_a_norm_equals_the_best_of_all_faces(n_tasks, c):
    rows = families(n_tasks, seed=1)
    matrix = grams(rows)
    linear = matrix.mean(-1)
    factor = c * np.sqrt(np.maximum(linear.mean(-1), 0))
    w = simplex_minimum_with_norm(matrix, linear, factor[:, None]).numpy()
    check_simplex(w)
    for i, (name, g) in enumerate(rows.items()):
        value = linear[i] @ w[i] + factor[i] * np.sqrt(np.square(w[i] @ g).sum())
        assert value <= least_with_norm(g, linear[i], factor[i]) + TOLERANCE * max(1, c), name


@pytest.mark.parametrize("n_tasks", [12, 64])
def test_the_minimum_with_a_norm_of_many_tasks_leaves_no_duality_gap(n_tasks):
    """Any d with ‖d - ḡ‖ <= c‖ḡ‖ has min_k g_k·d <= min_w g_w·ḡ + c‖ḡ‖‖g_w‖.

    Where both meet, w is optimal.
    """
    everything = families(n_tasks)
    rows = {name: everything[name] for name in ("wide", "one small", "one direction in common")}
    matrix = grams(rows)
    linear, c = matrix.mean(-1), 0.5
    factor = c * np.sqrt(linear.mean(-1))
    w = simplex_minimum_with_norm(matrix, linear, factor[:, None]).numpy()
    check_simplex(w)
    for i, (name, g) in enumerate(rows.items()):
        combined = w[i] @ g
        length = np.sqrt(combined @ combined)
        d = g.mean(0) + factor[i] * combined / length
        assert (g @ d).min() >= linear[i] @ w[i] + factor[i] * length - TOLERANCE, name


@pytest.mark.parametrize("n_tasks", [1, 2, 3, 4, 8, 64])
def test_cone_weights_project_as_non_negative_least_squares_does(n_tasks):
    rows = families(n_tasks, seed=2)
    matrix = grams(rows)
    first = np.zeros((len(rows), n_tasks))
    first[:, 0] = 1
    for lower in (np.full_like(first, 1 / n_tasks), first):
        w = cone_weights(matrix, lower).numpy()
        assert np.isfinite(w).all() and (w >= lower).all()
        for i, (name, g) in enumerate(rows.items()):
            x = nnls(g.T, -lower[i] @ g, maxiter=1000 * n_tasks)[0]
            best, ours = (lower[i] + x) @ g, w[i] @ g
            assert 0.5 * ours @ ours <= 0.5 * best @ best + TOLERANCE, name
            assert (g @ ours).min() >= -1e-6, name


@pytest.mark.parametrize("exponent", [0.05, 0.5, 1.0, 2.0, 10.0])
def test_the_power_equation_of_one_number_and_of_unit_matrices(exponent):
    one = np.array([[[1.0]], [[0.04]]])
    expected = np.array([[1.0], [0.04 ** (-1 / (1 + exponent))]])
    np.testing.assert_allclose(solvers.power_equation(one, exponent), expected, rtol=1e-6)
    np.testing.assert_allclose(solvers.power_equation(np.eye(5)[None], exponent), np.ones((1, 5)), rtol=1e-6)


@pytest.mark.parametrize("exponent", [0.1, 0.5, 1.0, 3.0])
def test_the_power_equation_holds(exponent):
    solve = graph(lambda matrix: solvers.power_equation(matrix, exponent))
    for n_tasks in (1, 2, 3, 4, 8, 64):
        rows = families(n_tasks, seed=3)
        matrix = grams(rows)
        alpha = solve(matrix).numpy()
        assert np.isfinite(alpha).all() and (alpha > 0).all()
        for i, name in enumerate(rows):
            # Where 0 is nearly a combination of the rows, the ridge of 1e-8 has a say.
            if np.linalg.eigvalsh(matrix[i])[0] > 1e-6 or name == "copies":
                left = matrix[i] @ alpha[i] * alpha[i] ** exponent
                np.testing.assert_allclose(left, 1, rtol=1e-4, err_msg=f"{name} {n_tasks}")


@pytest.mark.parametrize("n_tasks", [1, 2, 4, 64])
def test_pseudo_inverses(n_tasks):
    matrix = grams(families(n_tasks, seed=4))
    inverse = solvers.pseudo_inverse(matrix).numpy()
    for m, ours in zip(matrix, inverse):
        expected = np.linalg.pinv(m, rcond=1e-10, hermitian=True)
        size = max(np.abs(expected).max(), 1)
        np.testing.assert_allclose(ours / size, expected / size, atol=1e-5)
        np.testing.assert_allclose(m @ ours @ m, m, atol=1e-6)
        np.testing.assert_allclose(ours @ m, (ours @ m).T, atol=1e-5)


SOLVES = {
    "simplex": lambda m, b, a: solvers.simplex_minimum(m, b),
    "norm": solvers.simplex_minimum_with_norm,
    "cone": lambda m, b, a: solvers.cone_weights(m, b),
    "power": lambda m, b, a: solvers.power_equation(m, 0.5),
    "inverse": lambda m, b, a: solvers.pseudo_inverse(m)[..., 0],
}


@pytest.mark.parametrize("solve", SOLVES.values(), ids=list(SOLVES))
def test_leading_axes_are_batches_of_independent_problems(solve):
    matrix = grams(families(3))[:12]
    linear, factor = matrix.mean(-1), matrix.mean((-1, -2))[:, None] ** 0.5
    together = matrix.reshape(2, 6, 3, 3), linear.reshape(2, 6, 3), factor.reshape(2, 6, 1)
    batch = solve(*together).numpy()
    assert batch.shape == (2, 6, 3)
    alone = solve(matrix[0], linear[0], factor[0]).numpy()
    np.testing.assert_allclose(batch[0, 0], alone, rtol=1e-5, atol=1e-9)


def test_matrices_are_normalised_and_weights_given_the_means_length():
    matrix = np.array([[[4.0, -2.0], [-2.0, 9.0]], [[0.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_allclose(solvers.normalised(matrix)[0], matrix[0] / 9)
    np.testing.assert_array_equal(solvers.normalised(matrix)[1], matrix[1])
    weights = solvers.as_long_as_the_mean(matrix, np.array([[1.0, 3.0], [1.0, 1.0]])).numpy()
    # ‖g_1 + 3 g_2‖² = 4 - 12 + 81, ‖(g_1 + g_2)/2‖² = 9/4.
    np.testing.assert_allclose(weights, [np.array([1, 3]) * 1.5 / 73**0.5, [0, 0]], rtol=1e-14)
