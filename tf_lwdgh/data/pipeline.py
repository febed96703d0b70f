# SPDX-License-Identifier: Apache-2.0
"""tf.data from step numbers to meta-batches: no hidden state, no shuffle buffers.

Task number g of the run is task g % T of step g // T. Its images, and their augmentation, depend
on (seed, split, step, task) alone, so that any worker may make it, and a run that starts at step s
goes on with exactly what it would have seen.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import tensorflow as tf

from tf_lwdgh import config as gin_config
from tf_lwdgh.data import augmentation, episodes, images
from tf_lwdgh.data.batches import Batches, check_batch
from tf_lwdgh.data.episodes import EpisodeIndices, TaskShape
from tf_lwdgh.data.image_source import check_storage
from tf_lwdgh.data.label_noise import LabelNoise
from tf_lwdgh.data.mixed_source import Source
from tf_lwdgh.data.task_files import Tasks
from tf_lwdgh.data.variable_episodes import VariableEpisodes, VariableIndices
from tf_lwdgh.types import Episode

_FOREVER = 2**62  # a task number that no run reaches
NO_NOISE = (
    "LabelNoise.share_of_labels must be 0 for tasks of varying shape (Experiment.episodes). "
    "Received: LabelNoise.share_of_labels = {!r}."
)


@gin_config.configurable
@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """Where images are kept and how much of the machine the input may use. Changes no value.

    Attributes:
      storage: 'encoded' (in memory as PNG or JPEG), 'decoded' (in memory as pixels) or 'disk'
        (streamed); see image_source.py for the memory of each.
      threads: the input's own threads, which do not take turns with the training step's; None for
        a quarter of the cores, at least 1.
      parallel_tasks: tasks made at the same time; None for as many as threads.
      prefetch: batches that are ready before they are asked for.

    Raises:
      ValueError: a value breaks its rule; the message names the gin binding.
    """

    storage: str = "encoded"
    threads: int | None = None
    parallel_tasks: int | None = None
    prefetch: int = 2

    def __post_init__(self) -> None:
        check_storage(self.storage)
        for name, optional in (("threads", True), ("parallel_tasks", True), ("prefetch", False)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            if not whole and not (optional and value is None):
                raise ValueError(
                    f"PipelineConfig.{name} must be an integer of at least 1"
                    f"{' or None' if optional else ''}. "
                    f"Received: PipelineConfig.{name} = {value!r}."
                )

    @property
    def private_threads(self) -> int:
        """The size of the input's thread pool."""
        return self.threads or max(1, (os.cpu_count() or 1) // 4)


def meta_batches(
    source: Source,
    episode_config: TaskShape,
    *,
    meta_batch_size: int,
    seed: int,
    start_step: int = 0,
    end_step: int | None = None,
    tasks: range | None = None,
    parts: int = 1,
    augment: bool = False,
    label_noise: LabelNoise | None = None,
    pipeline_config: PipelineConfig | None = None,
) -> Batches:
    """The meta-batches of steps start_step to end_step - 1.

    Args:
      source: the split's images.
      episode_config: the tasks' shape.
      meta_batch_size: T, tasks a step.
      seed: any integer.
      start_step: the first step; a resumed run gives the one it stopped at.
      end_step: one past the last step; None for no end.
      tasks: which tasks of every step are made, without gaps; None: all T.
      parts: in how many elements of the Dataset a step's tasks come, one after the other.
      augment: whether to apply the source's ImageConfig augmentation.
      label_noise: which support labels are wrong; None: none.
      pipeline_config: threads and buffers.

    Returns:
      Episodes: images [T, N*K, S, S, C] and [T, N*Q, S, S, C] float32, labels
      [T, N*K] and [T, N*Q] int32, class_ids [T, N] int32, all shapes static; T is len(tasks)/parts where
      those are given. Tasks of varying shape: RaggedTensors, of which the second axis is ragged.

    Raises:
      ValueError: the split cannot fill such tasks, or a number breaks its rule; or labels are to be
        wrong in tasks of varying shape.
    """
    varies = isinstance(episode_config, VariableEpisodes)
    if varies and label_noise is not None and label_noise.on:
        raise ValueError(NO_NOISE.format(label_noise.share_of_labels))
    _require("meta_batch_size", meta_batch_size, 1)
    _require("start_step", start_step, 0)
    wanted = range(meta_batch_size) if tasks is None else tasks
    if not wanted or wanted.step != 1 or not 0 <= wanted.start < wanted.stop <= meta_batch_size:
        raise ValueError(
            f"tasks must be some of the {meta_batch_size} of a step, without gaps. Received: {tasks!r}."
        )
    if parts < 1 or len(wanted) % parts:
        raise ValueError(f"parts must divide the {len(wanted)} tasks. Received: {parts!r}.")
    if end_step is not None:
        _require("end_step", end_step, start_step)
    episodes.check(source.spec, source.split, episode_config)
    first = start_step * len(wanted)
    last = _FOREVER if end_step is None else end_step * len(wanted)
    numbers = tf.data.Dataset.range(first, last)
    augments = augment and source.config.augments

    def place_of(number: tf.Tensor) -> dict[str, tf.Tensor]:
        nth = number % len(wanted)
        return {"step": number // len(wanted), "task": wanted.start + nth}

    def draw(number: tf.Tensor) -> EpisodeIndices:
        place = place_of(number)
        return episodes.sample(source.spec, source.split, episode_config, seed=seed, **place)

    def make(number: tf.Tensor) -> Episode:
        place, indices = place_of(number), draw(number)
        key = episodes.split_key(seed, source.split)
        changes = episodes.task_key(key, stream=episodes.AUGMENTATION, **place) if augments else None
        episode = build_episode(source, episode_config, indices, changes)
        if label_noise is None or not label_noise.on:
            return episode
        key = episodes.task_key(key, stream=episodes.LABELS, **place)
        wrong = label_noise.apply(episode.support_labels, episode_config.n_way, key)
        return episode._replace(support_labels=wrong)

    dataset = _batched(numbers, make, len(wanted) // parts, True, pipeline_config, varies)
    return _named(dataset, source, numbers, len(wanted), draw)


def evaluation_tasks(
    source: Source,
    episode_config: TaskShape,
    *,
    seed: int,
    n_tasks: int,
    batch_size: int,
    tasks: range | None = None,
    pipeline_config: PipelineConfig | None = None,
) -> Batches:
    """Tasks 0 to n_tasks - 1 of step 0, or those of `tasks`, never augmented: those of `task_lists.draw`.

    Returns:
      Episodes as of `meta_batches` with T = batch_size. Where batch_size does not
      divide their number the last batch is smaller and T is not static.

    Raises:
      ValueError: the split cannot fill such tasks, or a number breaks its rule.
    """
    _require("n_tasks", n_tasks, 1)
    _require("batch_size", batch_size, 1)
    episodes.check(source.spec, source.split, episode_config)

    def draw(task: tf.Tensor) -> EpisodeIndices:
        place = {"seed": seed, "step": 0, "task": task}
        return episodes.sample(source.spec, source.split, episode_config, **place)

    def make(task: tf.Tensor) -> Episode:
        return build_episode(source, episode_config, draw(task))

    wanted = range(n_tasks) if tasks is None else tasks
    numbers = tf.data.Dataset.range(wanted.start, wanted.stop)
    whole, varies = len(wanted) % batch_size == 0, isinstance(episode_config, VariableEpisodes)
    dataset = _batched(numbers, make, batch_size, whole, pipeline_config, varies)
    return _named(dataset, source, numbers, batch_size, draw)


def listed_tasks(
    source: Source,
    task_list: Tasks,
    *,
    batch_size: int,
    pipeline_config: PipelineConfig | None = None,
) -> Batches:
    """The tasks of a list in its order, never augmented; otherwise as `evaluation_tasks`.

    Raises:
      ValueError: the list is of another data set or split.
    """
    _require("batch_size", batch_size, 1)
    task_list.check(source.spec, source.split)
    varies = isinstance(task_list.config, VariableEpisodes)

    def make(indices: EpisodeIndices | VariableIndices) -> Episode:
        return build_episode(source, task_list.config, indices)

    whole = len(task_list) % batch_size == 0
    tasks = task_list.indices()
    dataset = _batched(tasks, make, batch_size, whole, pipeline_config, varies)
    return _named(dataset, source, tasks, batch_size, lambda indices: indices)


def build_episode(
    source: Source,
    episode_config: TaskShape,
    indices: EpisodeIndices | VariableIndices,
    augmentation_key: tf.Tensor | None = None,
) -> Episode:
    """Fetches, turns, augments (if a key is given) and normalises the images of one task.

    Args:
      source: the split's images.
      episode_config: the task's shape.
      indices: which images.
      augmentation_key: [2] int64 or None.

    Returns:
      An Episode without the leading axis T.
    """
    if isinstance(episode_config, VariableEpisodes):
        return _build_varying(source, indices, augmentation_key)
    way, shot = episode_config.n_way, episode_config.k_shot
    rows = tf.ensure_shape(_rows(source, indices), [episode_config.images_per_task])
    pixels = source.gather(rows)
    if episode_config.rotations:
        turns = tf.repeat(indices.rotations, episode_config.images_per_class)
        pixels = augmentation.rotate(pixels, turns)
    shape = source.config.shape
    ready = _ready(source, pixels, augmentation_key)
    ready = tf.reshape(ready, [way, episode_config.images_per_class, *shape])
    return Episode(
        tf.reshape(ready[:, :shot], [-1, *shape]),
        tf.repeat(tf.range(way), shot),
        tf.reshape(ready[:, shot:], [-1, *shape]),
        tf.repeat(tf.range(way), episode_config.n_query),
        class_numbers(source, indices),
    )


def _build_varying(
    source: Source, indices: VariableIndices, augmentation_key: tf.Tensor | None
) -> Episode:
    support, query = _varying_labels(indices)
    ready = _ready(source, source.gather(_rows(source, indices)), augmentation_key)
    ready = tf.ensure_shape(ready, [None, *source.config.shape])
    count = tf.size(support)
    numbers = indices.class_ids - source.spec.classes(source.split).start
    return Episode(ready[:count], support, ready[count:], query, numbers)


def _varying_labels(indices: VariableIndices) -> tuple[tf.Tensor, tf.Tensor]:
    """The support set's and the queries' labels of a task of varying shape."""
    labels = tf.range(tf.size(indices.class_ids))
    return tf.repeat(labels, indices.support_sizes), tf.repeat(labels, indices.n_query)


def _ready(source: Source, pixels: tf.Tensor, augmentation_key: tf.Tensor | None) -> tf.Tensor:
    """Pixels [M, S, S, C] as a network takes them."""
    unit = images.to_unit(pixels, source.config)
    if augmentation_key is not None:
        unit = augmentation.augment(unit, source.config, augmentation_key)
    return images.normalise(unit, source.config)


def _rows(source: Source, indices: EpisodeIndices | VariableIndices) -> tf.Tensor:
    """The row numbers of a task's images, [M] int64."""
    class_ids, image_indices = indices.class_ids, indices.image_indices
    if isinstance(indices, VariableIndices):
        class_ids = tf.gather(class_ids, tf.concat(_varying_labels(indices), 0))
        image_indices = image_indices[:, None]
    return tf.reshape(source.rows(class_ids, image_indices), [-1])


def _named(
    dataset: tf.data.Dataset,
    source: Source,
    tasks: tf.data.Dataset,
    batch_size: int,
    draw: Callable[..., EpisodeIndices | VariableIndices],
) -> Batches:
    """The batches of `tasks`, from which `draw` makes indices; faults of the source's images are named."""

    def rows(task: tf.Tensor | EpisodeIndices | VariableIndices) -> tf.Tensor:
        return _rows(source, draw(task))

    return Batches(dataset, check_batch(tasks, batch_size, rows, source.check))


def class_numbers(source: Source, indices: EpisodeIndices) -> tf.Tensor:
    """The classes' numbers within the split, [N] int32; see Episode."""
    classes = source.spec.classes(source.split)
    return indices.class_ids - classes.start + indices.rotations * len(classes)


def _batched(
    tasks: tf.data.Dataset,
    make: Callable[..., Episode],
    batch_size: int,
    drop_remainder: bool,
    pipeline_config: PipelineConfig | None,
    varies: bool = False,
) -> tf.data.Dataset:
    """Makes tasks in parallel, keeps their order, and batches them; ragged where their shape varies."""
    settings = pipeline_config or PipelineConfig()
    threads = settings.private_threads
    # AutoGraph would rewrite each function that `make` calls, a second and more, and find nothing to change.
    make = tf.autograph.experimental.do_not_convert(make)
    dataset = tasks.map(make, num_parallel_calls=settings.parallel_tasks or threads)
    batch = dataset.ragged_batch if varies else dataset.batch
    dataset = batch(batch_size, drop_remainder=drop_remainder)
    options = tf.data.Options()
    options.deterministic = True
    # The rewrites would copy every captured image into the rewritten graph, and gain nothing here.
    options.experimental_optimization.apply_default_optimizations = False
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    return dataset.prefetch(settings.prefetch).with_options(options)


def _require(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}. Received: {value!r}.")
