# SPDX-License-Identifier: Apache-2.0
"""Outer gradients against an independent reverse sweep and against finite differences, in float64."""

import functools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.learners import tiny_tasks
from tf_lwdgh.learners import MAML
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.backbones import convnet4, resnet12
from tf_lwdgh.outer.outer_gradients import outer_gradients
from tf_lwdgh.types import Episode

N_WAY, N_TASKS = 3, 2


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(7)


def small_convnet(fused=True, size=13):
    return convnet4(image_size=size, channels=2, n_way=N_WAY, filters=4, blocks=2, fused=fused, dtype="float64")


def small_resnet(widths=(3,)):
    return resnet12(image_size=8, channels=2, n_way=N_WAY, widths=widths, dtype="float64")


def random_episodes(size=13, channels=2, k_shot=2, n_query=2):
    r = np.random.default_rng(3)

    def part(per_class):
        labels = np.tile(np.repeat(np.arange(N_WAY, dtype=np.int32), per_class), (N_TASKS, 1))
        images = r.normal(size=(N_TASKS, N_WAY * per_class, size, size, channels))
        return tf.constant(images + labels[..., None, None, None]), tf.constant(labels)

    return Episode(*part(k_shot), *part(n_query))


def task(episodes, k):
    one = [x[k] for x in episodes[:4]]
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


def at(parameters, network):
    """The present values with others for the network's variables."""
    return parameters.values()._replace(network=list(network))


def gradients_of(parameters, episodes, network):
    """Every task's outer gradients, one array [T, *shape] a trained variable."""
    run = tf.function(
        lambda: outer_gradients(parameters, episodes, meta=at(parameters, network)).gradients,
        autograph=False,
    )
    return [g.numpy() for g in run()]


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
    settings = inner_loop(case)
    parameters = MetaParameters(small_convnet(), MAML(inner_loop=settings))
    return [
        oracles.maml_gradient(
            perturbed_values(parameters.model),
            *task(random_episodes(), k),
            rates=parameters.learner.rates(parameters.model),
            steps=settings.steps,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            second_order=settings.second_order,
        )
        for k in range(N_TASKS)
    ]


ALL_SETTINGS = [(case, True) for case in SETTINGS]
ON_PLAIN_OPERATIONS = [(case, False) for case in ("momentum_and_decay", "batch_norm_moves")]


@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize(
    "case, fused", [*ALL_SETTINGS, *(pytest.param(*c, marks=pytest.mark.slow) for c in ON_PLAIN_OPERATIONS)]
)
def test_outer_gradient_equals_the_reverse_sweep(case, fused, memory):
    parameters = MetaParameters(small_convnet(fused), MAML(inner_loop=inner_loop(case, memory)))
    network = perturbed_values(parameters.model)
    assert_close(gradients_of(parameters, random_episodes(), network), swept(case))


def query_losses(parameters, episodes):
    """From the network's parameters to every task's query loss, [T]."""
    context = Context(parameters.model, training=True)

    @tf.function(autograph=False)
    def losses(network):
        @tf.autograph.experimental.do_not_convert
        def loss(one):
            return parameters.learner.objective(context, at(parameters, network), one).loss

        return tf.map_fn(loss, episodes, fn_output_signature=tf.float64)

    return losses


def finite_difference(loss, params, direction, h=1e-6):
    up = loss([p + h * d for p, d in zip(params, direction)])
    down = loss([p - h * d for p, d in zip(params, direction)])
    return (up - down) / (2 * h)


@pytest.mark.parametrize("batch_norm", ["transductive", "inductive", "global"])
@pytest.mark.parametrize(
    "backbone, size, head",
    [(small_convnet, 13, "learned"), (small_convnet, 13, "zero"), (small_resnet, 8, "learned")],
)
def test_outer_gradient_equals_finite_differences(backbone, size, batch_norm, head):
    learner = MAML(inner_loop=InnerLoop(steps=2, inner_lr=0.1), batch_norm=batch_norm, head=head)
    parameters, episodes = MetaParameters(backbone(), learner), random_episodes(size=size)
    network = parameters.model.values()
    ours = gradients_of(parameters, episodes, network)
    trained = [i for i, yes in enumerate(learner.trained(parameters.model)) if yes]
    r = np.random.default_rng(1)
    direction = [tf.constant(r.normal(size=p.shape)) for p in network]
    slopes = finite_difference(query_losses(parameters, episodes), network, direction).numpy()
    for k in range(N_TASKS):
        predicted = sum((g[k] * direction[i].numpy()).sum() for g, i in zip(ours, trained))
        assert predicted == pytest.approx(slopes[k], rel=1e-5, abs=1e-8)


def test_a_meta_batch_equals_single_tasks():
    parameters = MetaParameters(small_convnet(), MAML(inner_loop=InnerLoop(steps=2, inner_lr=0.1)))
    episodes = random_episodes()
    unknown = tiny_tasks.of_any_number(episodes)
    run = tf.function(lambda e: outer_gradients(parameters, e).gradients, input_signature=[unknown], autograph=False)
    together = run(episodes)
    for k in range(N_TASKS):
        for a, b in zip(together, run(tf.nest.map_structure(lambda x, k=k: x[k : k + 1], episodes))):
            np.testing.assert_allclose(a[k], b[0], rtol=1e-11, atol=1e-13)


def test_variables_that_batch_statistics_cancel_have_no_gradient():
    parameters = MetaParameters(small_convnet(), MAML(inner_loop=InnerLoop(steps=2, inner_lr=0.1)))
    gradients = gradients_of(parameters, random_episodes(), parameters.model.values())
    largest = dict(zip(parameters.names, (np.abs(g).max() for g in gradients)))
    idle = {name: value for name, value in largest.items() if re.match(r"conv\d/bias", name)}
    assert set(idle) == {"conv1/bias", "conv2/bias"}
    assert max(idle.values()) < 1e-12 < 1e-3 < largest["conv1/kernel"]
    for kind in ("variable", "layer", "model"):
        members = {i for unit in parameters.units(kind).values() for i in unit}
        outside = {parameters.names[i] for i in set(range(len(gradients))) - members}
        assert outside == set(idle)
