# SPDX-License-Identifier: Apache-2.0
"""The small problems behind the aggregators, solved inside the graph: batched, in float64, in bounded steps.

Each takes Gram matrices [..., K, K], K up to 64, whose largest diagonal element is about 1 (or all 0).
Interior-point methods: 10 to 20 Newton steps whatever the conditioning, where projected gradients would
need thousands; a step is one Cholesky factorisation of each matrix.
"""

from tf_lwdgh.aggregators.solvers.algebra import (
    SCALES,
    as_long_as_the_mean,
    length,
    normalised,
    pseudo_inverse,
)
from tf_lwdgh.aggregators.solvers.ball import best_in_ball
from tf_lwdgh.aggregators.solvers.cone import cone_weights
from tf_lwdgh.aggregators.solvers.power import power_equation
from tf_lwdgh.aggregators.solvers.simplex import simplex_minimum
from tf_lwdgh.aggregators.solvers.simplex_norm import simplex_minimum_with_norm

__all__ = [
    "SCALES",
    "as_long_as_the_mean",
    "best_in_ball",
    "cone_weights",
    "length",
    "normalised",
    "power_equation",
    "pseudo_inverse",
    "simplex_minimum",
    "simplex_minimum_with_norm",
]
