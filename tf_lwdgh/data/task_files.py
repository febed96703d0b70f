# SPDX-License-Identifier: Apache-2.0
"""What every list of fixed tasks is: of one split of one data set, hashed, and kept in a file."""

from __future__ import annotations

import abc
import dataclasses
import functools
import gzip
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tf_lwdgh import files
from tf_lwdgh.data.mixtures import Mixture, Spec


@dataclasses.dataclass(frozen=True, eq=False)
class Tasks(abc.ABC):
    """n tasks of one split of one data set.

    Attributes:
      dataset: the name of the data set, or of the mixture.
      fingerprint: its fingerprint.
      split: 'train', 'val' or 'test'.
      config: the tasks' shape.
      seed: the seed that the tasks were drawn with.
    """

    dataset: str
    fingerprint: str
    split: str
    config: Any
    seed: int

    FORMAT: ClassVar[str]

    @abc.abstractmethod
    def __len__(self) -> int:
        """n."""

    @abc.abstractmethod
    def indices(self) -> tf.data.Dataset:
        """Each task's make-up, in order."""

    @abc.abstractmethod
    def shape(self) -> dict[str, Any]:
        """What is to be said of the tasks' ways and shots, as JSON values."""

    @abc.abstractmethod
    def datasets(self, spec: Spec) -> list[str]:
        """Which data set of a mixture each task is of; [] where there is one only."""

    @abc.abstractmethod
    def _lists(self) -> dict[str, list]:
        """The make-up of all tasks, as JSON values."""

    @abc.abstractmethod
    def _check_ranges(self, spec: Spec) -> None:
        """Raises ValueError where a task can't be of this data set."""

    @functools.cached_property
    def sha256(self) -> str:
        """The hash of everything in the list, in hexadecimal."""
        return _hash(self._content())

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes JSON, compressed if the path ends in .gz; a whole file appears, or none."""
        path = os.fspath(path)
        text = json.dumps({**self._content(), "sha256": self.sha256}, separators=(",", ":"))
        data = text.encode()
        if path.endswith(".gz"):
            data = gzip.compress(data, mtime=0)
        files.write(path, data)

    def check(self, spec: Spec, split: str, config: Any = None) -> None:
        """Makes sure that the list belongs to this data set, split and (if given) settings.

        Raises:
          ValueError: it does not; the message shows both values. Or an index is out of range.
        """
        pairs = [
            ("data set", self.dataset, spec.name),
            ("data set fingerprint", self.fingerprint, spec.fingerprint),
            ("split", self.split, split),
        ]
        if config is not None:
            pairs.append(("kind", type(self.config).__name__, type(config).__name__))
        for field in dataclasses.fields(config) if isinstance(config, type(self.config)) else ():
            ours, theirs = getattr(self.config, field.name), getattr(config, field.name)
            pairs.append((f"{type(config).__name__}.{field.name}", ours, theirs))
        for what, listed, received in pairs:
            if listed != received:
                raise ValueError(
                    f"the task list must have been made for the same {what}: "
                    f"the list has {listed!r}. Received: {received!r}."
                )
        self._check_ranges(spec)

    def _content(self) -> dict[str, Any]:
        return {
            "format": self.FORMAT,
            "dataset": self.dataset,
            "fingerprint": self.fingerprint,
            "split": self.split,
            "settings": dataclasses.asdict(self.config),
            "seed": self.seed,
            **self._lists(),
        }


def read_content(path: str | os.PathLike[str], formats: Mapping[str, Any]) -> dict[str, Any]:
    """What a task list's file holds, but for its hash, which is checked.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it has none of the formats, or its content does not match its sha256.
    """
    path = os.fspath(path)
    content = _read_json(path)
    stated = content.pop("sha256", None)
    if content.get("format") not in formats:
        known, received = " or ".join(map(repr, formats)), content.get("format")
        raise ValueError(f"{path!r} must have format {known}. Received: {received!r}.")
    if _hash(content) != stated:
        raise ValueError(
            f"task list {path!r} was changed or damaged: the file states sha256 {stated!r}, "
            f"its content has {_hash(content)!r}."
        )
    return content


def refuse_tasks(wrong: np.ndarray, rule: str) -> None:
    """Raises ValueError naming the first task [n, ...] of which anything is wrong."""
    tasks = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
    if len(tasks):
        raise ValueError(f"every task must hold {rule}. Received: task {tasks[0]} does not.")


def names_of_sets(spec: Spec, class_ids: np.ndarray, split: str) -> list[str]:
    """The data set of a mixture that each of tasks [n, N] is of; [] where there is one only."""
    if not isinstance(spec, Mixture):
        return []
    return [spec.names[i] for i in spec.dataset_of_tasks(class_ids, split)]


def _hash(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_json(path: str) -> dict[str, Any]:
    if not os.path.exists(path):
        raise FileNotFoundError(f"no such task list. Received: {path!r}.")
    with open(path, "rb") as file:
        data = file.read()
    try:
        content = json.loads(gzip.decompress(data) if path.endswith(".gz") else data)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path!r} is not a whole task list: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path!r} must hold a JSON object. Received: {type(content).__name__}.")
    return content
