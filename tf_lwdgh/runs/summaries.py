# SPDX-License-Identifier: Apache-2.0
"""The one writer of all that a run reports: to TensorBoard, and the scalars to metrics.jsonl too.

A line of metrics.jsonl is {"step": s, "group/name": value, …}, s the meta-steps done. A run that is
resumed at step s drops the lines after s, and tells TensorBoard to do the same.

The run's event files lie in its folder itself, so that TensorBoard, told of the folder of all runs, calls it
by its name. The HParams page is fed from a folder below, with a few results and nothing else, and
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
from collections.abc import Mapping

import numpy as np
from tensorboard.plugins.custom_scalar import layout_pb2

from tf_lwdgh import files
from tf_lwdgh.runs.events import Events
from tf_lwdgh.runs.tags import Tags

METRICS_FILE = "metrics.jsonl"
RESULT_FOLDER = "result"  # in a run's folder, what the HParams page shows
EXPLORE = "explore"  # a hparam: whether some meta-steps take the plain mean
_ALWAYS = {f"Experiment.{name}" for name in ("seed", "learner", "aggregator", "backbone")}
_BINDING = re.compile(r"^([\w./]+\.\w+) = ", re.MULTILINE)
_log = logging.getLogger(__name__)


class RunLog:
    """Writes a run's summaries. A context manager.

    Args:
      run_dir: the run's folder; metrics.jsonl and event files are made in it.
      resumed_at: meta-steps done so far; what was logged after that is dropped.
      tags: what TensorBoard shows.
    """

    def __init__(
        self, run_dir: str | os.PathLike[str], *, resumed_at: int = 0, tags: Tags | None = None
    ) -> None:
        os.makedirs(run_dir, exist_ok=True)
        path = os.path.join(run_dir, METRICS_FILE)
        _truncate(path, resumed_at)
        self._lines = open(path, "a", encoding="utf-8")  # noqa: SIM115
        self._path, self._tags = path, tags or Tags()
        self._events = Events(run_dir)
        self._result = Events(os.path.join(run_dir, RESULT_FOLDER))
        for events in (self._events, self._result):
            events.started(resumed_at + 1 if resumed_at else 0)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_) -> None:
        with files.named(self._path), contextlib.ExitStack() as closed:
            for opened in (self._lines, self._result, self._events):  # each, whatever the others say
                closed.callback(opened.close)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl, null where not finite, and what TensorBoard shows of the numbers."""
        finite = {tag: value if math.isfinite(value) else None for tag, value in values.items()}
        line = json.dumps({"step": step, **finite}, allow_nan=False)
        with files.named(self._path):
            self._lines.write(line + "\n")
            self._lines.flush()
        self._events.scalars(step, self._tags.shown(values))

    def result(self, step: int, values: Mapping[str, float]) -> None:
        """What the run has come to so far, for the HParams page."""
        self._result.scalars(step, values)

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Histograms of all the values of each array, where TensorBoard shows single units."""
        self._events.histograms(step, self._tags.of_histograms(values))

    def image(self, step: int, tag: str, png: bytes, size: tuple[int, int]) -> None:
        """A PNG of (width, height) pixels."""
        self._events.image(step, tag, png, size)

    def text(self, step: int, tag: str, markdown: str) -> None:
        """Markdown."""
        self._events.text(step, tag, markdown)

    def charts(self, layout: layout_pb2.Layout) -> None:
        """The Custom Scalars page."""
        self._events.charts(layout)

    def hparams(self, values: Mapping[str, bool | int | float | str], run_name: str) -> None:
        """What this run is, for the HParams page."""
        self._result.hparams(values, run_name)

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
        seed and the parts that an experiment is made of.

    Returns:
      Those, sorted, and in the place of Experiment.explore whether the run explores, which tells LWDGH
      from LWDGH + EE.
    """
    bound = {name.rpartition("/")[2] for name in _BINDING.findall(gin_text)} | _ALWAYS
    bound.discard("Experiment.explore")
    found = {name: _value(text) for name, text in sorted(settings.items()) if name in bound}
    return {**found, EXPLORE: explores(settings)}


def explores(settings: Mapping[str, str]) -> bool:
    """Whether a run takes the plain mean now and then, by its settings."""
    return settings.get("ExploreExploit.mode", "'off'") != "'off'"


def _value(text: str) -> bool | int | float | str:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):  # a gin reference, such as @LWDGH()
        value = text.strip("@()")
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def gin_as_markdown(text: str) -> str:
    """Gin text as a code block."""
    return "\n".join("    " + line for line in text.splitlines())


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
