# SPDX-License-Identifier: Apache-2.0
"""Examines an export: its files, metadata and functions, and what it answers."""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lwdgh.examinations.report import Report
from tf_lwdgh.serving import warmup
from tf_lwdgh.serving.functions import IMAGES, NAMES, TASKS
from tf_lwdgh.serving.loaded import Loaded, load, versions

_FILES = ("saved_model.pb", "variables/variables.index", "assets/metadata.json")
_TOLD = ("learner", "backbone", "batch_norm", "trained_n_way", "classifier", "image", "step")
_AGAIN = "python -m tf_lwdgh.export --run_dir=<the run> --output={} --overwrite"


def examine(path: str) -> Report:
    """Looks at an export, or at the newest version in a folder of numbered ones.

    Raises:
      FileNotFoundError: there is none.
    """
    path = _newest(path)
    report, again = Report(path), _AGAIN.format(path)
    missing = [name for name in _FILES if not os.path.exists(os.path.join(path, name))]
    if len(missing) == len(_FILES):
        raise FileNotFoundError(f"--model must be a folder that tf_lwdgh.export wrote. Received: {path!r}.")
    if missing:
        report.fault(f"the export is not whole: there is no {', no '.join(missing)}.", again)
        return report
    model = _load(report, path, again)
    if model is None:
        return report
    _metadata(report, model.metadata, again)
    _functions(report, model, again)
    if not report.faulty:
        _ask(report, model, again)
    if os.path.exists(os.path.join(path, warmup.PATH)):
        report.ok("it has warm-up requests for TensorFlow Serving")
    else:
        report.note("it has no warm-up requests: in TensorFlow Serving the first user waits.")
    return report


def _newest(path: str) -> str:
    """The folder, or that of the highest version in it."""
    numbers = [] if os.path.exists(os.path.join(path, _FILES[0])) else versions(path)
    return os.path.join(path, str(numbers[-1])) if numbers else path


def _load(report: Report, path: str, again: str) -> Loaded | None:
    try:
        return load(path)
    except json.JSONDecodeError as error:
        report.fault(f"{path}/assets/metadata.json is no JSON: {error}.", again)
    except (OSError, LookupError, ValueError, RuntimeError, tf.errors.OpError) as error:  # LookupError: cut files
        report.fault(f"TensorFlow can't load it: {str(error).splitlines()[0]}", again)
    return None


def _metadata(report: Report, told: dict[str, Any], again: str) -> None:
    missing = [name for name in _TOLD if name not in told]
    if missing:
        report.fault(f"its metadata do not tell {', '.join(missing)}: another version wrote it.", again)
        return
    ways = "any number of" if told.get("largest_n_way") is None else f"up to {told['largest_n_way']}"
    size = told["image"]["image_size"]
    report.ok(
        f"{told['learner']} on {told['backbone']}, step {told['step']}, BatchNorm {told['batch_norm']}: {ways} ways, "
        f"images of {size} × {size} × {told['image']['channels']}"
    )
    for name, here in (("tensorflow", tf.__version__), ("keras", keras.__version__)):
        made = told.get("versions", {}).get(name, here)
        if _minor(made) > _minor(here):
            report.warn(f"it was made with {name} {made}, and here is {here}.", f"pip install '{name}>={made}'")


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _functions(report: Report, model: Loaded, again: str) -> None:
    wanted = [name + batch + kind for name in NAMES for batch in ("", TASKS) for kind in IMAGES]
    missing = [name for name in wanted if not model.has(name)]
    if missing:
        report.fault(f"it lacks the functions {', '.join(missing)}.", again)
    else:
        report.ok(f"all {len(wanted)} functions are there")


def _ask(report: Report, model: Loaded, again: str) -> None:
    """Teaches it a task of noise, one image a way, and asks a query, in one call and in two."""
    n_way, image = model.metadata["trained_n_way"], model.metadata["image"]
    shape = (n_way + 1, image["image_size"], image["image_size"], image["channels"])
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    support, labels, query = images[:-1], np.arange(n_way), images[-1:]
    try:
        model.adapt_and_predict(support, labels, query)
        start = time.monotonic()
        whole = model.adapt_and_predict(support, labels, query)["probabilities"]
        seconds = time.monotonic() - start
        kept = model.predict(model.adapt(support, labels), query)["probabilities"]
    except ValueError as error:
        report.warn(f"it refuses a task of noise: {error}")
        return
    right = whole.shape == (1, n_way) and np.isfinite(whole).all() and abs(whole.sum() - 1) < 1e-3
    if not right:
        report.fault(f"its answer to a task of noise is no probabilities of {n_way} ways: {whole.tolist()}.", again)
    elif not np.array_equal(whole, kept):
        report.fault("it answers otherwise in one call than by adapt and predict.", again)
    else:
        report.ok(f"it learns a {n_way}-way task of noise and answers, in {1000 * seconds:.0f} ms once it is warm")
