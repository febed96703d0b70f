# SPDX-License-Identifier: Apache-2.0
"""Ways, shots and queries of tasks of varying shape, of data sets that are given by their descriptions alone.

    python -m bench.episode_statistics --specs=DIR --tasks=1500

DIR holds <data set>_dataset_spec.json, as Meta-Dataset's repository does, or folders of records.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from tf_lwdgh.data import store, variable_episodes
from tf_lwdgh.data.store.graph_json import from_json
from tf_lwdgh.data.variable_episodes import VariableEpisodes


def statistics(spec: store.DatasetSpec, split: str, n_tasks: int, seed: int) -> list[tuple[float, float]]:
    """Mean over tasks, and its standard error, of ways, support images, support images and queries a class."""

    def one(task: tf.Tensor):
        return variable_episodes.sample(spec, split, VariableEpisodes(), seed=seed, step=0, task=task)

    drawn = tf.data.Dataset.range(n_tasks).map(one).as_numpy_iterator()
    rows = [(len(k), k.sum(), k.mean(), q) for _, k, q, _ in drawn]
    values = np.array(rows, np.float64)
    return list(zip(values.mean(0), values.std(0, ddof=1) / n_tasks**0.5))


def descriptions(folder: pathlib.Path) -> Iterator[tuple[str, store.DatasetSpec]]:
    """The data sets described in a folder, by name."""
    for path in sorted(folder.glob(f"*_{store.SPEC_FILE}")):
        fields = from_json(json.loads(path.read_text(encoding="utf-8")))
        yield path.name.removesuffix(f"_{store.SPEC_FILE}"), store.DatasetSpec(**fields)
    for path in sorted(folder.glob(f"*/{store.SPEC_FILE}")):
        yield path.parent.name, store.DatasetSpec.load(path.parent)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--specs", required=True, type=pathlib.Path, help="a folder of descriptions")
    parser.add_argument("--tasks", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    print("| data set, split | ways | support images | a class | queries a class |\n|---|---|---|---|---|")
    for name, described in descriptions(args.specs):
        for split in store.SPLITS:
            if len(described.classes(split)):
                found = statistics(described, split, args.tasks, args.seed)
                cells = " | ".join(f"{mean:.2f} ± {error:.2f}" for mean, error in found)
                print(f"| {name}, {split} | {cells} |", flush=True)
