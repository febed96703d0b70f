"""Outer gradients against an independent reverse sweep and against finite differences, in float64."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tf_lwdgh.learners import MAML
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.networks.backbones import convnet4, resnet12
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.outer.meta_step import task_gradients
from tf_lwdgh.types import Episode

N_WAY, N_TASKS = 3, 2


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(7)


def small_convnet(fused=True, size=13, **kwargs):
    return FunctionalModel(
        convnet4(
            image_size=size, channels=2, n_way=N_WAY, filters=4, blocks=2, fused=fused,
            dtype="float64", **kwargs,
        )
    )  # fmt: skip


def random_episodes(size=13, channels=2, k_shot=2, n_query=2):
    r = np.random.default_rng(3)

    def part(per_class):
        labels = np.tile(np.repeat(np.arange(N_WAY, dtype=np.int32), per_class), (N_TASKS, 1))
        images = r.normal(size=(N_TASKS, N_WAY * per_class, size, size, channels))
        return tf.constant(images + labels[..., None, None, None]), tf.constant(labels)

    return Episode(*part(k_shot), *part(n_query))


def task(episodes, k):
    one = [x[k] for x in episodes]
    return (one[0], one[1].numpy()), (one[2], one[3].numpy())


def perturbed_values(model):
    """Parameters by shape alone, away from BatchNorm's ones, one scale negative and one near 0."""
    r = np.random.default_rng(5)
    values = [0.3 * r.normal(size=v.shape) for v in model.values()]
    gammas = [i for i, name in enumerate(model.names) if name.endswith("gamma")]
    for i in gammas:
        values[i] += 1
    values[gammas[0]][:2] = [-0.7, 1e-7]
    return [tf.constant(v) for v in values]


def gradients_of(model, algorithm, episodes, params):
    run = tf.function(lambda: task_gradients(model, algorithm, episodes, params=params))
    return [g.numpy() for g in run()[0]]


def assert_close(ours, theirs, tolerance=1e-9):
    for k in range(N_TASKS):
        scale = max(np.abs(g).max() for g in theirs[k])
        worst = max(np.abs(a[k] - b).max() for a, b in zip(ours, theirs[k]))
        assert worst <= tolerance * scale, f"task {k}: off by {worst / scale:.2e}"


SETTINGS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "decay": {"weight_decay": 0.1},
    "momentum_and_decay": {"momentum": 0.5, "weight_decay": 0.05},
    "first_order": {"second_order": False},
    "batch_norm_moves": {"adapt_batch_norm": True},
    "rates_by_part": {"inner_lr": {".*": 0.05, "head": 0.4, "conv1": 0.0}},
}


def inner_loop(case, memory="store"):
    return InnerLoop(**{"steps": 3, "inner_lr": 0.1, "memory": memory, **SETTINGS[case]})


@functools.cache
def swept(case):
    """The oracle's gradients of every task."""
    model, settings = small_convnet(), inner_loop(case)
    return [
        oracles.maml_gradient(
            perturbed_values(model),
            *task(random_episodes(), k),
            rates=settings.rates(model.names, model.is_batch_norm),
            steps=settings.steps,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            second_order=settings.second_order,
        )
        for k in range(N_TASKS)
    ]


@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain_ops"])
@pytest.mark.parametrize("case", SETTINGS)
def test_outer_gradient_equals_the_reverse_sweep(case, fused, memory):
    model = small_convnet(fused)
    algorithm = MAML(inner_loop(case, memory))
    ours = gradients_of(model, algorithm, random_episodes(), perturbed_values(model))
    assert_close(ours, swept(case))


def query_loss(model, algorithm, episodes, params, k):
    one = Episode(*(x[k] for x in episodes))
    return float(algorithm.task(model, list(params), model.state(), one).loss)


def finite_difference(loss, params, direction, h=1e-6):
    up = loss([p + h * d for p, d in zip(params, direction)])
    down = loss([p - h * d for p, d in zip(params, direction)])
    return (up - down) / (2 * h)


@pytest.mark.parametrize("head", ["learned", "zero"])
@pytest.mark.parametrize("batch_norm", ["transductive", "inductive", "global"])
@pytest.mark.parametrize("backbone", ["convnet4", "resnet12"])
def test_outer_gradient_equals_finite_differences(backbone, batch_norm, head):
    if backbone == "convnet4":
        model, size = small_convnet(), 13
    else:
        size = 8
        model = FunctionalModel(
            resnet12(image_size=8, channels=2, n_way=N_WAY, widths=(3, 4), dtype="float64")
        )
    episodes = random_episodes(size=size)
    algorithm = MAML(InnerLoop(steps=2, inner_lr=0.1), batch_norm=batch_norm, head=head)
    params = model.values()
    ours = gradients_of(model, algorithm, episodes, params)
    trained = [i for i, yes in enumerate(algorithm.trained(model)) if yes]
    r = np.random.default_rng(1)
    direction = [tf.constant(r.normal(size=p.shape)) for p in params]
    for k in range(N_TASKS):
        slope = finite_difference(
            lambda at, k=k: query_loss(model, algorithm, episodes, at, k), params, direction
        )
        predicted = sum((g[k] * direction[i].numpy()).sum() for g, i in zip(ours, trained))
        assert predicted == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_meta_batch_equals_single_tasks():
    model, episodes = small_convnet(), random_episodes()
    algorithm = MAML(InnerLoop(steps=2, inner_lr=0.1))
    together = gradients_of(model, algorithm, episodes, model.values())
    for k in range(N_TASKS):
        alone = gradients_of(
            model, algorithm, Episode(*(x[k : k + 1] for x in episodes)), model.values()
        )
        for a, b in zip(together, alone):
            np.testing.assert_allclose(a[k], b[0], rtol=1e-11, atol=1e-13)
