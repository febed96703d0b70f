# SPDX-License-Identifier: Apache-2.0
"""Time and memory of an exported model by the number of queries in a call.

    python -m bench.served_queries exported/demo --queries=1,100,10000

A 5-way 1-shot support set is learned once, by `adapt`; `predict` is timed on images of noise, the
least of several calls after the first. Every number of queries has a process of its own, and its
peak memory is what the process took beyond what it had after `adapt`. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np


def peak_memory() -> int:
    """This process's peak resident memory, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(path: str, n_queries: int, repeats: int) -> dict[str, float]:
    """Seconds of a call, and the bytes that calls took at their peak."""
    import tensorflow as tf

    with open(os.path.join(path, "assets", "metadata.json"), encoding="utf-8") as file:
        image = json.load(file)["image"]
    shape = (image["image_size"], image["image_size"], image["channels"])
    random, model = np.random.default_rng(0), tf.saved_model.load(path)
    images = random.integers(0, 256, (n_queries, *shape), np.uint8)
    classifier = model.adapt(random.integers(0, 256, (5, *shape), np.uint8), [0, 1, 2, 3, 4])
    before, times = peak_memory(), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        model.predict(classifier, images)["labels"].numpy()
        times.append(time.perf_counter() - start)
    return {"seconds": min(times[1:]), "bytes": peak_memory() - before}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder that tf_lwdgh.export wrote")
    parser.add_argument("--queries", default="1,100,1000,10000", help="numbers, with commas between")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", type=int, help="measure this number here, and print JSON")
    args = parser.parse_args()
    if args.one is not None:
        print(json.dumps(measure(args.model, args.one, args.repeats)))
        return
    print("| queries in a call | seconds | memory |\n|---|---|---|")
    for number in args.queries.split(","):
        options = [f"--one={number}", f"--repeats={args.repeats}"]
        command = [sys.executable, "-m", "bench.served_queries", args.model, *options]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"| {number} | {found['seconds']:.4f} | {found['bytes'] / 1e6:,.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
