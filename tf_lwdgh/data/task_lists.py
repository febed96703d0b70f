"""Fixed tasks in a file, so that two checkpoints, or two programs, are judged on the same ones."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import json
import os
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lwdgh import files
from tf_lwdgh.data import episodes
from tf_lwdgh.data.episodes import EpisodeConfig, EpisodeIndices
from tf_lwdgh.data.mixtures import Mixture, Spec

FORMAT = "tf_lwdgh tasks 1"


@dataclasses.dataclass(frozen=True, eq=False)
class TaskList:
    """n tasks of one split of one data set.

    Attributes:
      dataset: the name of the data set, or of the mixture.
      fingerprint: its fingerprint.
      split: 'train', 'val' or 'test'.
      config: the tasks' shape.
      seed: the seed that the tasks were drawn with.
      class_ids: [n, N] int32, of the data set.
      rotations: [n, N] int32 in [0, 4).
      image_indices: [n, N, K+Q] int32, image numbers within the class.
    """

    dataset: str
    fingerprint: str
    split: str
    config: EpisodeConfig
    seed: int
    class_ids: np.ndarray
    rotations: np.ndarray
    image_indices: np.ndarray

    def __post_init__(self) -> None:
        pair = (len(self), self.config.n_way)
        shapes = (pair, pair, (*pair, self.config.images_per_class))
        for name, shape in zip(("class_ids", "rotations", "image_indices"), shapes, strict=True):
            array = np.asarray(getattr(self, name), np.int32)
            if array.shape != shape:
                raise ValueError(f"{name} must have shape {shape}. Received: {array.shape}.")
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.class_ids)

    @classmethod
    def draw(
        cls, spec: Spec, split: str, config: EpisodeConfig, *, seed: int, n_tasks: int
    ) -> TaskList:
        """Draws tasks 0 to n_tasks - 1 of step 0: those of `pipeline.evaluation_tasks`."""
        if n_tasks < 1:
            raise ValueError(f"n_tasks must be at least 1. Received: {n_tasks}.")
        episodes.check(spec, split, config)

        def one(task: tf.Tensor) -> EpisodeIndices:
            return episodes.sample(spec, split, config, seed=seed, step=0, task=task)

        indices = tf.data.Dataset.range(n_tasks).map(one).batch(n_tasks).get_single_element()
        arrays = (tensor.numpy() for tensor in indices)
        return cls(spec.name, spec.fingerprint, split, config, seed, *arrays)

    def first(self, n_tasks: int) -> TaskList:
        """The first n_tasks of the list, all where it has fewer."""
        arrays = ("class_ids", "rotations", "image_indices")
        return dataclasses.replace(self, **{name: getattr(self, name)[:n_tasks] for name in arrays})

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

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> TaskList:
        """Reads what `write` wrote.

        Raises:
          FileNotFoundError: no such file.
          ValueError: it is no task list, or its content does not match its sha256.
        """
        path = os.fspath(path)
        content = _read_json(path)
        stated = content.pop("sha256", None)
        if content.get("format") != FORMAT:
            received = content.get("format")
            raise ValueError(f"{path!r} must have format {FORMAT!r}. Received: {received!r}.")
        if _hash(content) != stated:
            raise ValueError(
                f"task list {path!r} was changed or damaged: the file states sha256 {stated!r}, "
                f"its content has {_hash(content)!r}."
            )
        content.pop("format")
        config = EpisodeConfig(**content.pop("settings"))
        return cls(config=config, **content)

    def check(self, spec: Spec, split: str, config: EpisodeConfig | None = None) -> None:
        """Makes sure that the list belongs to this data set, split and (if given) settings.

        Raises:
          ValueError: it does not; the message shows both values. Or an index is out of range.
        """
        pairs = [
            ("data set", self.dataset, spec.name),
            ("data set fingerprint", self.fingerprint, spec.fingerprint),
            ("split", self.split, split),
        ]
        for field in dataclasses.fields(EpisodeConfig) if config is not None else ():
            ours, theirs = getattr(self.config, field.name), getattr(config, field.name)
            pairs.append((f"EpisodeConfig.{field.name}", ours, theirs))
        for what, listed, received in pairs:
            if listed != received:
                raise ValueError(
                    f"the task list must have been made for the same {what}: "
                    f"the list has {listed!r}. Received: {received!r}."
                )
        self._check_ranges(spec)

    def datasets(self, spec: Spec) -> list[str]:
        """Which data set of a mixture each task is of; [] where there is one only."""
        if not isinstance(spec, Mixture):
            return []
        return [spec.names[i] for i in spec.dataset_of_tasks(self.class_ids, self.split)]

    def _check_ranges(self, spec: Spec) -> None:
        classes = spec.classes(self.split)
        turns = episodes.N_ROTATIONS if self.config.rotations else 1
        known = (self.class_ids >= classes.start) & (self.class_ids < classes.stop)
        known &= (self.rotations >= 0) & (self.rotations < turns)
        _refuse_tasks(~known, f"classes of split {self.split!r} and fewer than {turns} rotations")
        if isinstance(spec, Mixture):
            several = spec.dataset_of_tasks(self.class_ids, self.split) < 0
            _refuse_tasks(several, "classes of one data set")
        sizes = np.asarray(spec.images_per_class)[self.class_ids][..., None]
        known = (self.image_indices >= 0) & (self.image_indices < sizes)
        _refuse_tasks(~known, "image numbers below the class's number of images")
        pairs = np.sort(self.class_ids * episodes.N_ROTATIONS + self.rotations, axis=-1)
        _refuse_tasks(np.diff(pairs) == 0, "no class twice")
        _refuse_tasks(np.diff(np.sort(self.image_indices)) == 0, "no image of a class twice")

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "dataset": self.dataset,
            "fingerprint": self.fingerprint,
            "split": self.split,
            "settings": dataclasses.asdict(self.config),
            "seed": self.seed,
            "class_ids": self.class_ids.tolist(),
            "rotations": self.rotations.tolist(),
            "image_indices": self.image_indices.tolist(),
        }


def _refuse_tasks(wrong: np.ndarray, rule: str) -> None:
    """Raises ValueError naming the first task [n, ...] of which anything is wrong."""
    tasks = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
    if len(tasks):
        raise ValueError(f"every task must hold {rule}. Received: task {tasks[0]} does not.")


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
