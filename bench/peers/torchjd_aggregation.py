# SPDX-License-Identifier: Apache-2.0
"""TorchJD's aggregators, timed on one matrix: run in an environment with torch and torchjd[full].

    python bench/peers/torchjd_aggregation.py J.npy 20

Prints a JSON object: name -> {"milliseconds": median, "update": …}, updates on mean scale.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings

import numpy as np
import torch
from torchjd import aggregation

SETTINGS = {
    "CAGrad": lambda k: {"c": 0.4},
    "NashMTL": lambda k: {"n_tasks": k},
    "TrimmedMean": lambda k: {"trim_number": 1},
    "Krum": lambda k: {"n_byzantine": 1},
}
NAMES = (
    "Mean", "PCGrad", "GradDrop", "CAGrad", "MGDA", "IMTLG", "NashMTL", "UPGrad", "DualProj", "AlignedMTL",
    "ConFIG", "TrimmedMean", "Krum",
)  # fmt: skip


def timed(name: str, matrix: torch.Tensor, repeats: int) -> dict[str, object]:
    """One aggregator on one matrix [K, D]."""
    make = getattr(aggregation, name)
    aggregator = make(**SETTINGS.get(name, lambda k: {})(len(matrix)))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        aggregator(matrix)
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > 20:
            break
    return {"milliseconds": 1000 * statistics.median(seconds[1:] or seconds)}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(int(sys.argv[3]) if len(sys.argv) > 3 else torch.get_num_threads())
    jacobian = torch.from_numpy(np.load(sys.argv[1]))
    report = {name: timed(name, jacobian, int(sys.argv[2])) for name in NAMES}
    print(json.dumps(report | {"torch": torch.__version__}))
