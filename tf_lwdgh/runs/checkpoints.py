# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole or absent: a folder a step, written aside, then renamed.

`step-00000200/` holds TensorFlow's checkpoint files (`state.index`, `state.data-…`) and
`manifest.json` with the SHA-256 of each, the step and whatever else the run must remember, and a hash of
its own content. Loading verifies the hashes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lwdgh import files
from tf_lwdgh.learners import Learner
from tf_lwdgh.learners.meta_parameters import MetaParameters

WHICH = ("best", "last")  # of a run: by validation accuracy, or to go on from
_STATE, _MANIFEST, _HASH = "state", "manifest.json", "sha256"
_KEY = re.compile(r"(?P<group>\w+)/\d+\.S(?P<name>.+)/\.ATTRIBUTES/VARIABLE_VALUE$")
_NAME = re.compile(r"step-(\d{8,})$")
_log = logging.getLogger(__name__)

Named = dict[str, tf.Variable]


class CheckpointError(ValueError):
    """There are checkpoints, and none of them can be loaded."""


def model_variables(model: keras.Model) -> Named:
    """The TensorFlow variables behind a model's, BatchNorm's averages included."""
    return _numbered(model.variables, [v.path for v in model.variables])


def meta_variables(parameters: MetaParameters) -> dict[str, Named]:
    """All that a learner has learned, in groups: the network's variables, and the learner's own."""
    groups = {"model": model_variables(parameters.model.keras_model)}
    own = dict(parameters.own)
    for part in parameters.model.parts.values():
        own |= zip(part.state_names, part.state_variables)
    return groups | {"learner": _numbered(list(own.values()), list(own))} if own else groups


def optimizer_variables(optimizer: keras.optimizers.Optimizer) -> Named:
    """An optimizer's step, rate and slots; it must have been built."""
    return _numbered(optimizer.variables, [v.name for v in optimizer.variables])


def _numbered(variables: Sequence[keras.Variable], names: Sequence[str]) -> Named:
    width = len(str(len(variables)))
    return {f"{i:0{width}d}/{name}": v.value for i, (v, name) in enumerate(zip(variables, names))}


def _named(numbered: Named) -> Named:
    return {name.partition("/")[2]: variable for name, variable in numbered.items()}


class CheckpointFolder:
    """The checkpoints of one run in one folder.

    Args:
      folder: where they lie; made when the first is saved.
      keep: how many of the newest stay.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2) -> None:
        self.folder, self.keep = os.fspath(folder), keep

    def steps(self) -> list[int]:
        """The steps there are checkpoints of, rising; whether they are whole is not looked at."""
        if not os.path.isdir(self.folder):
            return []
        return sorted(int(m[1]) for m in map(_NAME.match, os.listdir(self.folder)) if m)

    def path(self, step: int) -> str:
        """The folder of one step's checkpoint."""
        return os.path.join(self.folder, f"step-{step:08d}")

    def save(self, step: int, state: Mapping[str, Named], extra: Mapping[str, Any]) -> str:
        """Saves; the checkpoint appears under its name whole, or not at all.

        Args:
          step: meta-steps done.
          state: groups of variables, such as {'model': …, 'optimizer': …}.
          extra: what else to remember, as JSON values.

        Returns:
          The checkpoint's folder.
        """
        os.makedirs(self.folder, exist_ok=True)
        self._clear_unfinished()
        aside = os.path.join(self.folder, f".unfinished-{os.getpid()}")
        os.makedirs(aside)
        try:
            _write(aside, step, state, extra)
        except BaseException:  # it takes room that may be what is wanting
            shutil.rmtree(aside, ignore_errors=True)
            raise
        if os.path.exists(self.path(step)):  # left by a run that was resumed from before it
            shutil.rmtree(self.path(step))
        os.rename(aside, self.path(step))
        _sync(self.folder)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.path(old))
        return self.path(step)

    def newest(self, among: Sequence[int] | None = None) -> dict[str, Any] | None:
        """The manifest of the newest checkpoint that is whole; None where there is no checkpoint.

        Args:
          among: the steps that count; None: all.

        Raises:
          CheckpointError: there are some, and none is whole.
        """
        faults = []
        wanted = [step for step in self.steps() if among is None or step in among]
        for step in reversed(wanted):
            manifest, fault = _inspect(self.path(step))
            if manifest is not None:
                for path, why in faults:
                    _log.warning(
                        "%s is not whole (%s); going back to step %d", path, why, step
                    )
                return manifest
            faults.append((self.path(step), fault))
        if faults:
            listed = "; ".join(f"{path}: {why}" for path, why in faults)
            raise CheckpointError(
                f"none of the checkpoints in {self.folder!r} is whole ({listed}). Remove that "
                "folder to start anew, or put an intact copy back."
            )
        return None

    def inspect(self, step: int) -> tuple[dict[str, Any] | None, str]:
        """The manifest of one step's checkpoint if it is whole, else None and why it is not."""
        return _inspect(self.path(step))

    def load(self, manifest: Mapping[str, Any], state: Mapping[str, Named]) -> None:
        """Fills the variables of `state`, which may be some of the groups that were saved.

        Args:
          manifest: from `newest`.
          state: groups of variables; every one must be found, with its shape.

        Raises:
          CheckpointError: the variables are not those that were saved.
        """
        path = os.path.join(self.path(manifest["step"]), _STATE)
        try:
            status = tf.train.Checkpoint(**state).read(path)
            status.assert_existing_objects_matched()
            if set(state) == set(manifest["groups"]):
                status.assert_consumed()
            else:
                status.expect_partial()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise CheckpointError(
                f"checkpoint {path!r} does not fit this model and optimizer: {error}"
            ) from error

    def load_learned(self, manifest: Mapping[str, Any], parameters: MetaParameters) -> None:
        """Fills the network's variables, and the learner's own by their names.

        The learner may be another than the one that was trained: what it has no use for stays behind. One with a
        `class_axis` becomes that of the run's training classes.

        Raises:
          CheckpointError: the network is not the one that was saved, or the learner needs what was not.
        """
        self.load(manifest, {"model": model_variables(parameters.model.keras_model)})
        path, saved = self.path(manifest["step"]), self.values(manifest).get("learner", {})
        learner = _for_classes_of(parameters.learner, saved, path)
        if learner != parameters.learner:
            parameters.change_learner(learner)
        for name, variable in _named(meta_variables(parameters).get("learner", {})).items():
            if name not in saved or saved[name].shape != variable.shape:
                there = f"has the shape {saved[name].shape}" if name in saved else "is not there"
                raise _other_learner(learner, f"{name!r} of shape {tuple(variable.shape)}, which {there}", path)
            variable.assign(saved[name])

    def values(self, manifest: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
        """What a checkpoint holds, but for the optimizer's: arrays by name, in groups."""
        reader = tf.train.load_checkpoint(os.path.join(self.path(manifest["step"]), _STATE))
        found: dict[str, dict[str, np.ndarray]] = {}
        for key in sorted(reader.get_variable_to_shape_map()):
            match = _KEY.match(key)
            if match and match["group"] != "optimizer":
                # TensorFlow writes '/' as '.S' and '.' as '..'.
                name = re.sub(r"\.(S|\.)", lambda m: "/" if m[1] == "S" else ".", match["name"])
                found.setdefault(match["group"], {})[name] = reader.get_tensor(key)
        return found

    def _clear_unfinished(self) -> None:
        for name in os.listdir(self.folder):
            if name.startswith(".unfinished-"):
                shutil.rmtree(os.path.join(self.folder, name))


def of_run(run_dir: str | os.PathLike[str], which: str = "last", *, keep: int = 2) -> CheckpointFolder:
    """The checkpoints of a run: 'last', those to go on from, or 'best', by validation accuracy."""
    return CheckpointFolder(os.path.join(run_dir, {"best": "best", "last": "checkpoints"}[which]), keep=keep)


def _for_classes_of(learner: Learner, saved: Mapping[str, np.ndarray], path: str) -> Learner:
    """The learner for as many training classes as the checkpoint at `path` was trained on, where it needs to know."""
    if learner.class_axis is None:
        return learner
    name, axis = learner.class_axis
    if name not in saved:
        raise _other_learner(learner, f"{name!r}, which is not there", path)
    try:
        return learner.for_classes(saved[name].shape[axis])
    except ValueError as error:
        raise CheckpointError(f"checkpoint {path!r} does not fit this learner: {error}") from error


def _other_learner(learner: Learner, needs: str, path: str) -> CheckpointError:
    return CheckpointError(
        f"{type(learner).__name__} needs {needs} in checkpoint {path!r}. That run has learned something else; "
        "train this learner, for example from it: Experiment.start."
    )


def _write(folder: str, step: int, state: Mapping[str, Named], extra: Mapping[str, Any]) -> None:
    """The checkpoint's files, on the disk when this returns."""
    tf.train.Checkpoint(**state).write(os.path.join(folder, _STATE))
    names = sorted(os.listdir(folder))
    hashes = {name: file_sha256(os.path.join(folder, name)) for name in names}
    manifest = {"step": step, "files": hashes, "groups": sorted(state), **extra}
    manifest[_HASH] = _sha256_of(manifest)
    files.write_json(os.path.join(folder, _MANIFEST), manifest)
    for name in names:
        _sync(os.path.join(folder, name))
    _sync(folder)


def _inspect(path: str) -> tuple[dict[str, Any] | None, str]:
    """The manifest of one checkpoint if all of its files are as they were written, else why not."""
    try:
        with open(os.path.join(path, _MANIFEST), encoding="utf-8") as file:
            manifest = json.load(file)
        if manifest.pop(_HASH) != _sha256_of(manifest):
            return None, f"{_MANIFEST} differs from what was written"
        for name, expected in manifest["files"].items():
            if file_sha256(os.path.join(path, name)) != expected:
                return None, f"{name} differs from what was written"
    except FileNotFoundError as error:
        return None, f"{os.path.basename(error.filename)} is missing"
    except OSError as error:
        return None, f"{os.path.basename(error.filename or path)}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, f"{_MANIFEST} is damaged"
    return manifest, ""


def _sha256_of(manifest: Mapping[str, Any]) -> str:
    """Of the content, however it is laid out; what JSON makes of it counts."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: str) -> str:
    """The hash of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
