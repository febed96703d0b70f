# SPDX-License-Identifier: Apache-2.0
"""Tiny tasks and networks in float64 for the learners' tests, and the checks that these share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_lwdgh.aggregators import Aggregator, Mean
from tf_lwdgh.learners import Learner
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.backbones import convnet4
from tf_lwdgh.networks.encoders import adacnn
from tf_lwdgh.outer.meta_step import MetaStep, OuterLoop
from tf_lwdgh.outer.outer_gradients import Outcome, outer_gradients
from tf_lwdgh.outer.task_execution import TaskExecution
from tf_lwdgh.types import Clock, Episode, Meta

N_WAY, N_TASKS, SIZE, CHANNELS = 3, 2, 8, 2
N_CLASSES = 6


def convnet(
    *,
    fused: bool = True,
    n_way: int = N_WAY,
    blocks: int = 2,
    dtype: str = "float64",
    seed: int = 7,
    hooked: bool = False,
) -> keras.Model:
    """A Convnet4 of few blocks with 3 filters on 8×8 images; with `hooked`, an adaCNN."""
    keras.utils.set_random_seed(seed)
    if hooked:
        return adacnn(image_size=SIZE, channels=CHANNELS, n_way=n_way, filters=3, blocks=blocks, dtype=dtype)
    return convnet4(
        image_size=SIZE, channels=CHANNELS, n_way=n_way, filters=3, blocks=blocks, fused=fused,
        dtype=dtype,
    )  # fmt: skip


def episodes(
    *,
    n_way: int = N_WAY,
    k_shot: int = 2,
    n_query: int = 2,
    n_tasks: int = N_TASKS,
    dtype: str = "float64",
    seed: int = 3,
) -> Episode:
    """A meta-batch of noise around a random picture a class, which is something to learn.

    Its classes are numbered as some of N_CLASSES.
    """
    r = np.random.default_rng(seed)
    pictures = r.normal(size=(n_tasks, n_way, 1, SIZE, SIZE, CHANNELS))

    def part(per_class: int) -> tuple[tf.Tensor, tf.Tensor]:
        noise = r.normal(size=(n_tasks, n_way, per_class, SIZE, SIZE, CHANNELS))
        images = (pictures + noise).reshape(n_tasks, n_way * per_class, SIZE, SIZE, CHANNELS)
        labels = np.tile(np.repeat(np.arange(n_way, dtype=np.int32), per_class), (n_tasks, 1))
        return tf.constant(images, dtype), tf.constant(labels)

    halves = [*part(k_shot), *part(n_query)]
    numbers = [r.permutation(N_CLASSES)[:n_way] for _ in range(n_tasks)]
    return Episode(*halves, tf.constant(np.array(numbers), tf.int32))


def task(batch: Episode, k: int = 0) -> Episode:
    """The k-th task of a meta-batch."""
    return tf.nest.map_structure(lambda x: x[k], batch)


def of_any_number(batch: Episode) -> Episode:
    """The specs of a meta-batch of as many tasks as may be."""
    return tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), batch)


def parameters(learner: Learner, **network) -> MetaParameters:
    """A learner on a fresh tiny network, see `convnet`; the same weights at every call."""
    return MetaParameters(convnet(**network), learner)


def perturbed(params: MetaParameters, *, scale: float = 0.1, seed: int = 5) -> Meta:
    """The values at the start, moved at random: away from ones, zeros and identities."""
    r = np.random.default_rng(seed)
    meta = params.values()

    def moved(x: tf.Tensor) -> tf.Tensor:
        return x + tf.constant(scale * r.normal(size=x.shape), x.dtype)

    network = [moved(v) for v in meta.network]  # first, so that it is the same for every learner
    return meta._replace(network=network, own={n: moved(v) for n, v in meta.own.items()})


def context(params: MetaParameters, **settings) -> Context:
    """A context of training at the run's first step, with a fixed key."""
    clock = Clock(tf.constant(0), steps_per_epoch=2, epochs=3, seed=0)
    told = {"training": True, "clock": clock, "key": tf.constant([1, 2], tf.int64), **settings}
    return Context(params.model, **told)


def answers(params: MetaParameters, meta: Meta, one: Episode, *, queries=None, adapted=None, **told) -> np.ndarray:
    """Logits of a task's queries, or of others, after training."""
    asked = context(params, **{"training": False, **told})
    if adapted is None:
        adapted = params.learner.adapt(asked, meta, one.support_images, one.support_labels)
    queries = one.query_images if queries is None else queries
    return params.learner.predict(asked, meta, adapted, queries)[0].numpy()


def features(params: MetaParameters, meta: Meta, images: tf.Tensor, *, training: bool = True) -> np.ndarray:
    """The network's features of some images, by their own statistics."""
    return params.model.features(meta.network, meta.state, images, training=training)[0].numpy()


@contextlib.contextmanager
def quickly_built() -> Iterator[None]:
    """Within it graphs run as traced: rewriting such small ones takes longer than they do."""
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        again = {"disable_meta_optimizer": before.get("disable_meta_optimizer", False)}
        tf.config.optimizer.set_experimental_options(again)


def outcome(
    params: MetaParameters,
    batch: Episode,
    meta: Meta | None = None,
    *,
    execution: TaskExecution | None = None,
) -> Outcome:
    """What `outer_gradients` gives, in one graph, as NumPy arrays."""
    meta = meta or params.values()
    run = tf.function(lambda at: outer_gradients(params, batch, meta=at, execution=execution), autograph=False)
    with quickly_built():
        return tf.nest.map_structure(lambda x: x.numpy(), run(meta))


_KNOWN: dict[tuple, Outcome] = {}


def perturbed_outcome(learner: Learner, **network) -> Outcome:
    """`outcome` at `perturbed` of the default episodes; computed once for equal settings."""
    key = (repr(learner), *sorted(network.items()))
    if key not in _KNOWN:
        params = parameters(learner, **network)
        _KNOWN[key] = outcome(params, episodes(), perturbed(params))
    return _KNOWN[key]


def objectives(params: MetaParameters, batch: Episode, **settings) -> Callable[[Meta], np.ndarray]:
    """The objective of each task, [T], as a function of the meta-parameters, traced once."""
    told = context(params, **settings)

    @tf.function(autograph=False)
    def run(meta: Meta) -> tf.Tensor:
        @tf.autograph.experimental.do_not_convert
        def objective(one: Episode) -> tf.Tensor:
            return params.learner.objective(told, meta, one).objective

        return tf.map_fn(objective, batch, fn_output_signature=tf.TensorSpec([], meta.network[0].dtype))

    def values(meta: Meta) -> np.ndarray:
        with quickly_built():
            return run(meta).numpy()

    return values


def assert_gradient_is_the_slope(
    params: MetaParameters,
    batch: Episode,
    meta: Meta | None = None,
    *,
    objective: Callable[[Meta], np.ndarray] | None = None,
    gradients: Sequence[np.ndarray] | None = None,
    directions: int = 2,
    h: float = 1e-6,
    rtol: float = 1e-5,
) -> None:
    """Compares outer gradients with central differences of the objective.

    The trained variables are moved together in each random direction; then the learner's own alone,
    in one more.
    """
    meta = meta or perturbed(params)
    objective = objective or objectives(params, batch)
    gradients = gradients or outcome(params, batch, meta).gradients
    values = [v.numpy() for v in params.flatten(meta)]
    r = np.random.default_rng(1)
    ways = [[r.normal(size=v.shape) for v in values] for _ in range(directions)]
    if params.own_trained:
        count = len(values) - len(params.own_trained)
        drawn = [r.normal(size=v.shape) for v in values]
        ways.append([0 * d if i < count else d for i, d in enumerate(drawn)])
    for way in ways:
        up, down = (
            objective(params.replaced(meta, [tf.constant(v + s * d) for v, d in zip(values, way)])) for s in (h, -h)
        )
        found = [sum((g[k] * d).sum() for g, d in zip(gradients, way)) for k in range(len(up))]
        np.testing.assert_allclose(found, (up - down) / (2 * h), rtol=rtol, atol=1e-8)


def assert_same_gradients(ours: Outcome, theirs: Outcome, tolerance: float = 1e-9) -> None:
    """Compares two outcomes, relative to the largest entry of a task's gradient."""
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=tolerance)
    assert len(ours.gradients) == len(theirs.gradients)
    for k in range(len(ours.losses)):
        scale = max(np.abs(g[k]).max() for g in theirs.gradients)
        for i, (a, b) in enumerate(zip(ours.gradients, theirs.gradients)):
            worst = np.abs(a[k] - b[k]).max()
            assert worst <= tolerance * scale, f"variable {i}, task {k}: off by {worst / scale:.2e}"


def meta_step(
    learner: Learner,
    *,
    aggregator: Aggregator | None = None,
    rate: float = 0.01,
    execution: TaskExecution | None = None,
    tasks: int = N_TASKS,
    **network,
) -> MetaStep:
    """A meta-step of the learner on the tiny network, with Adam."""
    return MetaStep(
        parameters=parameters(learner, **network),
        aggregator=aggregator or Mean(),
        optimizer=keras.optimizers.Adam(rate),
        settings=OuterLoop(meta_batch_size=tasks, steps_per_epoch=20, epochs=5),
        seed=0,
        execution=execution,
    )


def losses_while_training(step: MetaStep, batch: Episode, steps: int = 40) -> np.ndarray:
    """The mean query loss of the same tasks over some meta-steps, [steps]."""
    with quickly_built():
        every = [step(batch, tf.constant(s, tf.int64))["train/loss"].numpy() for s in range(steps)]
    return np.array(every)
