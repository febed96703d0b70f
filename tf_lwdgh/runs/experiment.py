# SPDX-License-Identifier: Apache-2.0
"""An experiment put together from its gin settings, and everything about it checked before it runs."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_lwdgh import config, registry
from tf_lwdgh.aggregators import Aggregator, Mean
from tf_lwdgh.aggregators.conflict_report import ConflictReport
from tf_lwdgh.aggregators.explore_exploit import ExploreExploit
from tf_lwdgh.data import episodes, pipeline
from tf_lwdgh.data.dataset_config import DatasetConfig
from tf_lwdgh.data.episodes import EpisodeConfig, TaskShape
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.data.label_noise import LabelNoise
from tf_lwdgh.data.mixed_source import Source, open_source
from tf_lwdgh.data.mixtures import Mixture, Spec
from tf_lwdgh.data.pipeline import PipelineConfig
from tf_lwdgh.data.variable_episodes import VariableEpisodes
from tf_lwdgh.learners import MAML, Learner
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks import encoders, resnet18  # noqa: F401  (gin files bind them)
from tf_lwdgh.networks.backbones import convnet4
from tf_lwdgh.outer import optimizers, strategies
from tf_lwdgh.outer.evaluation import Evaluation
from tf_lwdgh.outer.meta_step import MetaStep, OuterLoop
from tf_lwdgh.outer.optimizers import LearningRate
from tf_lwdgh.outer.task_execution import TaskExecution
from tf_lwdgh.outer.workers import Workers
from tf_lwdgh.runs import task_shapes
from tf_lwdgh.runs.config import TrainerConfig  # noqa: F401  (a run's config.gin binds it)

CONFIG_FILE = "config.gin"
_FOR_LATER = ("Evaluation.", "Threads.", "TrainerConfig.")  # used by one program and not another


@config.configurable
@dataclasses.dataclass(frozen=True)
class Experiment:
    """The choices that make up an experiment; all else is set where it belongs, by its own name.

    Attributes:
      backbone: makes the Keras model, such as @convnet4 (without brackets).
      learner: what learns a task, such as @MAML().
      aggregator: makes one update of the tasks' gradients, such as @LWDGH().
      explore: when the plain mean takes the aggregator's place, @ExploreExploit(); None: never.
      optimizer: makes the outer optimizer, such as @Adam (without brackets).
      learning_rate: its rate, @LearningRate().
      seed: of the initial weights, the training tasks and all random draws of the meta-step.
      episodes: training and validation tasks that vary in ways and shots, @VariableEpisodes(); None: all of
        the shape that EpisodeConfig says.
      strategy: 'default' (one device), 'mirrored' (a copy of the model on each GPU, the tasks of a
        meta-batch shared out evenly) or 'multi_worker' (the same over several processes; docs/scaling.md).
      start: what the variables start at in place of random values: the folder of a run or of an export, or a
        .keras or .weights.h5 file of a network like the backbone. None: at random.
      start_checkpoint: of a run's folder, 'best' (by validation accuracy) or 'last'.
    """

    backbone: Callable[..., keras.Model] = convnet4
    learner: Learner = dataclasses.field(default_factory=MAML)
    aggregator: Aggregator = dataclasses.field(default_factory=Mean)
    explore: ExploreExploit | None = None
    optimizer: Callable[..., keras.optimizers.Optimizer] = optimizers.OPTIMIZERS["Adam"]
    learning_rate: LearningRate = dataclasses.field(default_factory=LearningRate)
    seed: int = 0
    strategy: str = "default"
    episodes: VariableEpisodes | None = None
    start: str | None = None
    start_checkpoint: str = "best"

    def __post_init__(self) -> None:
        for name, base in (("learner", Learner), ("aggregator", Aggregator)):
            value = getattr(self, name)
            if not isinstance(value, base):
                known = ", ".join(f"@{c.__name__}()" for c in registry.known(base))
                raise ValueError(
                    f"Experiment.{name} must be a ready object, with brackets: one of {known}. "
                    f"Received: Experiment.{name} = {value!r}."
                )
        if not (self.explore is None or isinstance(self.explore, ExploreExploit)):
            raise ValueError(
                "Experiment.explore must be @ExploreExploit(), with brackets, or None. "
                f"Received: Experiment.explore = {self.explore!r}."
            )
        if not (self.episodes is None or isinstance(self.episodes, VariableEpisodes)):
            raise ValueError(
                "Experiment.episodes must be @VariableEpisodes(), with brackets, or None. "
                f"Received: Experiment.episodes = {self.episodes!r}."
            )
        for name in ("backbone", "optimizer"):
            if not callable(getattr(self, name)) or isinstance(getattr(self, name), keras.Model):
                raise ValueError(
                    f"Experiment.{name} must be a maker, such as @convnet4 or @Adam, without "
                    f"brackets. Received: Experiment.{name} = {getattr(self, name)!r}."
                )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ValueError(
                f"Experiment.seed must be an integer. Received: Experiment.seed = {self.seed!r}."
            )

    def build(
        self,
        data_dir: str | os.PathLike[str] | None,
        *,
        splits: Sequence[str] = ("train", "val"),
        spec: Spec | None = None,
        dataset: DatasetConfig | None = None,
    ) -> Assembly:
        """Reads all settings, checks them against each other and the data set, and makes the parts.

        Args:
          data_dir: the folder of data sets; None: do without data (for export).
          splits: those that must be able to fill every task.
          spec: the data set's description, where it is not to be read from data_dir.
          dataset: which, where it is not the one that gin names.

        Raises:
          ValueError: a setting breaks a rule; the message names the binding.
          FileNotFoundError: the data set is not there.
        """
        dataset = dataset or DatasetConfig()
        episode, image, noise = EpisodeConfig(), ImageConfig(), LabelNoise()
        if self.episodes is not None:
            task_shapes.check_varying(self.learner, self.strategy)
        if spec is None and data_dir is not None:
            spec = dataset.open(data_dir)
        learner = self.learner
        if spec is not None and "train" in splits:
            learner = learner.for_classes(episodes.n_classes(spec, "train", episode))
        training = task_shapes.of_training(learner, episode, self.episodes, noise, spec, splits)
        outer, strategy = OuterLoop(), strategies.make(self.strategy)
        told = {"gin settings": config.full_text(), "data set": getattr(spec, "fingerprint", "")}
        workers = Workers(strategy)
        workers.agree(told, "Each runs the same command, on data of its own or shared.")
        if outer.meta_batch_size % strategy.num_replicas_in_sync:
            raise ValueError(
                "OuterLoop.meta_batch_size must be a multiple of the replicas, of which there are "
                f"{strategy.num_replicas_in_sync}. Received: "
                f"OuterLoop.meta_batch_size = {outer.meta_batch_size}."
            )
        keras.utils.clear_session()  # so that the names Keras makes up are those of a fresh process
        keras.utils.set_random_seed(self.seed)
        with strategy.scope():
            model = self.backbone(
                image_size=image.image_size, channels=image.channels, n_way=episode.n_way
            )
            parameters = MetaParameters(model, learner)
        self.aggregator.check(outer.meta_batch_size)
        return Assembly(
            experiment=self,
            dataset=dataset,
            data_dir=None if data_dir is None else os.fspath(data_dir),
            spec=spec,
            episode=episode,
            training_episode=training,
            image=image,
            label_noise=noise,
            outer=outer,
            pipeline=PipelineConfig(),
            keras_model=model,
            parameters=parameters,
            strategy=strategy,
            workers=workers,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Assembly:
    """The parts of an experiment, checked against each other.

    Attributes:
      experiment: the choices.
      dataset: its name, or several names and their shares.
      data_dir: the folder of data sets, or None.
      spec: the description of the data set or mixture, or None.
      episode: the tasks' shape, where it does not vary; its n_way is the width of the head.
      training_episode: what training tasks look like.
      image: the images' settings.
      label_noise: which labels of training tasks are wrong.
      outer: the outer loop's settings.
      pipeline: where images are kept.
      keras_model: the backbone with its initial weights.
      parameters: all that the outer loop trains: the backbone's variables and the learner's own.
      strategy: the devices it is on.
      workers: the processes that share it.
    """

    experiment: Experiment
    dataset: DatasetConfig
    data_dir: str | None
    spec: Spec | None
    episode: EpisodeConfig
    training_episode: TaskShape
    image: ImageConfig
    label_noise: LabelNoise
    outer: OuterLoop
    pipeline: PipelineConfig
    keras_model: keras.Model
    parameters: MetaParameters
    strategy: tf.distribute.Strategy
    workers: Workers

    @property
    def learner(self) -> Learner:
        """The learner."""
        return self.parameters.learner

    @property
    def shape(self) -> TaskShape:
        """What validation tasks look like, and training tasks where the learner has no shape of its own."""
        return self.experiment.episodes or self.episode

    @property
    def total_steps(self) -> int:
        """Meta-steps of the whole run."""
        return self.outer.epochs * self.outer.steps_per_epoch

    @functools.cached_property
    def meta_step(self) -> MetaStep:
        """The meta-step, with its optimizer and slots; made at the first call."""
        with self.strategy.scope():
            optimizer = optimizers.build(
                self.experiment.optimizer, self.experiment.learning_rate, self.total_steps
            )
            return MetaStep(
                parameters=self.parameters,
                aggregator=self.experiment.aggregator,
                explore=self.experiment.explore,
                report=ConflictReport(),
                optimizer=optimizer,
                settings=self.outer,
                execution=TaskExecution(),
                seed=self.experiment.seed,
            )

    def source(self, split: str) -> Source:
        """The images of one split, loaded now."""
        if self.data_dir is None or self.spec is None:
            raise ValueError("the experiment was built without data: give a --data_dir.")
        names, storage = self.dataset.names, self.pipeline.storage
        return open_source(self.data_dir, names, self.spec, split, self.image, storage)

    def evaluation_episode(self, evaluation: Evaluation, spec: Spec | None = None) -> TaskShape:
        """The shape of the tasks of an evaluation.

        Args:
          evaluation: its settings.
          spec: the data set's description, where it is not the experiment's.

        Raises:
          ValueError: another number of ways than the head has, calls that do not fit the queries, or the
            split cannot fill the tasks.
        """
        shape = task_shapes.of_evaluation(self.learner, evaluation, self.episode, self.experiment.episodes)
        if (spec or self.spec) is not None:
            episodes.check(spec or self.spec, evaluation.split, shape)
        return shape

    def other_ways(self, shape: TaskShape) -> int | None:
        """The ways of tasks of a shape; None where they are the head's, or vary from task to task."""
        varies = isinstance(shape, VariableEpisodes)
        return None if varies or shape.n_way == self.episode.n_way else shape.n_way


def parse_run(
    run_dir: str | os.PathLike[str],
    gin_params: Sequence[str] = (),
    gin_files: Sequence[str] = (),
) -> None:
    """Reads the settings that a run was trained with, then gin files, then single bindings.

    On whatever devices it was trained, it is looked at on one.

    Raises:
      FileNotFoundError: there is no such run.
      ValueError: a binding is wrong.
    """
    path = os.path.join(run_dir, CONFIG_FILE)
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"--run_dir must be a folder that `python -m tf_lwdgh.train` wrote, with a {CONFIG_FILE} "
            f"in it. Received: {os.fspath(run_dir)!r}."
        )
    one_device = ["Experiment.strategy = 'default'"]
    config.parse([os.path.abspath(path), *gin_files], one_device + list(gin_params))


def from_run(
    run_dir: str | os.PathLike[str],
    gin_params: Sequence[str] = (),
    *,
    data_dir: str | os.PathLike[str] | None = None,
    splits: Sequence[str] = (),
    gin_files: Sequence[str] = (),
) -> Assembly:
    """Builds the experiment of a run folder from the settings that it was trained with.

    Args:
      run_dir: a folder that `train` wrote.
      gin_params: bindings that override the run's.
      data_dir: the folder of data sets; None: do without data.
      splits: those that must be able to fill every task.
      gin_files: on top of the run's settings, such as another learner.

    Raises:
      FileNotFoundError: no such run, or no such data set.
      ValueError: a binding is wrong.
    """
    parse_run(run_dir, gin_params, gin_files)
    return Experiment().build(data_dir, splits=splits)


def refuse_idle_bindings(gin_params: Sequence[str]) -> None:
    """Refuses bindings given by hand that no part of the experiment has asked for.

    Raises:
      ValueError: there is one.
    """
    idle = [n for n in config.without_effect(gin_params) if not n.startswith(_FOR_LATER)]
    if idle:
        raise ValueError(
            f"--gin_param: nothing in this experiment uses {', '.join(idle)}. Remove it, or choose "
            "the part that does with another --gin_file or Experiment.… binding."
        )
