# SPDX-License-Identifier: Apache-2.0
"""Which shapes an experiment's tasks may have, and what refuses the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lwdgh.data import episodes, pipeline
from tf_lwdgh.data.episodes import EpisodeConfig, TaskShape
from tf_lwdgh.data.label_noise import LabelNoise
from tf_lwdgh.data.mixtures import Mixture, Spec
from tf_lwdgh.data.training_tasks import TrainingTasks
from tf_lwdgh.data.variable_episodes import VariableEpisodes
from tf_lwdgh.learners import Learner
from tf_lwdgh.outer.evaluation import Evaluation
from tf_lwdgh.outer.task_execution import TaskExecution

_HOW_ANY_WAY = (
    "A learner whose head starts every task at zero takes any number: {}.head = 'zero', where it has that "
    "setting; so do @ProtoMAML() and learners that compare with the support set, such as @PrototypicalNetwork()."
)


def of_training(
    learner: Learner,
    episode: EpisodeConfig,
    varying: VariableEpisodes | None,
    noise: LabelNoise,
    spec: Spec | None,
    splits: Sequence[str],
) -> TaskShape:
    """What training tasks look like, as gin's TrainingTasks and the learner have it.

    Args:
      learner: what is trained.
      episode: the shape of the other tasks.
      varying: how all tasks vary, where they do.
      noise: which labels are wrong.
      spec: the data set's description, or None.
      splits: those that must be able to fill every task.

    Raises:
      ValueError: settings that don't go together, or a split that can't fill the tasks.
    """
    others, training = TrainingTasks(), episode
    if varying is not None:
        if noise.on:
            raise ValueError(pipeline.NO_NOISE.format(noise.share_of_labels))
        others.refuse("None where Experiment.episodes says how training tasks vary")
    elif "train" in splits:
        training = _of_training(learner, episode, others, spec)
    noise.count(training.n_way * training.k_shot)
    for split in splits if spec is not None else ():
        binding = "TrainingTasks" if split == "train" and others.given else "EpisodeConfig"
        episodes.check(spec, split, varying or (training if split == "train" else episode), binding)
    return varying or training


def _of_training(learner: Learner, episode: EpisodeConfig, others: TrainingTasks, spec: Spec | None) -> EpisodeConfig:
    name = type(learner).__name__
    if spec is not None:
        sets = spec.specs if isinstance(spec, Mixture) else (spec,)
        n_classes = min(episodes.n_classes(part, "train", episode) for part in sets)
        n_images = min(part.images_per_class[c] for part in sets for c in part.classes("train"))
        own: Mapping[str, Any] = learner.training_shape(n_classes, n_images)
        if own:
            others.refuse(f"None with @{name}(), whose training tasks have a shape of its own")
            return dataclasses.replace(episode, **own)
    if others.n_way != episode.n_way and not learner.any_way_in_training:
        how = _HOW_ANY_WAY.format(name).removesuffix(".")
        others.refuse(f"EpisodeConfig.n_way = {episode.n_way}, the width of the head, or None. {how}", "n_way")
    return others.of(episode)


def check_varying(learner: Learner, strategy: str) -> None:
    """Raises ValueError where training tasks can't vary in ways and shots."""
    TaskExecution().check_varying()
    if not learner.any_way_in_training:
        raise ValueError(
            "Experiment.episodes = @VariableEpisodes() needs a learner that is trained on tasks of any "
            f"number of ways. {_HOW_ANY_WAY.format(type(learner).__name__)} "
            f"Received: Experiment.learner = @{type(learner).__name__}()."
        )
    if strategy != "default":
        raise ValueError(
            "Experiment.strategy must be 'default' with Experiment.episodes = @VariableEpisodes(). "
            f"Received: Experiment.strategy = {strategy!r}."
        )


def of_evaluation(
    learner: Learner, evaluation: Evaluation, episode: EpisodeConfig, varying: VariableEpisodes | None
) -> TaskShape:
    """The shape of the tasks of an evaluation, where the run's are of shape `episode`, or vary.

    Raises:
      ValueError: another number of ways than the head has, or calls that do not fit the queries.
    """
    varying = evaluation.episodes or (None if evaluation.fixes_shape else varying)
    name = type(learner).__name__
    if varying is None:
        given = {n: getattr(evaluation, n) for n in ("n_way", "k_shot", "n_query")}
        shape = dataclasses.replace(episode, **{n: v for n, v in given.items() if v is not None})
        if shape.n_way != episode.n_way and not learner.any_way:
            raise ValueError(
                f"Evaluation.n_way must be the training's EpisodeConfig.n_way = {episode.n_way}, since {name} was "
                f"trained with a head of that many ways. {_HOW_ANY_WAY.format(name)} "
                f"Received: Evaluation.n_way = {shape.n_way}."
            )
        evaluation.check_calls(shape.n_way * shape.n_query)
        return shape
    TaskExecution().check_varying()
    if evaluation.queries_per_call is not None:
        raise ValueError(
            "Evaluation.queries_per_call must be None for tasks of varying shape. Received: "
            f"Evaluation.queries_per_call = {evaluation.queries_per_call}."
        )
    if not learner.any_way:
        raise ValueError(
            "tasks that vary in ways (VariableEpisodes) need a learner that takes any number of "
            f"ways. {_HOW_ANY_WAY.format(name)} Received: Experiment.learner = @{name}()."
        )
    return varying
