# SPDX-License-Identifier: Apache-2.0
"""tiered-ImageNet's pickled labels: which rows are of which class, and of which category.

The authors' have label_specific, label_general and the names of both; those that go round with the
.npz files have labels alone.
"""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_lwdgh.converters import pickled_splits
from tf_lwdgh.data import store

FILE = "{}_labels.pkl"


class Group(NamedTuple):
    """One class of a split: its rows among the images, and its category where that is known."""

    name: str
    category: str | None
    rows: Sequence[int]


def read(root: pathlib.Path) -> dict[str, list[Group]]:
    """The classes of each split, ordered by category and label; no name stands twice.

    Raises:
      FileNotFoundError: a split's file is missing.
      UnsafePickle: a file asks for more than arrays and containers.
      ValueError: a file has not the keys, types and shapes.
    """
    groups = {split: _groups(root / FILE.format(split), split) for split in store.SPLITS}
    names = collections.Counter(group.name for split in groups for group, _ in groups[split])
    return {
        split: [
            group._replace(name=f"{group.name} ({split} {label})") if names[group.name] > 1 else group
            for group, label in groups[split]
        ]
        for split in groups
    }


def _groups(path: pathlib.Path, split: str) -> list[tuple[Group, int]]:
    """Each class and its label."""
    if not path.is_file():
        raise FileNotFoundError(f"The file {path} is missing.")
    content = pickled_splits.load(path)
    key = "label_specific" if "label_specific" in content else "labels"
    labels = _integers(path, key, content)
    names = _names(path, f"{key}_str", content)
    general = _categories(path, labels, content)
    order = np.argsort(labels, kind="stable")
    values, starts = np.unique(labels[order], return_index=True)
    found = []
    for label, rows in zip(values.tolist(), np.split(order, starts[1:]), strict=True):
        name = _named(path, f"{key}_str", names, label) or f"{split}-{label:03d}"
        number, category = general.get(label, (0, None))
        found.append((number, label, Group(name, category, rows)))
    return [(group, label) for _, label, group in sorted(found, key=lambda f: f[:2])]


def _integers(path: pathlib.Path, key: str, content: Mapping[str, Any]) -> np.ndarray:
    if key not in content:
        raise ValueError(
            f"{path} must have the key 'label_specific' or 'labels'. Received the keys: {', '.join(content)}."
        )
    labels = pickled_splits.integers(path, key, content[key])
    if not len(labels):
        raise ValueError(f"{path}: {key!r} must have a label for each image. Received: none.")
    return labels


def _names(path: pathlib.Path, key: str, content: Mapping[str, Any]) -> Sequence[Any]:
    names = content.get(key, ())
    if not isinstance(names, (list, tuple, np.ndarray)):
        raise ValueError(f"{path}: {key!r} must be a list. Received: {type(names).__name__}.")
    if isinstance(names, np.ndarray) and names.ndim != 1:
        raise ValueError(f"{path}: {key!r} must be a list. Received: {list(names.shape)}.")
    return names


def _named(path: pathlib.Path, key: str, names: Sequence[Any], label: int) -> str | None:
    if len(names) and label >= len(names):
        raise ValueError(f"{path}: {key!r} has {len(names)} names. Received the label {label}.")
    return pickled_splits.text(names[label]) if len(names) else None


def _categories(path: pathlib.Path, labels: np.ndarray, content: Mapping[str, Any]) -> dict[int, tuple[int, str]]:
    """The category's number and name of each label, where the file has them."""
    names = _names(path, "label_general_str", content)
    if "label_general" not in content or not len(names):
        return {}
    general = _integers(path, "label_general", content)
    if general.shape != labels.shape:
        raise ValueError(
            f"{path}: 'label_general' must have the {len(labels)} labels of 'label_specific'. Received: {len(general)}."
        )
    pairs = np.unique(np.stack([labels, general], 1), axis=0).tolist()
    found = {x: (y, _named(path, "label_general_str", names, y)) for x, y in pairs}
    if len(found) != len(pairs):
        twice = [x for x, n in collections.Counter(x for x, _ in pairs).items() if n > 1]
        raise ValueError(f"{path}: every class must lie in one category. Received several for the labels {twice[:5]}.")
    return found
