"""The small problems behind the aggregators, solved inside the graph: batched, in float64, to 1e-8.

Each takes matrices [..., K, K], K up to 64, and runs a fixed number of Newton steps, so that the time does
not depend on the values. The matrices are Gram matrices whose largest diagonal element is 1 (or all 0);
`_RIDGE` times the identity is added, which moves a solution's objective by no more than that.
"""

from __future__ import annotations

import tensorflow as tf

SCALES = ("published", "mean")  # of methods whose update has a length of its own
_RIDGE = 1e-12
_STEPS = 20  # interior-point steps: the gap falls by at least 3 each, usually by 10
_NORM_STEPS = 40
_EQUATION_STEPS = 40
_STAY_INSIDE = 0.99  # of the way to the boundary


def simplex_minimum(matrix: tf.Tensor, linear: tf.Tensor) -> tf.Tensor:
    """argmin over the simplex of ½ wᵀ M w + cᵀ w.

    Args:
      matrix: M, [..., K, K] float64, positive semi-definite.
      linear: c, [..., K] float64.

    Returns:
      w [..., K] float64: at least 0, summing to 1.
    """
    matrix = _with_ridge(matrix)
    return _on_simplex(lambda w: (tf.linalg.matvec(matrix, w) + linear, matrix), linear, _STEPS)


def simplex_minimum_with_norm(matrix: tf.Tensor, linear: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """argmin over the simplex of bᵀ w + a √(wᵀ M w + 1e-16), a convex function.

    Args:
      matrix: M, [..., K, K] float64, positive semi-definite.
      linear: b, [..., K] float64.
      factor: a, [..., 1] float64, at least 0.

    Returns:
      w [..., K] float64: at least 0, summing to 1.
    """
    matrix = _with_ridge(matrix)

    def derivatives(w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        along = tf.linalg.matvec(matrix, w)
        norm = tf.sqrt(_total(w * along) + 1e-16)
        unit = along / norm
        curvature = matrix - unit[..., :, None] * unit[..., None, :]
        ridge = _RIDGE * tf.eye(tf.shape(matrix)[-1], dtype=matrix.dtype)
        return linear + factor * unit, (factor / norm)[..., None] * curvature + ridge

    return _on_simplex(derivatives, linear, _NORM_STEPS)


def _on_simplex(derivatives, like: tf.Tensor, steps: int) -> tf.Tensor:
    """The minimum of a convex function over the simplex, by a primal-dual interior-point method.

    Args:
      derivatives: from w [..., K] to the gradient [..., K] and the Hessian [..., K, K].
      like: [..., K].
      steps: Newton steps.
    """
    w = tf.ones_like(like) / tf.cast(tf.shape(like)[-1], like.dtype)
    slope, _ = derivatives(w)
    spread = 0.1 * tf.reduce_max(tf.abs(slope), -1, keepdims=True) + 1e-3
    level = tf.reduce_min(slope, -1, keepdims=True) - spread  # the multiplier of Σ w = 1
    dual = slope - level  # of w >= 0

    def step(i, w, dual, level):
        slope, curvature = derivatives(w)
        residual = slope - level - dual
        gap = tf.reduce_mean(w * dual, -1, keepdims=True)
        factor = _factor(curvature + tf.linalg.diag(dual / w))
        along_ones = _backsolve(factor, tf.ones_like(w)[..., None])[..., 0]
        missing = 1 - _total(w)

        def direction(target):
            right = -residual + (target - w * dual) / w
            free = _backsolve(factor, right[..., None])[..., 0]
            d_level = (missing - _total(free)) / _total(along_ones)
            dw = free + d_level * along_ones
            return dw, (target - w * dual - dual * dw) / w, d_level

        dw, dz, _ = direction(tf.zeros_like(w))
        reach = tf.minimum(_reach(w, dw), _reach(dual, dz))
        after = tf.reduce_mean((w + reach * dw) * (dual + reach * dz), -1, keepdims=True)
        centre = tf.math.divide_no_nan(after, gap) ** 3  # Mehrotra's choice
        dw, dz, d_level = direction(tf.maximum(centre * gap, 1e-16) - dw * dz)
        reach = _STAY_INSIDE * tf.minimum(_reach(w, dw), _reach(dual, dz))
        return i + 1, w + reach * dw, dual + reach * dz, level + reach * d_level

    w = tf.maximum(_repeat(step, steps, (w, dual, level))[0], 0)
    return w / _total(w)


def cone_weights(matrix: tf.Tensor, lower: tf.Tensor) -> tf.Tensor:
    """argmin over w >= lower of ½ wᵀ M w, by a primal-dual interior-point method.

    With M the Gram matrix of some gradients this projects Σ_k lower_k g_k on their dual cone: Σ_k w_k g_k
    is the nearest vector that conflicts with none of them (Lopez-Paz & Ranzato 2017, eq. 11).

    Args:
      matrix: M, [..., K, K] float64, positive semi-definite.
      lower: [..., K] float64.

    Returns:
      w [..., K] float64.
    """
    matrix = _with_ridge(matrix)
    linear = tf.linalg.matvec(matrix, lower)  # of the excess x = w - lower >= 0
    size = tf.reduce_max(tf.abs(lower), -1, keepdims=True)
    size = tf.where(size > 0, size, tf.ones_like(size))
    excess, dual = size * tf.ones_like(lower), size * tf.ones_like(lower)

    def step(i, x, z):
        residual = tf.linalg.matvec(matrix, x) + linear - z
        gap = tf.reduce_mean(x * z, -1, keepdims=True)
        factor = _factor(matrix + tf.linalg.diag(z / x))

        def direction(target):
            right = -residual + (target - x * z) / x
            dx = _backsolve(factor, right[..., None])[..., 0]
            return dx, (target - x * z - z * dx) / x

        dx, dz = direction(tf.zeros_like(x))
        reach = tf.minimum(_reach(x, dx), _reach(z, dz))
        after = tf.reduce_mean((x + reach * dx) * (z + reach * dz), -1, keepdims=True)
        centre = tf.math.divide_no_nan(after, gap) ** 3
        dx, dz = direction(tf.maximum(centre * gap, 1e-18 * size**2) - dx * dz)
        reach = _STAY_INSIDE * tf.minimum(_reach(x, dx), _reach(z, dz))
        return i + 1, x + reach * dx, z + reach * dz

    return lower + tf.maximum(_repeat(step, _STEPS, (excess, dual))[0], 0)


def power_equation(matrix: tf.Tensor, exponent: float) -> tf.Tensor:
    """The α > 0 with M α = α^(-exponent), by Newton's method on the logarithms.

    It is the minimum of ½ αᵀ M α - Σ φ(α), with φ' = α^(-exponent): one solution where M is positive
    definite. Where M is not, as with opposed or zero gradients, it is that of M + 1e-8 I: weights of
    such directions stay finite.

    Args:
      matrix: M, [..., K, K] float64, positive semi-definite, largest diagonal element 1 (or all 0).
      exponent: above 0.

    Returns:
      α [..., K] float64, positive.
    """
    size = tf.shape(matrix)[-1]
    matrix = matrix + 1e-8 * tf.eye(size, dtype=tf.float64)
    alpha = tf.linalg.diag_part(matrix) ** (-1 / (1 + exponent))

    def step(i, alpha):
        power = alpha ** (-exponent)
        residual = tf.linalg.matvec(matrix, alpha) - power
        curvature = matrix + tf.linalg.diag(exponent * power / alpha)
        change = -_backsolve(_factor(curvature), residual[..., None])[..., 0]
        # The damped Newton step of a self-concordant function: 1/(1 + λ), λ its decrement.
        decrement = tf.sqrt(tf.maximum(-_total(residual * change), 0))
        worst = tf.reduce_max(tf.abs(change / alpha), -1, keepdims=True)
        length = tf.where(worst < 0.25, tf.ones_like(worst), 1 / (1 + tf.maximum(worst, decrement)))
        return i + 1, alpha + length * change

    return _repeat(step, _EQUATION_STEPS, (alpha,))[0]


def pseudo_inverse(matrix: tf.Tensor) -> tf.Tensor:
    """Moore and Penrose's inverse of symmetric matrices [..., K, K].

    Eigenvalues below 1e-10 of the largest count as 0: the gradients are float32, whose dependent rows are
    so to 1e-7, and their squares to 1e-14.
    """
    values, vectors = tf.linalg.eigh(matrix)
    counts = (values > 1e-10 * values[..., -1:]) & (values > 0)
    inverse = tf.where(counts, 1 / tf.where(counts, values, 1), 0)
    return tf.matmul(vectors * inverse[..., None, :], vectors, transpose_b=True)


def normalised(matrix: tf.Tensor) -> tf.Tensor:
    """Matrices divided by their largest diagonal element, [..., K, K]; 0 where that is 0."""
    largest = tf.reduce_max(tf.linalg.diag_part(matrix), -1)
    return tf.math.divide_no_nan(matrix, largest[..., None, None])


def as_long_as_the_mean(matrix: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weights whose combination has the mean gradient's length: [..., K, K], [..., K] -> [..., K]."""
    count = tf.cast(tf.shape(weights)[-1], weights.dtype)
    mean = tf.sqrt(tf.maximum(tf.reduce_sum(matrix, [-2, -1]), 0))[..., None] / count
    square = _total(weights * tf.linalg.matvec(matrix, weights))
    return weights * tf.math.divide_no_nan(mean, tf.sqrt(tf.maximum(square, 0)))


def _repeat(step, count: int, values: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
    out = tf.while_loop(
        lambda i, *_: i < count, step, (tf.constant(0), *values), parallel_iterations=1
    )
    return out[1:]


def _with_ridge(matrix: tf.Tensor) -> tf.Tensor:
    return matrix + _RIDGE * tf.eye(tf.shape(matrix)[-1], dtype=matrix.dtype)


def _factor(matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cholesky's factor of positive definite matrices scaled to a unit diagonal, and the scale."""
    scale = tf.math.rsqrt(tf.linalg.diag_part(matrix))[..., None]
    return tf.linalg.cholesky(matrix * scale * tf.linalg.matrix_transpose(scale)), scale


def _backsolve(factor: tuple[tf.Tensor, tf.Tensor], right: tf.Tensor) -> tf.Tensor:
    """M⁻¹ right, from M's factor: [..., K, S]."""
    cholesky, scale = factor
    return scale * tf.linalg.cholesky_solve(cholesky, scale * right)


def _total(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x, -1, keepdims=True)


def _reach(x: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
    """The largest part of `change`, at most all, that leaves x >= 0."""
    ratio = tf.where(change < 0, -x / change, tf.ones_like(x))
    return tf.minimum(tf.reduce_min(ratio, -1, keepdims=True), 1)
