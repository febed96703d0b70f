# SPDX-License-Identifier: Apache-2.0
"""What a run's tasks do to each other at one of its checkpoints, measured without training.

For each of S meta-batches of the run's own settings: every task's query loss, and in every unit the norm of
its outer gradient, its Gradient Conflict Index, its cosine with the mean, the weight that the paper's eq. 4
gives it, and how long the aggregator's update is beside the mean. Nothing is written to the run's folder.

Shapes: S meta-batches, U units, K tasks of a meta-batch.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lwdgh.aggregators import Aggregator, trees
from tf_lwdgh.aggregators.lwdgh import LWDGH
from tf_lwdgh.aggregators.task_gradients import TaskGradients
from tf_lwdgh.data import pipeline
from tf_lwdgh.outer.outer_gradients import outer_gradients
from tf_lwdgh.outer.task_execution import TaskExecution
from tf_lwdgh.runs import checkpoints, experiment
from tf_lwdgh.runs.checkpoints import WHICH
from tf_lwdgh.runs.experiment import Assembly
from tf_lwdgh.runs.judge import load_checkpoint
from tf_lwdgh.types import Clock, Episode, stream_key

_PER_TASK = ("gradient_norms", "gci", "cosines", "weights")
_PER_UNIT = ("update_norms", "mean_norms")


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """The measurements at one checkpoint, all in float64.

    Attributes:
      run_dir: the run's folder.
      step: of the checkpoint: meta-steps done.
      split: whose classes the tasks were drawn of.
      seed: of the tasks.
      rule: what the weights are of, such as "LWDGH(unit='variable', temperature=1.0, …)".
      units: the units' names; those in which all gradients are 0 are left out.
      losses: [S, K], query losses in nats.
      gradient_norms: [S, U, K].
      gci: [S, U, K], at least 0.
      cosines: [S, U, K] with the mean over the K tasks; 0 where either is 0.
      weights: [S, U, K], summing to 1 over the tasks.
      update_norms: [S, U], of the run's aggregator's update, before any clipping.
      mean_norms: [S, U], of the mean over the K tasks.
    """

    run_dir: str
    step: int
    split: str
    seed: int
    rule: str
    units: tuple[str, ...]
    losses: np.ndarray
    gradient_norms: np.ndarray
    gci: np.ndarray
    cosines: np.ndarray
    weights: np.ndarray
    update_norms: np.ndarray
    mean_norms: np.ndarray

    def __post_init__(self) -> None:
        s, k = self.losses.shape
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_PER_TASK, (s, len(self.units), k))
        shapes |= dict.fromkeys(_PER_UNIT, (s, len(self.units)))
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                received = getattr(self, name).shape
                raise ValueError(f"Probe.{name} must have shape {shape}. Received: {received}.")

    @property
    def effective_steps(self) -> np.ndarray:
        """[S, U]: the update's norm over the mean's; 0 where the mean is 0."""
        return _ratio(self.update_norms, self.mean_norms)

    @property
    def whole_effective_steps(self) -> np.ndarray:
        """[S]: the same of all units together."""
        norms = (np.linalg.norm(x, axis=-1) for x in (self.update_norms, self.mean_norms))
        return _ratio(*norms)


class Prober:
    """Measures a run's checkpoints, all on the same meta-batches.

    The tasks depend on (seed, split) alone, so that runs with the same data and shape of tasks are probed
    on the same ones; their stream is none that training draws from. Images of 'train' are augmented,
    and labels wrong, where the run's settings say so, others never. Schedules stand where the checkpoint
    stands, and the aggregator acts at every meta-batch, also where the run explores; sharpness plays no part.

    gin's bindings are those of the run afterwards.

    Args:
      run_dir: a folder that `train` wrote.
      data_dir: the folder of data sets.
      seed: of the tasks.
      split: 'train', 'val' or 'test'.

    Raises:
      FileNotFoundError: no such run or data set.
      ValueError: an argument breaks its rule.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str],
        *,
        data_dir: str | os.PathLike[str],
        seed: int = 0,
        split: str = "train",
    ) -> None:
        _check_whole("seed", seed)
        self._run_dir, self._seed, self._split = os.fspath(run_dir), seed, split
        self._assembly = experiment.from_run(run_dir, data_dir=data_dir, splits=[split])
        learner = self._assembly.learner
        if split != "train" and learner.numbers_classes:
            raise ValueError(
                f"split must be 'train' for a run of {type(learner).__name__}, whose objective is among all training "
                f"classes. Received: split = {split!r}, run {self._run_dir!r}."
            )
        self._measure = _meter(self._assembly, _stream(seed))

    def at(self, which: str | int = "last", *, steps: int = 100) -> Probe:
        """Measures one checkpoint.

        Args:
          which: 'last', 'best', or the step of a checkpoint that the run has kept.
          steps: S, how many meta-batches.

        Raises:
          FileNotFoundError: no such checkpoint.
          ValueError: an argument breaks its rule, or the split can't fill the run's tasks.
        """
        _check_whole("steps", steps, least=1)
        assembly, training = self._assembly, self._split == "train"
        step = _load(assembly, self._run_dir, which)
        batches = pipeline.meta_batches(
            assembly.source(self._split),
            assembly.training_episode if training else assembly.shape,
            meta_batch_size=assembly.outer.meta_batch_size,
            seed=_stream(self._seed),
            end_step=steps,
            augment=training,
            label_noise=assembly.label_noise if training else None,
            pipeline_config=assembly.pipeline,
        )
        at = tf.constant(min(step, assembly.total_steps - 1), tf.int64)
        measured = [self._measure(batch, tf.constant(s, tf.int64), at) for s, batch in enumerate(batches)]
        arrays = {k: np.stack([m[k].numpy() for m in measured]).astype(np.float64) for k in measured[0]}
        units = list(assembly.parameters.units(assembly.experiment.aggregator.unit))
        moving = [u for u in range(len(units)) if arrays["gradient_norms"][:, u].any()]
        kept = {k: v if k == "losses" else v[:, moving] for k, v in arrays.items()}
        rule = repr(_attention(assembly.experiment.aggregator))
        names = tuple(units[u] for u in moving)
        return Probe(self._run_dir, step, self._split, self._seed, rule, names, **kept)


def probe(
    run_dir: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str],
    steps: int = 100,
    which: str | int = "last",
    seed: int = 0,
    split: str = "train",
) -> Probe:
    """Measures one checkpoint of a run: `Prober.at`, whose arguments and errors these are."""
    return Prober(run_dir, data_dir=data_dir, seed=seed, split=split).at(which, steps=steps)


class _StandingClock(Clock):
    """A run's clock that stands still, with random draws of its own at every meta-batch."""

    def __init__(self, batch: tf.Tensor, step: tf.Tensor, **run: int) -> None:
        super().__init__(step, **run)
        self._batch = batch

    def key(self, stream: str) -> tf.Tensor:
        return tf.random.fold_in(super().key(stream), self._batch, alg="philox")


def _meter(assembly: Assembly, stream: int) -> Callable[[Episode, tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """A graph from a meta-batch, its number and the run's step to what Probe holds of it, without the axis S."""
    parameters, outer = assembly.parameters, assembly.outer
    aggregator = assembly.experiment.aggregator
    units, attention = parameters.units(aggregator.unit), _attention(aggregator)

    @tf.function(autograph=False)
    def measure(episodes: Episode, batch: tf.Tensor, at: tf.Tensor) -> dict[str, tf.Tensor]:
        clock = _StandingClock(batch, at, steps_per_epoch=outer.steps_per_epoch, epochs=outer.epochs, seed=stream)
        outcome = outer_gradients(
            parameters,
            episodes,
            clock=clock,
            execution=TaskExecution(),
            loss_scale=outer.loss_scale,
        )
        tasks = TaskGradients(outcome.gradients, losses=outcome.losses, units=units)
        update = trees.measured_units(aggregator(tasks, clock).gradients, units)
        pairs = zip(tasks.unit_rows, tasks.unit_means)
        return {
            "losses": tasks.all_losses,
            "gradient_norms": tf.stack([rows.norms for rows in tasks.unit_rows]),
            "gci": tasks.gci,
            "cosines": tf.stack([trees.cosines(rows, mean) for rows, mean in pairs]),
            "weights": tf.stack(list(attention(tasks, clock).weights.values())),
            "update_norms": tf.stack([u.norms for u in update]),
            "mean_norms": tf.stack([mean.norms for mean in tasks.unit_means]),
        }

    return measure


def _attention(aggregator: Aggregator) -> LWDGH:
    """The run's LWDGH; where it has another aggregator the paper's, on that one's units."""
    if isinstance(aggregator, LWDGH):
        return aggregator
    defaults: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(LWDGH)}  # not gin's
    return LWDGH(**{**defaults, "unit": aggregator.unit})


def kept_steps(run_dir: str | os.PathLike[str]) -> list[int]:
    """The steps whose checkpoints a run has kept, rising: what `which` may be beside 'last' and 'best'."""
    return checkpoints.of_run(run_dir).steps()


def _load(assembly: Assembly, run_dir: str | os.PathLike[str], which: str | int) -> int:
    """Fills the model with a checkpoint's weights; returns its step."""
    if which in WHICH:
        return load_checkpoint(assembly, run_dir, which)["step"]
    if isinstance(which, bool) or not isinstance(which, int):
        raise ValueError(
            f"which must be one of {', '.join(WHICH)}, or the step of a checkpoint. Received: which = {which!r}."
        )
    folder = checkpoints.of_run(run_dir)
    manifest = folder.newest([which])
    if manifest is None:
        kept = ", ".join(map(str, kept_steps(run_dir))) or "none"
        raise FileNotFoundError(
            f"there is no checkpoint of step {which} in {folder.folder!r}; the steps there are: "
            f"{kept}. TrainerConfig.keep_checkpoints says how many of them a run keeps. "
            f"Received: which = {which}."
        )
    folder.load_learned(manifest, assembly.parameters)
    return which


def _stream(seed: int) -> int:
    """The seed that the pipeline draws from: no run's, but for a chance of 2^-64."""
    high, low = stream_key("probe", seed)
    return (high << 32) + low


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _check_whole(name: str, value: int, least: int | None = None) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or (least is not None and value < least):
        rule = "an integer" if least is None else f"an integer of at least {least}"
        raise ValueError(f"{name} must be {rule}. Received: {name} = {value!r}.")
