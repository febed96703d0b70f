# SPDX-License-Identifier: Apache-2.0
"""Exports: a run's checkpoint as a SavedModel that appears whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tf_lwdgh.learners.base import BATCH_NORM
from tf_lwdgh.outer.evaluation import Evaluation
from tf_lwdgh.runs import experiment
from tf_lwdgh.runs.judge import load_checkpoint
from tf_lwdgh.serving.loaded import NUMBER, versions
from tf_lwdgh.serving.module import ServingModule

METADATA = "metadata.json"
SERVED = (*BATCH_NORM, "as_trained")
_BATCH_NORM = re.compile(r"\s*(?:BATCH_NORM|[\w./]+\.batch_norm)\s*=")  # a binding of it


def from_run(
    run_dir: str,
    checkpoint: str,
    gin_params: Sequence[str] = (),
    *,
    batch_norm: str | None = None,
    gin_files: Sequence[str] = (),
) -> ServingModule:
    """A run's checkpoint, ready to be saved; no data set is needed.

    Args:
      run_dir: a folder that `train` wrote.
      checkpoint: 'best' (by validation accuracy) or 'last'.
      gin_params: bindings that override the run's, such as 'Evaluation.inner_steps = 5'.
      batch_norm: the statistics that the served BatchNorm uses: one of Learner.batch_norm, or
        'as_trained'. None: what gin_params bind; else 'inductive' where the run was trained
        transductively, so that no answer depends on the other queries; else as trained.
      gin_files: on top of the run's settings, such as another learner.

    Raises:
      FileNotFoundError: no such run, or no checkpoint in it yet.
      ValueError: a binding is wrong, BatchNorm is told twice, or no checkpoint is whole.
    """
    experiment.parse_run(run_dir, gin_files=gin_files)
    trained = experiment.Experiment().learner.batch_norm
    served = _served_batch_norm(trained, batch_norm, gin_params)
    assembly = experiment.from_run(run_dir, gin_params, gin_files=gin_files)
    steps = Evaluation().inner_steps
    experiment.refuse_idle_bindings(gin_params)
    manifest = load_checkpoint(assembly, run_dir, checkpoint)
    return ServingModule(
        assembly.parameters,
        assembly.image,
        batch_norm=served,
        inner_steps=steps,
        metadata={
            "checkpoint": checkpoint,
            "step": manifest["step"],
            "dataset": manifest["dataset"],
            "dataset_fingerprint": manifest["fingerprint"],
            "trained_batch_norm": trained,
        },
    )


def _served_batch_norm(trained: str, asked: str | None, gin_params: Sequence[str]) -> str | None:
    """Which statistics BatchNorm uses in an export; None: what the settings say."""
    binding = next((p for p in gin_params if _BATCH_NORM.match(p)), None)
    if asked is not None and binding is not None:
        raise ValueError(
            "--batch_norm and a binding both say which statistics BatchNorm uses; give one of "
            "them. "
            f"Received: --batch_norm={asked} and --gin_param={binding!r}."
        )
    if asked is None:
        return "inductive" if binding is None and trained == "transductive" else None
    if asked not in SERVED:
        raise ValueError(f"--batch_norm must be one of {', '.join(SERVED)}. Received: {asked!r}.")
    return None if asked == "as_trained" else asked


def export(
    run_dir: str,
    output: str,
    checkpoint: str = "best",
    gin_params: Sequence[str] = (),
    *,
    batch_norm: str | None = None,
    model_version: str | None = None,
    overwrite: bool = False,
    gin_files: Sequence[str] = (),
) -> tuple[str, dict[str, Any]]:
    """Writes a run's checkpoint as a SavedModel.

    Args:
      output: the folder to write, or that of all versions.
      model_version: see `versioned`.
      overwrite: whether an earlier export there may be replaced.
      run_dir: see `from_run`.
      checkpoint: see `from_run`.
      gin_params: see `from_run`.
      batch_norm: see `from_run`.
      gin_files: see `from_run`.

    Returns:
      The folder that was written, and the export's metadata.

    Raises:
      FileExistsError: something is at `output` that must not be replaced.
      FileNotFoundError, ValueError: as `from_run` and `versioned`.
    """
    output = versioned(output, model_version)
    check_output(output, overwrite=overwrite)
    module = from_run(run_dir, checkpoint, gin_params, batch_norm=batch_norm, gin_files=gin_files)
    save(module, output, overwrite=overwrite)
    return output, json.loads(module.metadata)


def versioned(output: str, version: str | None) -> str:
    """The folder of a version below `output`, as TensorFlow Serving wants them.

    Args:
      output: the model's folder, which holds a folder for each version.
      version: a whole number from 1; 'next': above all that are there; None: `output` itself.

    Raises:
      ValueError: it is none of these.
    """
    if version is None:
        return output
    if version == "next":
        version = str(max(versions(output), default=0) + 1)
    if not re.fullmatch(NUMBER, version):
        raise ValueError(f"--model_version must be a whole number from 1, or 'next'. Received: {version!r}.")
    return os.path.join(output, version)


def check_output(output: str, *, overwrite: bool) -> None:
    """Makes sure that an export may be written, before any work is done for it.

    Args:
      output: the folder to write.
      overwrite: whether an earlier export there may be replaced.

    Raises:
      FileExistsError: something is there that must not be replaced.
    """
    if not os.path.lexists(output) or (os.path.isdir(output) and not os.listdir(output)):
        return
    if not os.path.exists(os.path.join(output, "saved_model.pb")):
        raise FileExistsError(f"--output: exists and is no SavedModel, so it is left alone. Received: {output!r}.")
    if not overwrite:
        raise FileExistsError(
            "--output: holds a SavedModel already; choose another folder, or pass --overwrite to "
            f"replace it. Received: {output!r}."
        )


def save(module: ServingModule, output: str, *, overwrite: bool = False) -> None:
    """Writes a module as a SavedModel that appears at `output` whole or not at all.

    With it come the warm-up requests of TensorFlow Serving.

    Args:
      module: what to save.
      output: the folder to write; its parents are made.
      overwrite: whether an earlier export there may be replaced.

    Raises:
      FileExistsError: something is there that must not be replaced.
    """
    check_output(output, overwrite=overwrite)
    parent, name = os.path.split(os.path.abspath(output))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=parent) as work:
        notes = os.path.join(work, METADATA)
        with open(notes, "w", encoding="utf-8") as file:
            file.write(module.metadata + "\n")
        module.metadata_file = tf.saved_model.Asset(notes)
        written = os.path.join(work, "model")
        signatures = module.signatures()
        tf.saved_model.save(module, written, signatures=signatures)
        module.write_warmup(written, signatures, name)
        _put_in_place(written, output, os.path.join(work, "replaced"))


def _put_in_place(written: str, output: str, aside: str) -> None:
    if os.path.isdir(output) and os.listdir(output):
        os.rename(output, aside)  # removed with the temporary folder
    elif os.path.isdir(output):
        os.rmdir(output)
    shutil.copymode(os.path.dirname(os.path.abspath(output)), written)
    os.rename(written, output)
