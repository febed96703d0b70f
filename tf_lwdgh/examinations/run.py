# SPDX-License-Identifier: Apache-2.0
"""Examines a run's folder: lock, settings, checkpoints, data set, metrics and results."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from tf_lwdgh import config
from tf_lwdgh.data.mixtures import Spec
from tf_lwdgh.examinations import settings
from tf_lwdgh.examinations.report import Report
from tf_lwdgh.runs import checkpoints, experiment, resume
from tf_lwdgh.runs.checkpoints import CheckpointError
from tf_lwdgh.runs.config import TrainerConfig
from tf_lwdgh.runs.experiment import Assembly
from tf_lwdgh.runs.run_lock import is_locked
from tf_lwdgh.runs.summaries import METRICS_FILE

_ANEW = "take an intact copy of the folder, or train anew in another --run_dir"
_LOOKED_AT = "Experiment.strategy"  # a run is looked at on one device, on whatever it was trained


def examine(run_dir: str, data_dir: str) -> Report:
    """Looks at a run's folder.

    Raises:
      FileNotFoundError: it is none.
    """
    report = Report(run_dir)
    if is_locked(run_dir):
        report.note("a process is training in it now: what it writes meanwhile may look unfinished.")
    else:
        report.ok("no process is training in it")
    assembly = _assembly(report, run_dir, data_dir)
    newest = _checkpoints(report, run_dir)
    if assembly is not None:
        for which, manifest in newest.items():
            _fits(report, run_dir, which, manifest, assembly)
        if "last" in newest:
            _compare(report, newest["last"], assembly.spec, data_dir)
    _metrics(report, run_dir)
    _results(report, run_dir)
    return report


def _assembly(report: Report, run_dir: str, data_dir: str) -> Assembly | None:
    mend = f"put {experiment.CONFIG_FILE} back as the training wrote it, or train anew in another --run_dir"
    try:
        experiment.parse_run(run_dir)
    except ValueError as error:
        report.refused(error, mend)
        return None
    return settings.build(report, data_dir, mend)


def _checkpoints(report: Report, run_dir: str) -> dict[str, dict[str, Any]]:
    """The manifests of the newest whole checkpoints, 'best' and 'last', where there are any."""
    found: dict[str, dict[str, Any]] = {}
    for which in checkpoints.WHICH:
        folder = checkpoints.of_run(run_dir, which)
        whole, broken = [], []
        for step in folder.steps():
            manifest, fault = folder.inspect(step)
            if manifest is None:
                broken.append((folder.path(step), fault))
            else:
                whole.append(step)
                found[which] = manifest
        for path, fault in broken:
            rest = "training goes back to the one before" if whole else "no other is whole"
            report.fault(
                f"the {which} checkpoint {path} is not whole: {fault}; {rest}.",
                f"rm -r {path}" if whole else _ANEW,
            )
        if whole:
            report.ok(f"{which} checkpoint: step {whole[-1]}, every file as it was written")
        elif not broken and which == "last":
            report.warn("there is no checkpoint yet: one is saved at the end of an epoch.", "the train command again")
        elif not broken:
            report.note("there is no best checkpoint: one is saved after the first validation.")
        for name in pathlib.Path(folder.folder).glob(".unfinished-*"):
            report.note(f"{name} was left by a process that was ended; the next checkpoint removes it.")
    return found


def _fits(report: Report, run_dir: str, which: str, manifest: dict[str, Any], assembly: Assembly) -> None:
    try:
        checkpoints.of_run(run_dir, which).load_learned(manifest, assembly.parameters)
    except CheckpointError as error:
        report.refused(error, _ANEW)


def _compare(report: Report, manifest: dict[str, Any], spec: Spec | None, data_dir: str) -> None:
    """Settings and data set now, and those of the checkpoint."""
    TrainerConfig()
    kept, now = ({n: v for n, v in values.items() if n != _LOOKED_AT} for values in (
        manifest["settings"], config.settings()
    ))  # fmt: skip
    changed = [f"{name}: {old} in the checkpoint, {new} now" for name, old, new in resume.differences(kept, now)]
    if changed:
        report.fault(
            f"{experiment.CONFIG_FILE} has other settings than the checkpoint: {'; '.join(changed)}.",
            f"put the checkpoint's values back into {experiment.CONFIG_FILE}",
        )
    if spec is None:
        return
    if spec.fingerprint == manifest["fingerprint"]:
        report.ok("the data set is the one that the run was trained on")
    else:
        report.fault(
            f"the data set in {data_dir!r} is another than the run was trained on: its fingerprint was "
            f"{manifest['fingerprint']}, now it is {spec.fingerprint}.",
            "name the folder of that data set with --data_dir, or train anew in another --run_dir",
        )


def _metrics(report: Report, run_dir: str) -> None:
    path = os.path.join(run_dir, METRICS_FILE)
    if not os.path.exists(path):
        report.warn(f"there is no {METRICS_FILE}: the run has logged nothing yet, or it was removed.")
        return
    steps, bad = _read_metrics(path)
    if bad:
        if bad == [len(steps) + 1]:
            cut = "its last line is cut, as where a process was killed; going on with the run drops it"
            report.warn(f"{path}: {cut}.", "the train command again")
        else:
            listed, lines = ", ".join(map(str, bad)), ";".join(f"{n}d" for n in bad)
            report.fault(f"{path}: these lines are no JSON with a step: {listed}.", f"sed -i '{lines}' {path}")
    if sorted(set(steps)) != steps:
        report.fault(f"{path}: its steps do not rise from line to line: two runs wrote into it.", _ANEW)
    if not bad and steps:
        report.ok(f"{METRICS_FILE}: {len(steps):,} lines, to step {steps[-1]:,}")


def _read_metrics(path: str) -> tuple[list[int], list[int]]:
    """The steps of the lines that can be read, and the numbers of those that can't."""
    steps, bad = [], []
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            try:
                steps.append(int(json.loads(line)["step"]))
            except (ValueError, KeyError, TypeError):
                bad.append(number)
    return steps, bad


def _results(report: Report, run_dir: str) -> None:
    """What evaluations have left."""
    found = sorted(pathlib.Path(run_dir).glob("evaluation/*.json"))
    for path in found:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            accuracy = f"{100 * content['accuracy']:.2f} ± {100 * content['interval95']:.2f} %"
        except (ValueError, KeyError, TypeError):
            report.fault(f"{path} is no result of an evaluation.", f"rm {path}")
        else:
            report.ok(f"evaluation/{path.name}: {accuracy} over {content['n_tasks']} tasks")
