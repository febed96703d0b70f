# SPDX-License-Identifier: Apache-2.0
"""Whether a run may go on from a checkpoint: settings and data set must be those of the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tf_lwdgh.runs.summaries import explores

# Bindings that change no number that is trained or logged under a step. ConflictReport.cosines says
# whether some are logged at all; ConflictReport.threshold changes them.
HARMLESS = (
    "PipelineConfig.", "Evaluation.", "Threads.", "MultiWorker.", "TrainerConfig.keep_checkpoints",
    "TaskExecution.parallel_tasks", "InnerLoop.memory", "ConflictReport.cosines", "TrainerConfig.per_layer",
)  # fmt: skip
LENGTH = "OuterLoop.epochs"


def differences(
    old: Mapping[str, str], new: Mapping[str, str]
) -> list[tuple[str, str | None, str | None]]:
    """The settings that differ and matter: (name, old value, new value).

    More epochs are no difference where nothing before the old end depends on the run's length: the
    learning rate is constant, and there is no explore-exploit schedule. Nothing else asks the clock how
    long the run is; what one day does belongs in `_depends_on_length`. Nor is a setting that is None where there was
    none of that name: what a later version added stands at what it was without.
    """
    found = []
    for name in sorted({*old, *new}):
        if name.startswith(HARMLESS) or old.get(name) == new.get(name):
            continue
        if name not in old and new[name] == "None":
            continue
        if name == LENGTH and _extends(old, new):
            continue
        found.append((name, old.get(name), new.get(name)))
    return found


def check(
    manifest: Mapping[str, Any], settings: Mapping[str, str], data: Mapping[str, Any], run_dir: str
) -> None:
    """Makes sure that a run may go on.

    Args:
      manifest: the checkpoint's, with 'settings' and what `data` has.
      settings: the present ones, of `config.settings`.
      data: the present data set's 'fingerprint', and of a mixture 'datasets': each set's
        fingerprint and share.
      run_dir: for the message.

    Raises:
      ValueError: it may not; both values of everything that differs are shown.
    """
    advice = (
        "Take the old values back to go on with it, or start a new run with another --run_dir."
    )
    if manifest["fingerprint"] != data["fingerprint"]:
        raise ValueError(
            f"the run in {run_dir!r} was started on another data set: its fingerprint was "
            f"{manifest['fingerprint']}, now it is {data['fingerprint']}. "
            f"{_changed_sets(manifest, data)}{advice}"
        )
    changed = differences(manifest["settings"], settings)
    if changed:
        lines = [f"  {name}: was {_shown(a)}, now {_shown(b)}" for name, a, b in changed]
        if any(name == LENGTH and a and b and int(b) > int(a) for name, a, b in changed):
            advice += f" {how_to_train_on(manifest['settings'], run_dir)}"
        raise ValueError(
            f"the run in {run_dir!r} was started with other settings:\n"
            + "\n".join(lines)
            + f"\n{advice}"
        )


def how_to_train_on(settings: Mapping[str, str], run_dir: str) -> str:
    """How to train further than to the end of a run with these settings: in the way that will be accepted."""
    if not _depends_on_length(settings):
        return f"More epochs: --gin_param='{LENGTH} = …'."
    return (
        "Its schedules depend on its length, so that it can't be made longer; to train on from what it has "
        f"learned, start a new run with another --run_dir and --gin_param=\"Experiment.start = '{run_dir}'\"."
    )


def _changed_sets(manifest: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """A line for each set of a mixture that was not, or is not, the same part of it."""
    old, new = manifest.get("datasets", {}), data.get("datasets", {})
    lines = [
        f"\n  {name}: was {_part(old.get(name))}, now {_part(new.get(name))}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    return "".join(lines) + "\n" if lines else ""


def _part(described: Mapping[str, Any] | None) -> str:
    if described is None:
        return "no part"
    return f"share {described['share']:.6g} with fingerprint {described['fingerprint']}"


def _extends(old: Mapping[str, str], new: Mapping[str, str]) -> bool:
    return int(new[LENGTH]) >= int(old[LENGTH]) and not _depends_on_length(new)


def _depends_on_length(settings: Mapping[str, str]) -> bool:
    rate_moves = (
        settings.get("LearningRate.decay", "'constant'") != "'constant'"
        or float(settings.get("LearningRate.warmup", 0)) > 0
    )
    return explores(settings) or rate_moves


def _shown(value: str | None) -> str:
    return "not set" if value is None else value
