# SPDX-License-Identifier: Apache-2.0
"""The machine's float32 peak: the fastest of NumPy's and TensorFlow's 4096³ products, all cores."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np


def measure(size: int, repeats: int) -> dict[str, float]:
    """GFLOP/s by library, the best of the repeats, which take turns."""
    import tensorflow as tf  # With its own thread pools.

    a = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    b = tf.constant(a)
    products = {"numpy": lambda: a @ a, "tensorflow": lambda: tf.matmul(b, b).numpy()}
    best = dict.fromkeys(products, 0.0)
    for _ in range(repeats + 1):
        for name, product in products.items():
            start = time.perf_counter()
            product()
            rate = 2 * size**3 / (time.perf_counter() - start) / 1e9
            best[name] = max(best[name], rate)
    return best


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    json.dump(measure(args.size, args.repeats), sys.stdout)
