# SPDX-License-Identifier: Apache-2.0
"""Each aggregator from its definition in float64 NumPy: rows [K, D] to an update [D] of mean scale.

They share nothing with the package's solvers: minima over the simplex and the dual cone come from
non-negative least squares (Lawson & Hanson), CAGrad's from an enumeration of the active sets,
Nash's from a root finder, the spectral ones from the singular values of the rows themselves.

An oracle takes (rows, losses, near): the tasks' losses [K], and the update that it is compared
with, which only methods with random draws look at: of all that some draw gives, the nearest.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import nnls, root

from tests import oracles


def mean(rows, losses=None, near=None):
    return rows.mean(0)


def lwdgh(temperature=1.0, relative=False):
    def update(rows, losses=None, near=None):
        index = oracles.gci(rows, rows.mean(0))
        if relative:
            index = index / np.mean([np.sqrt(g @ g) for g in rows])
        scores = np.exp(-(index - index.min()) / temperature)
        return scores / scores.sum() @ rows

    return update


def pcgrad(rows, losses=None, near=None):
    """The update of some choice of orders, one a task: that nearest to `near`."""
    candidates = [_surgeries(rows, i) for i in range(len(rows))]
    return min(
        (np.mean(choice, 0) for choice in itertools.product(*candidates)),
        key=lambda d: np.abs(d - near).max(),
    )


def _surgeries(rows, i):
    """Task i's projected gradient for every order of the others, without repetitions."""
    results = {}
    for order in itertools.permutations([j for j in range(len(rows)) if j != i]):
        g = rows[i].copy()
        for j in order:
            product = g @ rows[j]
            if product < 0:
                g = g - product / (rows[j] @ rows[j]) * rows[j]
        results[tuple(np.round(g, 9))] = g
    return list(results.values())


def graddrop(leak=0.0):
    def update(rows, losses=None, near=None):
        kept = np.stack([np.where(rows > 0, rows, 0).sum(0), np.where(rows < 0, rows, 0).sum(0)])
        options = leak * rows.mean(0) + (1 - leak) * kept / len(rows)
        # A coordinate with gradients of one sign has one option only.
        possible = np.stack([(rows > 0).any(0), (rows < 0).any(0)])
        options = np.where(possible, options, options[::-1])
        best = np.abs(options - near).argmin(0)
        return np.take_along_axis(options, best[None], 0)[0]

    return update


def cagrad(c, rescale=0):
    def update(rows, losses=None, near=None):
        d = _best_in_ball(rows, c)
        return d / (1.0, 1 + c * c, 1 + c)[rescale]

    return update


def _best_in_ball(rows, c):
    """The d with ‖d - ḡ‖ <= c‖ḡ‖ whose least product with a row is largest, by enumeration.

    There d = ḡ + r u, r = c‖ḡ‖, u a unit vector in the cone of the active rows A, on which
    A d = t: with w = (A Aᵀ)⁻¹(t - Aḡ)/r and u = Aᵀw, ‖u‖ = 1 is a quadratic equation for t.
    """
    mean_row = rows.mean(0)
    r = c * np.sqrt(mean_row @ mean_row)
    best, value = mean_row, (rows @ mean_row).min()
    for size in range(1, len(rows) + 1):
        for active in itertools.combinations(range(len(rows)), size):
            a = rows[list(active)]
            inverse, b, one = np.linalg.inv(a @ a.T), a @ mean_row, np.ones(size)
            square = [one @ inverse @ one, -2 * one @ inverse @ b, b @ inverse @ b - r * r]
            for t in np.roots(square):
                if np.isreal(t):
                    d = mean_row + a.T @ inverse @ (t.real - b)
                    inside = np.linalg.norm(d - mean_row) <= r * (1 + 1e-6)
                    if inside and (rows @ d).min() > value:
                        best, value = d, (rows @ d).min()
    return best


def shortest_weights(rows):
    """argmin over the simplex of ‖Σ w_k g_k‖.

    The x >= 0 that minimises ‖Σ x_k g_k‖² + (Σx - 1)² is a multiple of it.
    """
    size = max(np.sqrt((rows * rows).sum(1)).max(), 1e-300)
    stacked = np.concatenate([rows.T / size, np.ones((1, len(rows)))])
    x, _ = nnls(stacked, np.append(np.zeros(rows.shape[1]), 1.0), maxiter=1000 * len(rows))
    return x / x.sum()


def mgda(normalisation="none"):
    def update(rows, losses, near=None):
        size = np.ones(len(rows))
        if normalisation in ("norm", "both"):
            size = size * np.sqrt((rows * rows).sum(1))
        if normalisation in ("loss", "both"):
            size = size * losses
        return shortest_weights(rows / size[:, None]) @ rows

    return update


def sdmgrad(lam):
    def update(rows, losses=None, near=None):
        moved = rows + lam * rows.mean(0)
        return shortest_weights(moved) @ moved / (1 + lam)

    return update


def projected(vector, rows):
    """The nearest point of the dual cone {d : rows d >= 0}: vector + Σ x_k g_k with some x >= 0."""
    x, _ = nnls(rows.T, -vector, maxiter=1000 * len(rows))
    return vector + x @ rows


def dualproj(rows, losses=None, near=None):
    return projected(rows.mean(0), rows)


def upgrad(rows, losses=None, near=None):
    return np.mean([projected(g, rows) for g in rows], 0)


def imtl_g(rows, losses=None, near=None):
    """From the definition: d = Σ α_k g_k, Σα = 1, whose projections on all unit rows are equal."""
    k = len(rows)
    unit = rows / np.sqrt((rows * rows).sum(1))[:, None]
    equal = (unit[:-1] - unit[1:]) @ rows.T  # (u_k - u_{k+1})·d = 0
    alpha = np.linalg.lstsq(np.vstack([equal, np.ones(k)]), np.append(np.zeros(k - 1), 1), rcond=None)[0]
    return alpha @ rows


def power_weights(rows, exponent):
    """The α > 0 with G α = α^(-exponent)."""
    gram = rows @ rows.T
    start = -np.log(np.diag(gram)) / (1 + exponent)
    found = root(
        lambda x: np.log(np.maximum(gram @ np.exp(x), 1e-12)) + exponent * x,
        start, method="lm", options={"xtol": 1e-14, "ftol": 1e-14},
    )  # fmt: skip
    alpha = np.exp(found.x)
    residual = np.abs(gram @ alpha * alpha**exponent - 1).max()
    assert residual < 1e-8, f"the oracle has not found its root: {residual}"
    return alpha


def nash_mtl(max_norm=None, as_mean=False):
    def update(rows, losses=None, near=None):
        d = power_weights(rows, 1.0) @ rows
        if as_mean:
            return _as_long_as_the_mean(d, rows)
        return d if max_norm is None else d * min(1.0, max_norm / np.sqrt(d @ d))

    return update


def fairgrad(a, as_mean=False):
    def update(rows, losses=None, near=None):
        d = power_weights(rows, 1 / a) @ rows / len(rows)
        return _as_long_as_the_mean(d, rows) if as_mean else d

    return update


def _as_long_as_the_mean(d, rows):
    return d * np.sqrt(rows.mean(0) @ rows.mean(0)) / np.sqrt(d @ d)


def aligned_mtl(rows, losses=None, near=None):
    """The rows J = U Σ Vᵀ with all singular values made the least, σ U Vᵀ; then their mean."""
    u, s, v = np.linalg.svd(rows, full_matrices=False)
    keep = s > 1e-5 * s[0]
    return (s[keep].min() * u[:, keep] @ v[keep]).mean(0)


def config(rows, losses=None, near=None):
    unit = rows / np.sqrt((rows * rows).sum(1))[:, None]
    along = np.linalg.pinv(unit) @ np.ones(len(rows))
    along = along / np.sqrt(along @ along)
    return (rows @ along).mean() * along


def krum(f, selected=1):
    """With K = f + 3 the nearest two always tie; then any of them will do."""

    def update(rows, losses=None, near=None):
        scores = np.empty(len(rows))
        for i, g in enumerate(rows):
            distances = sorted(((g - h) ** 2).sum() for j, h in enumerate(rows) if j != i)
            scores[i] = sum(distances[: len(rows) - f - 2])
        bound = np.sort(scores)[selected - 1] * (1 + 1e-9)
        candidates = itertools.combinations(np.flatnonzero(scores <= bound), selected)
        return min((rows[list(c)].mean(0) for c in candidates), key=lambda d: np.abs(d - near).max())

    return update


def trimmed_mean(trim):
    def update(rows, losses=None, near=None):
        if len(rows) == 1:
            return rows[0]
        return np.array([np.mean(sorted(x)[trim : len(x) - trim]) for x in rows.T])

    return update
