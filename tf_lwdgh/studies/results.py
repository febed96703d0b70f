# SPDX-License-Identifier: Apache-2.0
"""What came of a job: one small JSON file, of which the report is made; the run's folder may go.

A job that failed leaves one too, with the reason. Results can be kept, committed, and gathered from
several machines in one folder.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tf_lwdgh
from tf_lwdgh import files
from tf_lwdgh.outer.threads import cores
from tf_lwdgh.runs import checkpoints, summaries
from tf_lwdgh.studies.jobs import Job

DONE, DIVERGED, FAILED = "done", "diverged", "failed"
_PACKAGE = os.path.dirname(os.path.abspath(tf_lwdgh.__file__))


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """One run, trained and judged, or why not.

    Attributes:
      setting: the setting's name.
      method: the method's name.
      seed: the run's.
      state: 'done', 'diverged' or 'failed'.
      message: why, where not done.
      steps: meta-steps trained.
      accuracies: [T] float64 in [0, 1], one a test task, in the order of the task list; [0] if not done.
      about: what was evaluated, as evaluate writes it.
      settings: the run's gin settings by name.
      fingerprint: the data set's.
      measured: means over training: 'gci', 'conflict_rate', 'seconds_per_step', 'hours'; those known.
      losses: the mean training loss of every epoch.
      made: 'commands', 'hardware', 'versions', 'commit'.
      note: a sentence about the run for the report.
    """

    setting: str
    method: str
    seed: int
    state: str
    message: str = ""
    steps: int = 0
    accuracies: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fingerprint: str = ""
    measured: Mapping[str, float] = dataclasses.field(default_factory=dict)
    losses: Sequence[float] = ()
    made: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""

    def write(self, path: str) -> None:
        """Writes JSON; a whole file appears, or none."""
        content = dataclasses.asdict(self)
        content["accuracies"] = [round(float(a), 6) for a in self.accuracies]
        files.write_json(path, content)


def read(path: str) -> Result | None:
    """What `write` wrote; None where there is nothing yet.

    Raises:
      ValueError: the file is damaged.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        content["accuracies"] = np.array(content["accuracies"], np.float64)
        return Result(**content)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path!r} is no whole result ({error}). Remove it: its job is then run again.") from error


def of_run(job: Job) -> Result:
    """Gathers the result of a run that was trained and judged.

    Raises:
      ValueError: the run has no checkpoint or evaluation.
    """
    manifest = checkpoints.of_run(job.run_dir).newest()
    judged = newest_evaluation(job.run_dir, job.checkpoint)
    if manifest is None or judged is None:
        raise ValueError(f"there is no checkpoint or evaluation in {job.run_dir!r}.")
    lines = summaries.read_metrics(job.run_dir)
    tasks = int(manifest["settings"]["OuterLoop.meta_batch_size"])
    about = {k: v for k, v in judged.items() if k not in ("accuracies", "losses")}
    return Result(
        setting=job.setting, method=job.method, seed=job.seed, state=DONE, steps=manifest["step"],
        accuracies=np.array(judged["accuracies"]), about=about, settings=manifest["settings"],
        fingerprint=manifest["fingerprint"], measured=measured(lines, tasks),
        losses=loss_by_epoch(lines, int(manifest["settings"]["OuterLoop.steps_per_epoch"])),
        made=made(job), note=job.note,
    )  # fmt: skip


def failure(job: Job, state: str, message: str) -> Result:
    """The result of a job that came to nothing."""
    return Result(
        job.setting, job.method, job.seed, state, message, steps_done(job), made=made(job),
        note=job.note,
    )  # fmt: skip


def steps_done(job: Job) -> int:
    """The meta-steps of the job's newest checkpoint."""
    return max(checkpoints.of_run(job.run_dir).steps(), default=0)


def newest_evaluation(run_dir: str, checkpoint: str) -> dict[str, Any] | None:
    """The evaluation of a run that was written last, of the 'last' or 'best' checkpoint."""
    paths = glob.glob(os.path.join(run_dir, "evaluation", "*.json"))
    for path in sorted(paths, key=os.path.getmtime, reverse=True):
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        if found["checkpoint"].startswith(f"{checkpoint} "):
            return found
    return None


def measured(lines: Sequence[Mapping[str, float | None]], tasks: int) -> dict[str, float]:
    """Means over a run of GCI, rate of conflict and seconds a meta-step, each window by its steps.

    Args:
      lines: of metrics.jsonl.
      tasks: of a meta-batch.
    """
    lengths = np.diff([0, *(line["step"] for line in lines)])
    found: dict[str, float] = {}
    for name, key in (("gci", "gci/total"), ("conflict_rate", "conflict_rate/total")):
        known = [(line[key], n) for line, n in zip(lines, lengths) if line.get(key) is not None]
        if known:
            values, weights = zip(*known)
            found[name] = float(np.average(values, weights=weights))
    speeds = [s for line in lines if (s := line.get("speed/tasks_per_second"))]
    if speeds:
        found["seconds_per_step"] = tasks / float(np.median(speeds))
        found["hours"] = found["seconds_per_step"] * float(lines[-1]["step"]) / 3600
    return found


def loss_by_epoch(lines: Sequence[Mapping[str, float | None]], epoch: int) -> list[float]:
    """The mean training loss of every epoch, from the windows that end in it.

    Args:
      lines: of metrics.jsonl.
      epoch: meta-steps of one.
    """
    by_epoch: dict[int, list[float]] = {}
    for line in lines:
        if line.get("train/loss") is not None:
            by_epoch.setdefault((int(line["step"]) - 1) // epoch, []).append(line["train/loss"])
    return [round(float(np.mean(by_epoch[e])), 6) for e in sorted(by_epoch)]


def made(job: Job) -> dict[str, Any]:
    """By which commands, on what and with which versions."""
    commands = [job.train_command(), job.evaluate_command()]
    return {
        "commands": [shlex.join(["python", *c[1:]]) for c in commands],
        "hardware": hardware(),
        "versions": {
            "tf_lwdgh": tf_lwdgh.__version__, "tensorflow": tf.__version__,
            "keras": keras.__version__, "numpy": np.__version__, "python": platform.python_version(),
        },
        "commit": commit(),
    }  # fmt: skip


def hardware() -> str:
    """Such as '1 core of AMD EPYC' or '1 × NVIDIA H100'."""
    details = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    if details:
        return f"{len(details)} × {details[0]}"
    n = cores()
    return f"{n} {'core' if n == 1 else 'cores'} of {_processor()}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """The commit of the clone that runs, with '+' if files differ from it; '' without a clone."""
    git = ["git", "-C", _PACKAGE]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", "."],
            capture_output=True, text=True,
        )  # fmt: skip
    except OSError:
        return ""
    if head.returncode:
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
