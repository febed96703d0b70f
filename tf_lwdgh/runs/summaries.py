"""The one writer of all that a run reports: to TensorBoard, and the scalars to metrics.jsonl too.

A line of metrics.jsonl is {"step": s, "group/name": value, …}, s the meta-steps done. A run that is
resumed at step s drops the lines after s, and tells TensorBoard to do the same.

TensorBoard's HParams page is fed from a folder of its own, with a few results and nothing else, and
without a list of columns: so the page takes every setting of every run, those in which the runs
differ first and then by the alphabet, and every result. A list would be taken from one run only, and
beside the other scalars the results could not be found.
"""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Mapping

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as charts_metadata
from tensorboard.plugins.histogram import summary as histogram_summary
from tensorboard.plugins.hparams import api as hparams_api
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

from tf_lwdgh import files

METRICS_FILE = "metrics.jsonl"
RESULT_FOLDER = "result"  # in tensorboard/, what the HParams page shows
_BINDING = re.compile(r"^([\w./]+\.\w+) = ", re.MULTILINE)
_log = logging.getLogger(__name__)


class RunLog:
    """Writes a run's summaries. A context manager.

    Args:
      run_dir: the run's folder; metrics.jsonl and tensorboard/ are made in it.
      resumed_at: meta-steps done so far; what was logged after that is dropped.
    """

    def __init__(self, run_dir: str | os.PathLike[str], *, resumed_at: int = 0) -> None:
        os.makedirs(run_dir, exist_ok=True)
        path = os.path.join(run_dir, METRICS_FILE)
        _truncate(path, resumed_at)
        self._lines = open(path, "a", encoding="utf-8")  # noqa: SIM115
        self._path = path
        folder = os.path.join(run_dir, "tensorboard")
        self._events = EventFileWriter(folder)
        self._result = EventFileWriter(os.path.join(folder, RESULT_FOLDER))
        # At the second START and after, TensorBoard drops what is at its step or later.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        for events in (self._events, self._result):
            _add(events, resumed_at + 1 if resumed_at else 0, session_log=start)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_) -> None:
        with files.named(self._path), contextlib.ExitStack() as closed:
            for opened in (self._lines, self._result, self._events):  # each, whatever the others say
                closed.callback(opened.close)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl, and the same numbers in TensorBoard; null where not finite."""
        finite = {tag: value if math.isfinite(value) else None for tag, value in values.items()}
        line = json.dumps({"step": step, **finite}, allow_nan=False)
        with files.named(self._path):
            self._lines.write(line + "\n")
            self._lines.flush()
        _add(self._events, step, summary=_scalar_summary(values))

    def result(self, step: int, values: Mapping[str, float]) -> None:
        """What the run has come to so far, for the HParams page."""
        _add(self._result, step, summary=_scalar_summary(values))

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Histograms of all the values of each array."""
        for tag, array in values.items():
            _add(self._events, step, summary=histogram_summary.histogram_pb(tag, array, buckets=30))

    def image(self, step: int, tag: str, png: bytes, size: tuple[int, int]) -> None:
        """A PNG of (width, height) pixels."""
        metadata = image_metadata.create_summary_metadata("", "", converted_to_tensor=False)
        parts = [str(size[0]).encode(), str(size[1]).encode(), png]
        _add(self._events, step, summary=_bytes_summary(tag, parts, metadata))

    def text(self, step: int, tag: str, markdown: str) -> None:
        """Markdown."""
        metadata = text_metadata.create_summary_metadata("", "")
        _add(self._events, step, summary=_bytes_summary(tag, markdown.encode(), metadata))

    def charts(self, layout: layout_pb2.Layout) -> None:
        """The Custom Scalars page."""
        metadata = charts_metadata.create_summary_metadata()
        content = layout.SerializeToString()
        summary = _bytes_summary(charts_metadata.CONFIG_SUMMARY_TAG, content, metadata)
        _add(self._events, 0, summary=summary)

    def hparams(self, values: Mapping[str, bool | int | float | str], run_name: str) -> None:
        """What this run is, for the HParams page."""
        _add(self._result, 0, summary=hparams_api.hparams_pb(dict(values), trial_id=run_name))

    def flush(self, *, durable: bool = False) -> None:
        """Hands everything to the operating system; durable: to the disk."""
        self._events.flush()
        self._result.flush()
        with files.named(self._path):
            self._lines.flush()
            if durable:
                os.fsync(self._lines.fileno())


def read_metrics(run_dir: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl.

    Raises:
      FileNotFoundError: the folder holds no such file.
    """
    with open(os.path.join(run_dir, METRICS_FILE), encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def hparam_values(
    settings: Mapping[str, str], gin_text: str
) -> dict[str, bool | int | float | str]:
    """What was set of a run, as values: numbers stay numbers, references become names.

    Args:
      settings: the values in use by 'Name.argument', of `config.settings`.
      gin_text: all bindings, of `config.full_text`; what it does not bind is left out, but for the
        seed.
    """
    bound = {name.rpartition("/")[2] for name in _BINDING.findall(gin_text)} | {"Experiment.seed"}
    return {name: _value(text) for name, text in sorted(settings.items()) if name in bound}


def _value(text: str) -> bool | int | float | str:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):  # a gin reference, such as @LWDGH()
        value = text.strip("@()")
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def gin_as_markdown(text: str) -> str:
    """Gin text as a code block."""
    return "\n".join("    " + line for line in text.splitlines())


def _add(events: EventFileWriter, step: int, **content) -> None:
    events.add_event(event_pb2.Event(wall_time=time.time(), step=step, **content))


def _scalar_summary(values: Mapping[str, float]) -> summary_pb2.Summary:
    summary = summary_pb2.Summary()
    for tag, value in values.items():
        metadata = scalar_metadata.create_summary_metadata("", "")
        tensor = tensor_util.make_tensor_proto(np.float32(value))
        summary.value.add(tag=tag, tensor=tensor, metadata=metadata)
    return summary


def _bytes_summary(tag: str, content: bytes | list[bytes], metadata) -> summary_pb2.Summary:
    tensor = tensor_util.make_tensor_proto(np.array(content, dtype=object))
    summary = summary_pb2.Summary()
    summary.value.add(tag=tag, tensor=tensor, metadata=metadata)
    return summary


def _truncate(path: str, last_step: int) -> None:
    """Keeps the whole lines up to a step; replaces the file at once."""
    if not os.path.exists(path):
        return
    kept: list[str] = []
    with open(path, encoding="utf-8") as file:
        lines = file.readlines()
    for line in lines:
        step = _step_of(line)
        if step is not None and step <= last_step:
            kept.append(line)
    if len(kept) == len(lines):
        return
    _log.info("%s: %d lines after step %d dropped", path, len(lines) - len(kept), last_step)
    files.write(path, "".join(kept))


def _step_of(line: str) -> int | None:
    """The step of a line, or None where the writing process was killed within it."""
    if not line.endswith("\n"):
        return None
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return None
