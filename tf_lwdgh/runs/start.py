# SPDX-License-Identifier: Apache-2.0
"""Where a run starts: at what another run, an export or a file of Keras's has learned.

Variables are found by names and shapes. The network's, but for its head, and BatchNorm's averages must all
be there; the head and the learner's own parameters are taken where they fit.
"""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.runs import checkpoints

_KERAS = (".keras", ".weights.h5")


class _Source(NamedTuple):
    """What is there to start from."""

    values: dict[str, np.ndarray]  # by Keras's path or the readable name
    trained: set[str] | None  # readable names of the variables that were trained; None: not known
    about: dict[str, Any]  # JSON values


class _Target(NamedTuple):
    """A variable of the run."""

    name: str  # readable
    path: str  # Keras's
    variable: keras.Variable
    needed: bool


def load(parameters: MetaParameters, start: str, which: str) -> dict[str, Any]:
    """Fills a run's variables before its first step.

    Args:
      parameters: of the run.
      start: a run's folder, an export's folder, or a .keras or .weights.h5 file of such a network.
      which: 'best' or 'last', of a run's checkpoints.

    Returns:
      Where it came from and what was taken, as JSON values.

    Raises:
      FileNotFoundError: nothing is there, or the run has no such checkpoint.
      ValueError: it is none of these things, or a variable of the network is missing or has another
        shape.
    """
    if which not in checkpoints.WHICH:
        raise ValueError(
            f"Experiment.start_checkpoint must be one of {', '.join(checkpoints.WHICH)}. "
            f"Received: Experiment.start_checkpoint = {which!r}."
        )
    source = _open(parameters, start, which)
    taken: list[tuple[_Target, np.ndarray]] = []
    left: dict[str, str] = {}
    used: set[str] = set()
    for target in _targets(parameters):
        key = target.path if target.path in source.values else target.name
        used.add(key)
        why = _why_not(target, source.values.get(key), source.trained)
        if not why:
            taken.append((target, source.values[key]))
        elif target.needed:
            raise ValueError(
                f"Experiment.start: the network's {target.name!r} of shape "
                f"{tuple(target.variable.shape)} {why}. It must be learned by the same backbone, of the "
                f"same sizes. Received: Experiment.start = {start!r}."
            )
        else:
            left[target.name] = why
    for target, value in taken:
        target.variable.assign(value)
    unused = sorted(set(source.values) - used)
    return {**source.about, "loaded": len(taken), "not_loaded": left, "not_used": unused}


def describe(started: dict[str, Any]) -> str:
    """What `load` did, in one line."""
    told = [f"{k} {started[k]}" for k in ("checkpoint", "step", "learner") if k in started]
    parts = [f"{started['loaded']} variables from {started['start']} ({', '.join(told)})"]
    if started["not_loaded"]:
        left = ", ".join(f"{name} ({why})" for name, why in started["not_loaded"].items())
        parts.append(f"left at their start: {left}")
    if started["not_used"]:
        parts.append(f"not used: {', '.join(started['not_used'])}")
    return "start: " + "; ".join(parts)


def _why_not(target: _Target, value: np.ndarray | None, trained: set[str] | None) -> str:
    """Why a value is not taken; empty: it is."""
    if value is None:
        return "is not there"
    if value.shape != tuple(target.variable.shape):
        return f"has the shape {value.shape} there"
    if not target.needed and trained is not None and target.name not in trained:
        return "was not trained there"
    return ""


def _targets(parameters: MetaParameters) -> Iterator[_Target]:
    model = parameters.model
    for name, variable, head in zip(model.names, model.variables, model.is_head):
        yield _Target(name, variable.path, variable, not head)
    of_parts = {name for part in model.parts.values() for name in part.state_names}
    for name, variable in zip(model.state_names, model.state_variables):
        if name not in of_parts:
            yield _Target(name, variable.path, variable, True)
    for name, variable in parameters.own.items():
        yield _Target(name, name, variable, False)


def _open(parameters: MetaParameters, start: str, which: str) -> _Source:
    if not os.path.exists(start):
        raise FileNotFoundError(
            f"Experiment.start: nothing is there. Received: Experiment.start = {start!r}."
        )
    if start.endswith(_KERAS):
        return _of_keras(parameters.model.keras_model, start)
    if os.path.exists(os.path.join(start, "saved_model.pb")):
        return _of_export(start)
    folder = checkpoints.of_run(start, which)
    if os.path.isdir(folder.folder) or os.path.exists(os.path.join(start, "config.gin")):
        return _of_run(folder, start, which)
    raise ValueError(
        "Experiment.start must be a run's folder, an export's folder, or a file that ends in "
        f"{' or '.join(_KERAS)}. Received: Experiment.start = {start!r}."
    )


def _of_run(folder: checkpoints.CheckpointFolder, start: str, which: str) -> _Source:
    manifest = folder.newest()
    if manifest is None:
        other = checkpoints.WHICH[which == checkpoints.WHICH[0]]
        raise FileNotFoundError(
            f"Experiment.start: the run has no {which} checkpoint yet; try "
            f"Experiment.start_checkpoint = {other!r}. Received: Experiment.start = {start!r}."
        )
    about: dict[str, Any] = {
        "start": start,
        "kind": "run",
        "checkpoint": which,
        **{k: manifest[k] for k in ("step", "learner", "dataset", "fingerprint") if k in manifest},
        "files": manifest["files"],
    }
    groups, trained = folder.values(manifest), manifest.get("trained")
    values = groups["model"] | groups.get("learner", {})
    return _Source(values, None if trained is None else set(trained), about)


def _of_export(start: str) -> _Source:
    loaded = tf.saved_model.load(start)
    if not all(hasattr(loaded, name) for name in ("network", "own", "state", "signatures")):
        raise ValueError(
            "Experiment.start: a SavedModel must be one that tf_lwdgh.export wrote. "
            f"Received: Experiment.start = {start!r}."
        )
    told = json.loads(loaded.signatures["metadata"]()["json"].numpy())
    values = {v.name.partition(":")[0]: v.numpy() for v in (*loaded.network, *loaded.state)}
    values |= {name: v.numpy() for name, v in loaded.own.items()}
    kept = {"learner": "learner", "step": "step", "dataset": "dataset"}
    about = {k: told[name] for k, name in kept.items() if name in told}
    about = {"start": start, "kind": "export", **about, "fingerprint": told.get("dataset_fingerprint")}
    return _Source(values, set(told["trained_variables"]), about)


def _of_keras(model: keras.Model, start: str) -> _Source:
    """The values of a file, by way of a model that is given back as it was.

    What is not a number after loading was not in the file, or had another shape.
    """
    before = model.get_weights()
    floating = [v for v in model.variables if np.issubdtype(np.dtype(v.dtype), np.floating)]
    try:
        for v in floating:
            v.assign(np.full(v.shape, np.nan, v.dtype))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what does not fit Keras warns
            model.load_weights(start, skip_mismatch=True)
        found = {v.path: v.numpy() for v in floating}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"Experiment.start: Keras can't read the file: {error}. "
            f"Received: Experiment.start = {start!r}."
        ) from error
    finally:
        model.set_weights(before)
    values = {path: value for path, value in found.items() if not np.isnan(value).any()}
    about = {"start": start, "kind": "file of Keras's", "sha256": checkpoints.file_sha256(start)}
    return _Source(values, None, about)
