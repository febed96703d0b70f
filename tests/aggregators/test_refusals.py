# SPDX-License-Identifier: Apache-2.0
"""Settings and numbers of tasks that have no meaning are refused, with the gin binding's name."""

import numpy as np
import pytest

from tests.aggregators import harness
from tests.aggregators.cases import ALL
from tf_lwdgh import aggregators


@pytest.mark.parametrize("case", ALL.values(), ids=list(ALL))
def test_numbers_of_tasks_that_have_no_meaning_are_refused(case):
    name = type(case.aggregator).__name__
    for n_tasks in range(1, 9):
        if n_tasks not in case.refuses:
            case.aggregator.check(n_tasks)
            continue
        with pytest.raises(ValueError, match=rf"{name}\..*OuterLoop.meta_batch_size = {n_tasks}, {name}\."):
            case.aggregator.check(n_tasks)
        with pytest.raises(ValueError, match=f"OuterLoop.meta_batch_size = {n_tasks}"):
            harness.aggregate(case.aggregator, [np.ones((n_tasks, 2))])


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (
            "Mean",
            {"unit": "x"},
            "Mean.unit must be one of variable, layer, model. Received: .* = 'x'",
        ),
        (
            "LWDGH",
            {"temperature": 0.0},
            "LWDGH.temperature must be finite and > 0. Received: .* = 0.0",
        ),
        (
            "LWDGH",
            {"scale": "log"},
            "LWDGH.scale must be one of absolute, relative. Received: .* 'log'",
        ),
        (
            "GradDrop",
            {"leak": 1.5},
            r"GradDrop.leak must be in \[0, 1\]. Received: GradDrop.leak = 1.5",
        ),
        (
            "CAGrad",
            {"c": -0.1},
            "CAGrad.c must be at least 0, and finite. Received: CAGrad.c = -0.1",
        ),
        ("CAGrad", {"c": float("inf")}, "CAGrad.c must be at least 0, and finite"),
        (
            "CAGrad",
            {"rescale": 3},
            "CAGrad.rescale must be 0, 1 or 2. Received: CAGrad.rescale = 3",
        ),
        (
            "MGDA",
            {"normalisation": "l2"},
            "MGDA.normalisation must be one of none, norm, loss, both",
        ),
        (
            "NashMTL",
            {"max_norm": 0.0},
            "NashMTL.max_norm must be above 0 and finite, or None. Received",
        ),
        ("NashMTL", {"scale": "sum"}, "NashMTL.scale must be one of published, mean"),
        ("FairGrad", {"a": 0.0}, "FairGrad.a must be .* Received: FairGrad.a = 0.0"),
        ("FairGrad", {"scale": "sum"}, "FairGrad.scale must be one of published, mean"),
        ("AlignedMTL", {"tolerance": 1.0}, r"AlignedMTL.tolerance must be in \(0, 1\)"),
        ("SDMGrad", {"lam": -1.0}, "SDMGrad.lam must be at least 0, and finite"),
        ("Krum", {"f": -1}, "Krum.f must be at least 0. Received: Krum.f = -1"),
        ("Krum", {"selected": 0}, "Krum.selected must be at least 1. Received: Krum.selected = 0"),
        ("TrimmedMean", {"trim": -1}, "TrimmedMean.trim must be at least 0. Received"),
    ],
)
def test_bad_settings_are_refused(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        aggregators.ALL[cls](**settings)


def test_not_a_number_is_refused_wherever_a_number_is_set():
    settings = {
        "LWDGH": "temperature",
        "GradDrop": "leak",
        "CAGrad": "c",
        "SDMGrad": "lam",
        "NashMTL": "max_norm",
        "FairGrad": "a",
        "AlignedMTL": "tolerance",
    }
    for cls, name in settings.items():
        with pytest.raises(ValueError, match=f"Received: {cls}.{name} = nan"):
            aggregators.ALL[cls](**{name: float("nan")})
