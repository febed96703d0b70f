# SPDX-License-Identifier: Apache-2.0
"""The training loop: meta-steps in windows, validation, checkpoints, and going on after a stop.

A window ends at every step where something is logged, saved or judged. Those steps depend on the step
number alone, so that a run that was killed and goes on logs the very lines of one that was not.

Where several processes share a run, all go through the same steps and windows; the first alone writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import numpy as np
import tensorflow as tf

from tf_lwdgh import command_line, config, files
from tf_lwdgh.data import pipeline
from tf_lwdgh.data.mixtures import Mixture
from tf_lwdgh.outer import strategies
from tf_lwdgh.runs import charts, checkpoints, introduction, readback, resume, start, summaries
from tf_lwdgh.runs.config import TrainerConfig
from tf_lwdgh.runs.conflict_picture import conflict_of_step
from tf_lwdgh.runs.constant_metrics import constant_metrics
from tf_lwdgh.runs.experiment import CONFIG_FILE, Assembly
from tf_lwdgh.runs.profiling import Profiler, choose_steps
from tf_lwdgh.runs.progress import Progress, StepClock
from tf_lwdgh.runs.tags import FIRST, Tags
from tf_lwdgh.runs.validation import Validation
from tf_lwdgh.types import Episode

OPERATIVE_FILE = "operative.gin"
_SHARED_FOLDER = "--run_dir must be one folder that all of them see."
_log = logging.getLogger(__name__)


@dataclasses.dataclass
class Progression:
    """Where a run stands.

    Attributes:
      step: meta-steps done.
      best_accuracy: the best validation accuracy so far; -1 before the first.
      best_step: where that was.
    """

    step: int = 0
    best_accuracy: float = -1.0
    best_step: int = 0


class TrainingDiverged(readback.NonFiniteError):
    """The loss or an update was not finite; the last checkpoint is intact."""


class Trainer:
    """Trains one experiment in one run folder; going on from the newest whole checkpoint there.

    Args:
      assembly: the experiment.
      run_dir: its folder.
      settings: how it is watched and kept; by default as gin says.

    Raises:
      ValueError: the folder holds a run with other settings or another data set, or no whole
        checkpoint though there are some; or not all processes see the same checkpoint.
    """

    def __init__(
        self, assembly: Assembly, run_dir: str, settings: TrainerConfig | None = None
    ) -> None:
        self.assembly, self.run_dir = assembly, os.fspath(run_dir)
        self.settings = settings or TrainerConfig()
        self.meta_step, self.workers = assembly.meta_step, assembly.workers
        self.last = checkpoints.of_run(run_dir, keep=self.settings.keep_checkpoints)
        self.best = checkpoints.of_run(run_dir, "best", keep=1)
        self._model_state = checkpoints.meta_variables(assembly.parameters)
        slots = checkpoints.optimizer_variables(self.meta_step.optimizer)
        self._state = {**self._model_state, "optimizer": slots}
        self._gin_settings = config.settings()
        self.at = self._restore()
        self.workers.agree({"checkpoint to go on from": str(self.at)}, _SHARED_FOLDER)
        self._since_histogram: list[readback.Arrays] = []
        constant = constant_metrics(assembly.experiment, assembly.outer.meta_batch_size)
        self._tags = Tags(self.settings.per_layer, tuple(constant))

    def run(
        self,
        *,
        stop: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
        profile: bool = False,
    ) -> Progression:
        """Trains to the end, or saves at the end of the window in which `stop` says so.

        With `profile` a few of the steps are profiled; that changes no number but the speed.

        Raises:
          TrainingDiverged: the loss or an update was not finite.
          ValueError: too few steps are left to profile any.
        """
        total = self.assembly.total_steps
        profiled = choose_steps(self.at.step, total) if profile else range(0)
        if not self.workers.is_chief:
            profiled, progress = range(0), self._progress(open(os.devnull, "w"))  # noqa: SIM115
        progress = progress or self._progress()
        if self.at.step >= total:
            progress.note(
                f"{self.run_dir}: all {total} steps are done; nothing is left to train. "
                + resume.how_to_train_on(self._gin_settings, self.run_dir)
            )
            return self.at
        validation = self._validation()
        batches = self._training_batches()
        profiler = Profiler(self.run_dir, profiled, progress.note)
        with self._log() as log, progress, profiler:
            if log is not None:
                self._introduce(log)
            self._loop(batches, validation, log, progress, profiler, stop)
        self.workers.any(False)  # none leaves before all are done
        return self.at

    def _progress(self, stream: TextIO | None = None) -> Progress:
        return Progress(
            total=self.assembly.total_steps,
            done=self.at.step,
            tasks_per_step=self.assembly.outer.meta_batch_size,
            stream=stream,
        )

    def _log(self) -> contextlib.AbstractContextManager[summaries.RunLog | None]:
        """The run's log, for the one process that writes; None for the others."""
        if not self.workers.is_chief:
            return contextlib.nullcontext()
        return summaries.RunLog(self.run_dir, resumed_at=self.at.step, tags=self._tags)

    def _loop(self, batches, validation, log, progress, profiler, stop) -> None:
        clock = StepClock(self.assembly.outer.meta_batch_size)
        progress.note("building the graph: the first step takes longer …")
        first = True
        while self.at.step < self.assembly.total_steps:
            start, end = self.at.step, self._next_boundary(self.at.step)
            window = []
            for step in range(start, end):
                with profiler.step(step):
                    # Not an int, which TensorFlow keeps for ever once it was made a tensor.
                    window.append(self.meta_step(next(batches), tf.constant(np.int64(step))))
                progress.advance()
                if first and log is not None:
                    self._write_operative()
                if first or step in profiler.steps:  # leaves tracing and profile out of the speed
                    clock.start()
                else:
                    clock.count(1)
                first = False
            arrays = readback.read(window)
            speed = clock.tasks_per_second()
            self._check_finite(arrays, start + 1)
            self.at.step = end
            values = readback.scalars(arrays)
            if speed is not None:
                values["speed/tasks_per_second"] = speed
            if log is not None:
                self._since_histogram.append(arrays)
            progress.report(
                tasks_per_second=speed,
                loss=values["train/loss"],
                accuracy=values["train/accuracy"],
            )
            stopping = self.workers.any(stop())
            self._judge_and_save(
                values, (window, start + 1), validation, log, progress, stopping=stopping
            )
            clock.start()
            if stopping:
                progress.note(f"stopped at step {end}; the same command goes on from there.")
                return

    def _judge_and_save(
        self, values, window, validation, log, progress, *, stopping: bool
    ) -> None:
        judged = self._is_due(self.at.step, self._interval("validate_every"))
        if judged:
            values.update(validation.judge())
        better = judged and values["val/accuracy"] > self.at.best_accuracy
        if better:
            self.at.best_accuracy, self.at.best_step = values["val/accuracy"], self.at.step
        if log is not None:
            self._write(
                values, window, validation, log, progress, judged=judged, better=better,
                stopping=stopping,
            )  # fmt: skip

    def _write(
        self, values, window, validation, log, progress, *, judged: bool, better: bool, stopping: bool
    ) -> None:
        step = self.at.step
        if judged:
            self._draw(log, validation, *window)
            progress.note(
                f"step {step}: validation accuracy {100 * values['val/accuracy']:.2f} ± "
                f"{100 * values['val/interval95']:.2f} %, loss {values['val/loss']:.3f}"
            )
        log.scalars(step, values)
        saving = stopping or self._is_due(step, self._interval("checkpoint_every"))
        if judged or step == self.assembly.total_steps or (validation is None and saving):
            log.histograms(step, readback.histograms(self._since_histogram))
            self._since_histogram.clear()
        if better:
            self.best.save(step, self._model_state, self._manifest())
        if judged:
            log.result(step, self._result(values))
        if saving:
            log.flush(durable=True)
            self.last.save(step, self._state, self._manifest())

    def _interval(self, name: str) -> int:
        value = getattr(self.settings, name)
        return self.assembly.outer.steps_per_epoch if value is None else value

    def _is_due(self, step: int, interval: int) -> bool:
        return interval > 0 and (step % interval == 0 or step == self.assembly.total_steps)

    def _next_boundary(self, step: int) -> int:
        names = ("validate_every", "checkpoint_every", "log_every")
        intervals = [i for i in map(self._interval, names) if i > 0]
        return min(self.assembly.total_steps, *((step // i + 1) * i for i in intervals))

    def _check_finite(self, arrays: readback.Arrays, first_step: int) -> None:
        try:
            readback.check_finite(arrays, first_step)
        except readback.NonFiniteError as error:
            kept = self.last.steps()
            saved = f"The checkpoint of step {kept[-1]} is intact" if kept else "Nothing was saved yet"
            raise TrainingDiverged(
                f"training diverged: {error} {saved}. Lower InnerLoop.inner_lr or LearningRate.rate, "
                "or clip more with OuterLoop.clip_norm."
            ) from error

    def _draw(self, log, validation: Validation, window: list, first_step: int) -> None:
        task = validation.picture(self.at.step)
        if task is not None:
            log.image(self.at.step, f"{FIRST}/val/episode", *task)
        picture = conflict_of_step(*readback.to_show(window, first_step))
        if picture is not None:
            log.image(self.at.step, *picture)

    def _result(self, values: dict[str, float]) -> dict[str, float]:
        """What the run has come to, for the HParams page, which shows five columns in order."""
        return {
            "result/best_accuracy": self.at.best_accuracy,
            "result/best_step": self.at.best_step,
            "result/last_accuracy": values["val/accuracy"],
            "result/last_loss": values["val/loss"],
            "result/train_loss": values["train/loss"],
        }

    def _training_batches(self) -> Iterator[Episode]:
        a, source = self.assembly, self.assembly.source("train")

        def batches(tasks: range, parts: int) -> tf.data.Dataset:
            return pipeline.meta_batches(
                source,
                a.training_episode,
                meta_batch_size=a.outer.meta_batch_size,
                seed=a.experiment.seed,
                start_step=self.at.step,
                end_step=a.total_steps,
                tasks=tasks,
                parts=parts,
                augment=True,
                label_noise=a.label_noise,
                pipeline_config=a.pipeline,
            )

        return iter(strategies.distribute(a.strategy, a.outer.meta_batch_size, batches))

    def _validation(self) -> Validation | None:
        """None where there is none; the settings say how often."""
        if self._interval("validate_every") == 0:
            return None
        return Validation(self.assembly, self.settings)

    def _restore(self) -> Progression:
        manifest = self.last.newest()
        if manifest is None:
            self._started = self._start()
            return Progression()
        self._started = manifest.get("start")
        resume.check(manifest, self._gin_settings, self._data, self.run_dir)
        self.last.load(manifest, self._state)
        _log.info("going on from step %d of %s", manifest["step"], self.run_dir)
        return Progression(manifest["step"], manifest["best_accuracy"], manifest["best_step"])

    def _start(self) -> dict[str, Any] | None:
        """Fills the variables of a new run with what it starts from, if anything."""
        experiment = self.assembly.experiment
        if experiment.start is None:
            return None
        started = start.load(
            self.assembly.parameters, experiment.start, experiment.start_checkpoint
        )
        _log.info("%s", start.describe(started))
        return started

    @property
    def _data(self) -> dict[str, Any]:
        spec = self.assembly.spec
        mixed = {"datasets": spec.describe()} if isinstance(spec, Mixture) else {}
        return {"fingerprint": spec.fingerprint, **mixed}

    def _manifest(self) -> dict:
        return {
            "best_accuracy": self.at.best_accuracy,
            "best_step": self.at.best_step,
            "dataset": self.assembly.dataset.label,
            **self._data,
            "learner": type(self.assembly.learner).__name__,
            "trained": list(self.assembly.parameters.names),
            **({} if self._started is None else {"start": self._started}),
            "settings": self._gin_settings,
        }

    def _introduce(self, log: summaries.RunLog) -> None:
        """Writes what the run is: its settings as a file, as text and as HParams."""
        files.write(os.path.join(self.run_dir, CONFIG_FILE), config.full_text())
        told = introduction.markdown(self.assembly, self._gin_settings, command_line.command())
        log.text(self.at.step, f"{FIRST}/run", told)
        log.text(self.at.step, "config/full", summaries.gin_as_markdown(config.full_text()))
        if self._started is not None:
            log.text(self.at.step, "config/start", start.describe(self._started))
        log.charts(charts.layout(self._tags))
        values = summaries.hparam_values(self._gin_settings, config.full_text())
        folder, name = os.path.split(os.path.abspath(self.run_dir))
        log.hparams(values, f"{name} ({os.path.basename(folder)})")  # TensorBoard cuts long names

    def _write_operative(self) -> None:
        files.write(os.path.join(self.run_dir, OPERATIVE_FILE), config.operative_text())
