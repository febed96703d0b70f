# SPDX-License-Identifier: Apache-2.0
"""Accuracy of exported models by how queries come: a balanced batch, one by one, class by class.

    python -m bench.served_accuracy --data_dir=data exported/inductive exported/transductive

Each SavedModel learns the support set of every task once, by `adapt`, and answers by `predict`. The
data set and the ways are those of its metadata; all models see the same tasks. Prints a Markdown
table of mean accuracies in per cent ± 95 % interval over tasks.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from tf_lwdgh.data import store
from tf_lwdgh.data.episodes import EpisodeConfig
from tf_lwdgh.data.image_source import ImageSource
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.data.task_lists import TaskList
from tf_lwdgh.outer.evaluation import mean_and_interval


class Task(NamedTuple):
    """One task as whoever calls the model has it."""

    support_images: np.ndarray  # [N*K, S, S, C] uint8
    support_labels: np.ndarray  # [N*K] int32
    query_images: np.ndarray  # [N, Q, S, S, C] uint8


Labels = Callable[[np.ndarray], np.ndarray]  # from images [B, S, S, C] to labels [B]


def in_one_call(labels_of: Labels, queries: np.ndarray) -> np.ndarray:
    """Labels [N, Q] of queries [N, Q, S, S, C], all asked for together."""
    return labels_of(queries.reshape(-1, *queries.shape[2:])).reshape(queries.shape[:2])


def one_by_one(labels_of: Labels, queries: np.ndarray) -> np.ndarray:
    """As `in_one_call`, with a call a query."""
    return np.array([[labels_of(query[None])[0] for query in of_class] for of_class in queries])


def class_by_class(labels_of: Labels, queries: np.ndarray) -> np.ndarray:
    """As `in_one_call`, with a call for all queries of a class."""
    return np.array([labels_of(of_class) for of_class in queries])


WAYS = {
    "all queries in a call": in_one_call,
    "one query a call": one_by_one,
    "one class a call": class_by_class,
}


def described(path: str) -> dict[str, Any]:
    """The metadata of a SavedModel."""
    with open(os.path.join(path, "assets", "metadata.json"), encoding="utf-8") as file:
        return json.load(file)


def tasks(args: argparse.Namespace, about: dict[str, Any]) -> Iterator[Task]:
    """Tasks of the data set that a model was trained on, of its ways."""
    folder, spec = store.open_dataset(args.data_dir, about["dataset"])
    episode = EpisodeConfig(about["trained_n_way"], args.k_shot, args.n_query)
    listed = TaskList.draw(spec, args.split, episode, seed=args.seed, n_tasks=args.tasks)
    size = {name: about["image"][name] for name in ("image_size", "channels")}
    source = ImageSource(folder, spec, args.split, ImageConfig(**size))
    labels = np.repeat(np.arange(episode.n_way, dtype=np.int32), episode.k_shot)
    for class_ids, indices in zip(listed.class_ids, listed.image_indices):
        rows = source.rows(tf.constant(class_ids), tf.constant(indices))
        images = source.gather(tf.reshape(rows, [-1])).numpy()
        images = images.reshape(*indices.shape, *images.shape[1:])
        support = images[:, : episode.k_shot].reshape(-1, *images.shape[2:])
        yield Task(support, labels, images[:, episode.k_shot :])


def accuracies(path: str, args: argparse.Namespace) -> dict[str, np.ndarray]:
    """The accuracy of each task, by each of WAYS."""
    model = tf.saved_model.load(path)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for task in tasks(args, described(path)):
        classifier = model.adapt(task.support_images, task.support_labels)

        def labels_of(images: np.ndarray, classifier=classifier) -> np.ndarray:
            return model.predict(classifier, images)["labels"].numpy()

        truth = np.arange(len(task.query_images))[:, None]
        for way, ask in WAYS.items():
            found[way].append(float((ask(labels_of, task.query_images) == truth).mean()))
    return {way: np.array(values) for way, values in found.items()}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="folders that tf_lwdgh.export wrote")
    parser.add_argument("--data_dir", default="data", help="the folder of data sets")
    parser.add_argument("--split", default="test", choices=store.SPLITS)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--k_shot", type=int, default=1)
    parser.add_argument("--n_query", type=int, default=15, help="queries a class")
    parser.add_argument("--seed", type=int, default=0, help="of the tasks")
    return parser.parse_args()


def main() -> None:
    """Prints the table."""
    args = parse()
    print("| export | " + " | ".join(WAYS) + " |")
    print("|---" * (1 + len(WAYS)) + "|")
    for path in args.models:
        row = [f"BatchNorm {described(path)['batch_norm']}"]
        for values in accuracies(path, args).values():
            mean, interval = mean_and_interval(values)
            row.append(f"{100 * mean:.1f} ± {100 * interval:.1f}")
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
