# SPDX-License-Identifier: Apache-2.0
"""What each aggregator promises: a case for each variant of its settings; the tests run over them.

A new aggregator needs a case here: its oracle, and which of the properties it has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from tests.aggregators import numpy_aggregators as oracle
from tf_lwdgh import aggregators as a


@dataclasses.dataclass(frozen=True)
class Case:
    """One variant of an aggregator.

    Attributes:
      aggregator: with unit='variable'.
      oracle: (rows [K, D], losses [K], near [D]) -> update [D]; see numpy_aggregators.
      on_j: the first two coordinates that were published on J, in the published scale.
      published_scale: published update ÷ ours, with two tasks.
      degree: n, where gradients s times as large give an update sⁿ times as large; None: no such n.
      of_equals: from a gradient [D] and K to what K copies of it give; itself by default.
      symmetric: whether the order of the tasks has no effect.
      never_conflicts: when no product of update and gradient is negative: '' (no promise),
        'always' or 'positive_weights'.
      refuses: numbers of tasks, of 1 to 8, that it is refused with.
      tolerance: of an update, relative to the longest gradient's norm.
    """

    aggregator: a.Aggregator
    oracle: Callable
    on_j: tuple[float, float] | None = None
    published_scale: float = 1.0
    degree: float | None = 1.0
    of_equals: Callable = lambda g, k: g
    symmetric: bool = True
    never_conflicts: str = ""
    refuses: tuple[int, ...] = ()
    tolerance: float = 1e-6


def _unit(g):
    return g / np.sqrt(g @ g)


def _fair_of_equals(exponent):
    """K α ‖g‖² = α^(-p), and d = α g."""
    return lambda g, k: (k * (g @ g)) ** (-1 / (1 + exponent)) * g


def _mgda(normalisation, **more):
    return Case(a.MGDA(normalisation=normalisation), oracle.mgda(normalisation), **more)


CASES: dict[str, dict[str, Case]] = {
    "Mean": {"": Case(a.Mean(), oracle.mean, on_j=(1, 1), tolerance=1e-12)},
    "LWDGH": {
        "": Case(a.LWDGH(), oracle.lwdgh(), degree=None, tolerance=1e-12),
        "cold": Case(a.LWDGH(temperature=0.1), oracle.lwdgh(0.1), degree=None, tolerance=1e-11),
        "relative": Case(a.LWDGH(scale="relative"), oracle.lwdgh(relative=True), tolerance=1e-12),
    },
    "PCGrad": {
        "": Case(a.PCGrad(), oracle.pcgrad, (0.5848, 3.8012), 2, symmetric=False, tolerance=1e-12)
    },
    "GradDrop": {
        "": Case(a.GradDrop(), oracle.graddrop(), symmetric=False, tolerance=1e-12),
        "leak": Case(a.GradDrop(leak=0.3), oracle.graddrop(0.3), symmetric=False, tolerance=1e-12),
    },
    "CAGrad": {
        f"{c} rescale {rescale}": Case(
            a.CAGrad(c=c, rescale=rescale),
            oracle.cagrad(c, rescale),
            ((0.1835, 1.2041), (0.1468, 0.9633))[rescale],
            of_equals=lambda g, k, x=(1 + c) / (1, 1 + c * c)[rescale]: x * g,
        )
        for c, rescale in ((0.5, 0), (0.5, 1))
    },
    "MGDA": {
        "": _mgda("none", on_j=(0, 1), never_conflicts="always"),
        "norm": _mgda("norm"),
        "loss": _mgda("loss"),
        "both": _mgda("both"),
    },
    "IMTLG": {
        "": Case(a.IMTLG(), oracle.imtl_g, (0.0767, 1), never_conflicts="positive_weights")
    },
    "NashMTL": {
        "free": Case(
            a.NashMTL(max_norm=None),
            oracle.nash_mtl(),
            (0.0766, 0.9985),
            degree=0,
            of_equals=lambda g, k: np.sqrt(k) * _unit(g),
            never_conflicts="always",
        ),
        "clipped": Case(
            a.NashMTL(),
            oracle.nash_mtl(1.0),
            (0.0542, 0.7061),
            degree=0,
            of_equals=lambda g, k: _unit(g),
            never_conflicts="always",
        ),
        "mean": Case(
            a.NashMTL(scale="mean"), oracle.nash_mtl(as_mean=True), never_conflicts="always"
        ),
    },
    "FairGrad": {
        "2": Case(
            a.FairGrad(),
            oracle.fairgrad(2.0),
            (0.0313, 0.7908),
            2,
            degree=-1 / 3,
            of_equals=_fair_of_equals(0.5),
        ),
        "1": Case(
            a.FairGrad(a=1.0),
            oracle.fairgrad(1.0),
            (0.0766, 0.9985),
            2,
            degree=0,
            of_equals=_fair_of_equals(1.0),
        ),
        "mean": Case(a.FairGrad(scale="mean"), oracle.fairgrad(2.0, as_mean=True)),
    },
    "AlignedMTL": {"": Case(a.AlignedMTL(), oracle.aligned_mtl, (0.2133, 0.9673))},
    "UPGrad": {"": Case(a.UPGrad(), oracle.upgrad, (0.2924, 1.9006), never_conflicts="always")},
    "DualProj": {
        "": Case(a.DualProj(), oracle.dualproj, (5 / 9, 10 / 9), never_conflicts="always")
    },
    "ConFIG": {
        "": Case(a.ConFIG(), oracle.config, (0.1588, 2.0706), 2, never_conflicts="always")
    },
    "SDMGrad": {
        "0": Case(a.SDMGrad(lam=0.0), oracle.sdmgrad(0.0), (0, 1), never_conflicts="always"),
        "0.3": Case(a.SDMGrad(), oracle.sdmgrad(0.3), (0, 1)),
    },
    "Krum": {
        "": Case(a.Krum(), oracle.krum(1), refuses=(1, 2, 3), tolerance=1e-12),
        "0 of 2": Case(
            a.Krum(f=0, selected=2), oracle.krum(0, 2), refuses=(1, 2), tolerance=1e-12
        ),
    },
    "TrimmedMean": {
        "": Case(a.TrimmedMean(), oracle.trimmed_mean(1), refuses=(2,), tolerance=1e-12),
        "2": Case(
            a.TrimmedMean(trim=2), oracle.trimmed_mean(2), refuses=(2, 3, 4), tolerance=1e-12
        ),
        "0": Case(a.TrimmedMean(trim=0), oracle.trimmed_mean(0), (1, 1), tolerance=1e-12),
    },
}  # fmt: skip

# By name and variant; and the first variant of each class.
ALL = {f"{name} {variant}".rstrip(): case for name, variants in CASES.items() for variant, case in variants.items()}
FIRST = {name: next(iter(variants.values())) for name, variants in CASES.items()}
