# SPDX-License-Identifier: Apache-2.0
"""Accuracies of test tasks: mean, 95 % interval, n; and the paired difference of two checkpoints.

The interval is mean ± 1.96 s/√n over tasks, s the standard deviation with ddof = 1.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lwdgh import config, files
from tf_lwdgh.data.batches import Batches
from tf_lwdgh.data.dataset_config import checked_names
from tf_lwdgh.data.variable_episodes import VariableEpisodes
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.losses import cross_entropy
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.outer.answers import Answers
from tf_lwdgh.outer.task_execution import TaskExecution
from tf_lwdgh.types import Episode


@config.configurable
@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is evaluated.

    Attributes:
      n_tasks: how many tasks; fewer than some thousands are noisy.
      split: 'test', 'val' or 'train'.
      inner_steps: steps of the inner loop; the paper tests with 10. None: as in training.
      seed: of the tasks.
      n_way: None: as in training; more needs a learner that takes any, such as MAML with head = 'zero'.
      k_shot: None: as in training.
      n_query: queries a class; None: as in training.
      queries_per_call: queries that the learner sees together; None: all of a task. 1: each by itself,
        as a server may be asked; as many as n_query: those of one class. Where BatchNorm is transductive
        accuracy depends on it.
      batch_size: tasks made and held at once; changes no result.
      dataset: the name of the data set, or a tuple of names, of which the tasks are equally often.
        None: as in training.
      episodes: tasks that vary in ways and shots, @VariableEpisodes(), for learners that take any number
        of ways. None: as in training, or of one shape where n_way, k_shot or n_query is given.
    """

    n_tasks: int = 1000
    split: str = "test"
    inner_steps: int | None = 10
    seed: int = 0
    n_way: int | None = None
    k_shot: int | None = None
    n_query: int | None = None
    queries_per_call: int | None = None
    batch_size: int = 16
    dataset: str | tuple[str, ...] | None = None
    episodes: VariableEpisodes | None = None

    def __post_init__(self) -> None:
        lowest = (("n_tasks", 2), ("batch_size", 1), ("inner_steps", 0), ("queries_per_call", 1))
        for name, least in lowest:
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(
                    f"Evaluation.{name} must be at least {least}. Received: Evaluation.{name} = {value!r}."
                )
        if self.split not in ("train", "val", "test"):
            raise ValueError(
                f"Evaluation.split must be one of train, val, test. Received: Evaluation.split = {self.split!r}."
            )
        if self.dataset is not None:
            checked_names(self.dataset, "Evaluation.dataset")
        if not (self.episodes is None or isinstance(self.episodes, VariableEpisodes)):
            raise ValueError(
                "Evaluation.episodes must be @VariableEpisodes(), with brackets, or None. "
                f"Received: Evaluation.episodes = {self.episodes!r}."
            )
        if self.episodes is not None and self.fixes_shape:
            raise ValueError(
                "Evaluation.n_way, Evaluation.k_shot and Evaluation.n_query must be None where "
                "Evaluation.episodes says how they vary. Received: "
                f"{self.n_way!r}, {self.k_shot!r} and {self.n_query!r}."
            )

    def check_calls(self, queries: int) -> None:
        """Raises ValueError where a task's queries can't be asked in calls of one size."""
        if self.queries_per_call is not None and queries % self.queries_per_call:
            raise ValueError(
                f"Evaluation.queries_per_call must divide a task's {queries} queries. "
                f"Received: Evaluation.queries_per_call = {self.queries_per_call}."
            )

    @property
    def fixes_shape(self) -> bool:
        """Whether it says a number of ways, shots or queries."""
        return any(n is not None for n in (self.n_way, self.k_shot, self.n_query))


def mean_and_interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and 1.96 s/√n of [n] values, in float64; the interval of one value is infinite."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return float(values.mean()), math.inf
    return float(values.mean()), float(1.96 * values.std(ddof=1) / math.sqrt(len(values)))


def _steps(steps: int | None) -> str:
    return "" if steps is None else f" with {steps} inner steps"


def _shape(about: dict[str, Any]) -> str:
    if "mean_ways" not in about:
        return f"{about['n_way']}-way {about['k_shot']}-shot, {about['n_query']} queries a class"
    return (
        f"varying ways ({about['mean_ways']:.1f} on average), shots ({about['mean_shots']:.1f}) and queries "
        f"a class ({about['mean_queries']:.1f})"
    )


def _calls(about: dict[str, Any]) -> str:
    size = about.get("queries_per_call")
    return "" if size is None else f", {size} {'query' if size == 1 else 'queries'} a call"


def _trained_on(about: dict[str, Any]) -> str:
    return f", trained on {about['trained_on']}" if "trained_on" in about else ""


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationResult:
    """One checkpoint on one list of tasks.

    Attributes:
      accuracies: [n] float64 in [0, 1], one a task.
      losses: [n] float64, nats.
      about: what was evaluated: task-list hash, learner, batch_norm, n_query, inner_steps, checkpoint …
      datasets: [n] names: which data set of a mixture each task is of; empty where there is one only.
      answers: what became of the queries by class and confidence; None where that was not counted.
      seconds_per_task: to adapt and predict, of a task of a batch whose tasks run side by side; batches
        for which a graph was traced, such as the first, do not count. None where that leaves none.
    """

    accuracies: np.ndarray
    losses: np.ndarray
    about: dict[str, Any]
    datasets: Sequence[str] = ()
    answers: Answers | None = None
    seconds_per_task: float | None = None

    @property
    def mean(self) -> float:
        """Mean accuracy in [0, 1]."""
        return mean_and_interval(self.accuracies)[0]

    @property
    def interval95(self) -> float:
        """Half the width of the 95 % interval."""
        return mean_and_interval(self.accuracies)[1]

    @property
    def by_dataset(self) -> dict[str, dict[str, Any]]:
        """Accuracy, interval (None of one task) and number of the tasks of each set of a mixture."""
        found = {}
        for name in sorted(set(self.datasets)):
            accuracies = self.accuracies[np.array(self.datasets) == name]
            mean, interval = mean_and_interval(accuracies)
            interval = interval if math.isfinite(interval) else None
            found[name] = {"accuracy": mean, "interval95": interval, "n_tasks": len(accuracies)}
        return found

    def __str__(self) -> str:
        a = self.about
        return (
            f"{100 * self.mean:.2f} ± {100 * self.interval95:.2f} % accuracy over "
            f"{len(self.accuracies)} {a['split']} tasks of {a['dataset']}: {_shape(a)}, {a['learner']}"
            f"{_steps(a['inner_steps'])}, BatchNorm {a['batch_norm']}{_calls(a)}, {a['checkpoint']}"
            + _trained_on(a)
            + "".join(f"\n  {name}: {_shown(part)}" for name, part in self.by_dataset.items())
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes JSON with every task's accuracy; a whole file appears, or none."""
        content = {
            "accuracy": self.mean,
            "interval95": self.interval95,
            "n_tasks": len(self.accuracies),
            **self.about,
            **self._measured(),
            **({"by_dataset": self.by_dataset} if self.datasets else {}),
            "accuracies": self.accuracies.tolist(),
            "losses": self.losses.tolist(),
            **({"datasets": list(self.datasets)} if self.datasets else {}),
        }
        files.write_json(path, content)

    def _measured(self) -> dict[str, float | None]:
        seconds = {"seconds_per_task": self.seconds_per_task}
        if self.answers is None:
            return seconds
        ece = self.answers.ece
        return {"ece": ece if math.isfinite(ece) else None, **seconds}


def _shown(part: dict[str, Any]) -> str:
    interval = part["interval95"]
    width = "" if interval is None else f" ± {100 * interval:.2f}"
    return f"{100 * part['accuracy']:.2f}{width} % over {part['n_tasks']} tasks"


@dataclasses.dataclass(frozen=True)
class Difference:
    """Accuracy of a minus accuracy of b over the same tasks, paired."""

    mean: float
    interval95: float
    n_tasks: int

    def __str__(self) -> str:
        low, high = self.mean - self.interval95, self.mean + self.interval95
        verdict = "the interval leaves 0 out" if low > 0 or high < 0 else "the interval holds 0"
        return (
            f"{100 * self.mean:+.2f} ± {100 * self.interval95:.2f} points, paired over {self.n_tasks} tasks ({verdict})"
        )


def paired(a: EvaluationResult, b: EvaluationResult) -> Difference:
    """The mean difference a - b with its 95 % interval.

    Raises:
      ValueError: the two were not made on the same tasks.
    """
    ours, theirs = a.about["task_list_sha256"], b.about["task_list_sha256"]
    if ours != theirs:
        raise ValueError(
            "a paired difference needs the same tasks on both sides. Received: task lists with "
            f"sha256 {ours} and {theirs}."
        )
    mean, interval = mean_and_interval(a.accuracies - b.accuracies)
    return Difference(mean, interval, len(a.accuracies))


class Evaluator(tf.Module):
    """Learns the support set of each task of a batch and judges its queries, side by side.

    Args:
      parameters: the learner and its variables, with the values they have when called.
      inner_steps: steps of the inner loop; None: as in training.
      n_way: the tasks' ways; None: the model's, or each task's own where the tasks' shapes vary.
      batch_norm: the statistics that BatchNorm uses here (Learner.batch_norm); None: the learner's.
      queries_per_call: queries of a task that the learner sees together, those that follow one another;
        None: all. The queries of a task are a multiple of it.

    Raises:
      ValueError: the learner can't take so many steps.
    """

    def __init__(
        self,
        parameters: MetaParameters,
        *,
        inner_steps: int | None,
        n_way: int | None = None,
        batch_norm: str | None = None,
        queries_per_call: int | None = None,
    ) -> None:
        super().__init__(name="evaluator")
        learner = parameters.learner
        if batch_norm is not None:
            learner = dataclasses.replace(learner, batch_norm=batch_norm)
        learner.check(parameters.model, inner_steps)
        self.learner, self.parameters = learner, parameters
        self.inner_steps, self.n_way = inner_steps, n_way
        self.queries_per_call = queries_per_call
        self.traces = 0

    @tf.function(reduce_retracing=True, autograph=False)
    def __call__(self, episodes: Episode) -> dict[str, tf.Tensor]:
        """What becomes of T tasks; ragged, where their shapes vary.

        Returns:
          'loss' [T] in nats, 'predictions' [T, N*Q] int32, and 'confidences' [T, N*Q] float32: the
          probability of each prediction, by the softmax that the loss is of.
        """
        self.traces += 1
        learner, meta = self.learner, self.parameters.values()
        told = Context(self.parameters.model, n_way=self.n_way, steps=self.inner_steps)

        def one(episode: Episode) -> dict[str, tf.Tensor]:
            context = told._replace(n_way=episode.ways) if episodes.varies else told
            adapted = learner.adapt(context, meta, episode.support_images, episode.support_labels)
            logits = self._in_calls(
                lambda images: learner.predict(context, meta, adapted, images)[0],
                episode.query_images,
            )
            return {
                "loss": tf.cast(cross_entropy(logits, episode.query_labels), tf.float32),
                "predictions": tf.argmax(logits, -1, output_type=tf.int32),
                "confidences": tf.reduce_max(tf.nn.softmax(tf.cast(logits, tf.float32)), -1),
            }

        def per_query(dtype: tf.DType) -> tf.TensorSpec | tf.RaggedTensorSpec:
            if episodes.varies:
                return tf.RaggedTensorSpec([None], dtype, ragged_rank=0)
            return tf.TensorSpec(episodes.query_labels.shape[1:], dtype)

        signature = {
            "loss": tf.TensorSpec([], tf.float32),
            "predictions": per_query(tf.int32),
            "confidences": per_query(tf.float32),
        }
        return TaskExecution().over(one, episodes, signature)

    def _in_calls(self, logits_of: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor) -> tf.Tensor:
        """Logits [N*Q, N] of query images, of as many at a time as a call has."""
        size = self.queries_per_call
        if size is None:
            return logits_of(images)
        calls = tf.reshape(images, [-1, size, *images.shape[1:]])
        answers = tf.TensorSpec([size, self.n_way or self.parameters.model.n_way], tf.float32)

        @tf.autograph.experimental.do_not_convert
        def one(call: tf.Tensor) -> tf.Tensor:
            return tf.cast(logits_of(call), tf.float32)

        logits = tf.map_fn(one, calls, fn_output_signature=answers)
        return tf.reshape(logits, [-1, answers.shape[1]])


def evaluate(
    evaluator: Evaluator,
    tasks: Batches,
    about: dict[str, Any],
    *,
    datasets: Sequence[str] = (),
    answers: Answers | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> EvaluationResult:
    """Runs all tasks.

    Args:
      evaluator: the learner and its variables.
      tasks: batches of Episode.
      about: goes into the result.
      datasets: likewise, which data set of a mixture each task is of.
      answers: counts the queries, and goes into the result; the tasks' classes must be known then.
      progress: is told the number of tasks of every batch done.
    """
    accuracies, losses, seconds, timed = [], [], 0.0, 0
    for episodes in tasks:
        traces, start = evaluator.traces, time.perf_counter()
        result = evaluator(episodes)
        losses.append(result["loss"].numpy().astype(np.float64))
        if evaluator.traces == traces:
            seconds, timed = seconds + time.perf_counter() - start, timed + len(losses[-1])
        accuracies.append(_accuracies(result["predictions"], episodes.query_labels))
        if answers is not None:
            _count(answers, episodes, result)
        progress(len(losses[-1]))
    return EvaluationResult(
        np.concatenate(accuracies), np.concatenate(losses), dict(about), tuple(datasets), answers,
        seconds / timed if timed else None,
    )  # fmt: skip


def _count(answers: Answers, episodes: Episode, result: dict[str, tf.Tensor]) -> None:
    """Counts the queries of each task, dense or ragged."""
    per_query = (episodes.query_labels, result["predictions"], result["confidences"])
    for task in zip(*(t.numpy() for t in (episodes.class_ids, *per_query)), strict=True):
        answers.add(*task)


def _accuracies(predictions: tf.Tensor, labels: tf.Tensor) -> np.ndarray:
    """The share of right predictions of each task [T] float64, of [T, N*Q], dense or ragged."""
    if not isinstance(labels, tf.RaggedTensor):
        return (predictions.numpy() == labels.numpy()).mean(axis=1, dtype=np.float64)
    rows = zip(predictions, labels, strict=True)
    return np.array([np.mean(a.numpy() == b.numpy(), dtype=np.float64) for a, b in rows])
