# SPDX-License-Identifier: Apache-2.0
"""Training and exporting in Python, as the commands of those names do."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence

import tensorflow as tf

from tf_lwdgh.converters import glyphs
from tf_lwdgh.data.store import DatasetSpec
from tf_lwdgh.interface.run import Run, load_run, settings_cleared
from tf_lwdgh.runs import training
from tf_lwdgh.serving import saved_models
from tf_lwdgh.serving.loaded import Loaded, load


def make_glyphs(data_dir: str | os.PathLike[str] = "data") -> DatasetSpec:
    """Makes the built-in data set, characters drawn from fonts, as `tf-lwdgh convert glyphs` does.

    Args:
      data_dir: the folder of data sets; what is there already is kept.

    Returns:
      What the data set holds.

    Raises:
      FileExistsError: something else of that name is there, or another version.
    """
    return glyphs.make(data_dir)


def train(
    gin_files: str | Sequence[str],
    gin_params: Sequence[str] = (),
    run_dir: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] = "data",
    *,
    show: bool = False,
) -> Run:
    """Trains an experiment, or goes on with it, as `tf-lwdgh train` does.

    The gin bindings of this process, which are one set, are cleared. Ctrl-C stops at once; what was saved
    stays, and the same call goes on from there. TensorFlow's thread pools are set where it has not started.

    Args:
      gin_files: one or several, by path or name, such as ['glyphs', 'learners/anil']; later ones win.
      gin_params: single bindings on top, such as 'EPOCHS = 2'.
      run_dir: the run's folder; None: runs/<names of the gin files>.
      data_dir: the folder of data sets.
      show: whether to show progress on standard error.

    Returns:
      The run, with its best checkpoint, or with the last one where there was no validation.

    Raises:
      ValueError: a setting is wrong, or the folder holds a run of other settings.
      FileNotFoundError: a gin file or the data set is not there.
      FloatingPointError: the loss was not finite.
    """
    names = [gin_files] if isinstance(gin_files, str) else list(gin_files)
    if not names:
        raise ValueError(f"gin_files must name at least one gin file. Received: gin_files = {gin_files!r}.")
    with settings_cleared():
        done = training.train(
            names, gin_params, None if run_dir is None else os.fspath(run_dir), os.fspath(data_dir),
            show=show, alone=False,
        )  # fmt: skip
    return load_run(done.run_dir, data_dir=data_dir, checkpoint="best" if done.at.best_step else "last")


def export(
    run_dir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    checkpoint: str = "best",
    gin_params: Sequence[str] = (),
    gin_files: Sequence[str] = (),
    batch_norm: str | None = None,
    model_version: str | None = None,
    overwrite: bool = False,
) -> str:
    """Writes a run as a SavedModel that learns new classes, as `tf-lwdgh export` does.

    Args:
      run_dir: a folder that `train` wrote.
      output: the folder to write, or that of all versions.
      checkpoint: 'best' or 'last'.
      gin_params: bindings on top of the run's.
      gin_files: gin files before those, such as another learner.
      batch_norm: which statistics BatchNorm uses; see --batch_norm of `tf-lwdgh export --help`.
      model_version: of a numbered folder below `output`: a whole number from 1, or 'next'.
      overwrite: whether an earlier export there may be replaced.

    Returns:
      The folder that was written, for `load_exported`.

    Raises:
      FileExistsError: something is at `output` that must not be replaced.
      FileNotFoundError: no such run, or no checkpoint in it yet.
      ValueError: a setting is wrong.
    """
    with settings_cleared(), _without_notes_of_tensorflow():
        written, _ = saved_models.export(
            os.fspath(run_dir), os.fspath(output), checkpoint, gin_params, gin_files=gin_files,
            batch_norm=batch_norm, model_version=model_version, overwrite=overwrite,
        )  # fmt: skip
    return written


@contextlib.contextmanager
def _without_notes_of_tensorflow() -> Iterator[None]:
    """In an interpreter that one types in, TensorFlow tells of every file of a SavedModel."""
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel(max(before, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(before)


def load_exported(path: str | os.PathLike[str]) -> Loaded:
    """An exported model: `adapt`, `predict` and `adapt_and_predict`, and `metadata`, what was exported.

    Raises:
      FileNotFoundError: there is no export at `path`.
    """
    return load(path)
