# SPDX-License-Identifier: Apache-2.0
"""A learner's own meta-parameters, and losses that couple the tasks, on a learner defined in the tests."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.learners import tiny_tasks
from tests.toy_learners import Centres, CountedCentres, CoupledCentres
from tf_lwdgh.aggregators import LWDGH, Mean
from tf_lwdgh.aggregators.conflict_report import ConflictReport
from tf_lwdgh.learners.base import OwnParameter
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.outer.evaluation import Evaluator
from tf_lwdgh.outer.meta_step import MetaStep, OuterLoop
from tf_lwdgh.outer.outer_gradients import outer_gradients
from tf_lwdgh.outer.task_execution import TaskExecution

N_TASKS, RATE = 4, 0.5


@pytest.fixture(scope="module")
def batch():
    return tiny_tasks.episodes(n_tasks=N_TASKS)


def build(learner, aggregator=None, **outer):
    """A meta-step with plain SGD in float64."""
    return MetaStep(
        parameters=tiny_tasks.parameters(learner, fused=False),
        aggregator=aggregator or Mean(),
        optimizer=keras.optimizers.SGD(RATE),
        settings=OuterLoop(**{"clip_value": None, "meta_batch_size": N_TASKS, **outer}),
        seed=0,
        report=ConflictReport(cosines=False),
    )


def values(parameters):
    return [np.array(v) for v in parameters.variables_trained]


def run(step, batch, s=0):
    return {k: v.numpy() for k, v in step(batch, tf.constant(s, tf.int64)).items()}


def coupled_slopes(parameters, batch, h=1e-6):
    """dL_k/d log_scale of each task by central differences, the weights of the tasks held fixed."""
    meta = parameters.values()

    def losses(log_scale):
        there = meta._replace(own={"log_scale": log_scale})
        one = dataclasses.replace(Centres(), harmonized=parameters.learner.harmonized)
        context = Context(parameters.model, training=True)
        tasks = [one.objective(context, there, tiny_tasks.task(batch, k)) for k in range(N_TASKS)]
        return np.array([float(t.loss) for t in tasks])

    at = meta.own["log_scale"]
    slopes = (losses(at + h) - losses(at - h)) / (2 * h)
    if not parameters.learner.couples:
        return slopes
    shares = losses(at) / losses(at).sum()
    return (1 + shares) * slopes


@pytest.mark.parametrize("harmonized", [True, False])
@pytest.mark.parametrize("learner", [Centres, CoupledCentres])
def test_an_own_parameter_takes_the_optimizers_step(learner, harmonized, batch):
    step = build(learner(harmonized=harmonized), LWDGH(temperature=0.01))
    parameters = step.parameters
    slopes = coupled_slopes(parameters, batch)
    assert parameters.names[-1] == "log_scale" and "head/kernel" not in parameters.names
    before = values(parameters)
    out = run(step, batch)
    expected = slopes.mean()
    if harmonized:
        weights, update = oracles.lwdgh(slopes[:, None], 0.01)
        np.testing.assert_allclose(out["attention/log_scale"], weights, rtol=1e-5)
        expected = update[0]
    assert abs(expected - slopes.mean()) > 1e-4 or not harmonized
    moved = before[-1] - values(parameters)[-1]
    np.testing.assert_allclose(moved, RATE * expected, rtol=1e-6)
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before[::4], values(parameters)[::4]))


@pytest.mark.parametrize("harmonized", [True, False])
@pytest.mark.parametrize("kind", ["variable", "layer", "model"])
def test_the_learner_says_whether_its_parameters_are_in_the_units(kind, harmonized):
    parameters = tiny_tasks.parameters(Centres(harmonized=harmonized), fused=False)
    units, last = parameters.units(kind), len(parameters.names) - 1
    assert any(last in members for members in units.values()) == harmonized
    assert units.get("log_scale") == ([last] if harmonized and kind != "model" else None)


def test_an_evaluation_uses_the_own_parameters_as_they_are_now(batch):
    parameters = tiny_tasks.parameters(Centres(), fused=False)
    evaluator = Evaluator(parameters, inner_steps=None)
    losses = []
    for log_scale in (1.5, 3.0):
        parameters.own["log_scale"].assign(log_scale)
        losses.append(evaluator(batch)["loss"].numpy())
        told, learner, meta = Context(parameters.model), parameters.learner, parameters.values()
        for k in range(N_TASKS):
            one = tiny_tasks.task(batch, k)
            adapted = learner.adapt(told, meta, one.support_images, one.support_labels)
            logits, _ = learner.predict(told, meta, adapted, one.query_images)
            log_p = tf.nn.log_softmax(logits).numpy()
            expected = -log_p[np.arange(len(log_p)), one.query_labels].mean()
            assert losses[-1][k] == pytest.approx(expected, rel=1e-6)
    assert np.abs(losses[0] - losses[1]).min() > 1e-3


@dataclasses.dataclass(frozen=True)
class Twice(Centres):
    def own(self, model):
        return [OwnParameter("a", tf.zeros([])), OwnParameter("a", tf.zeros([]))]


def test_two_own_parameters_of_one_name_are_refused():
    with pytest.raises(ValueError, match="Twice names two of its own parameters alike"):
        MetaParameters(tiny_tasks.convnet(), Twice())


def test_own_parameters_keep_their_names_and_types():
    @dataclasses.dataclass(frozen=True)
    class Several(Centres):
        def own(self, model):
            rates = np.full([3], 0.25, np.float32)
            return [*super().own(model), OwnParameter("rate/conv1", rates, layer="conv1")]

    parameters = tiny_tasks.parameters(Several(), fused=False)
    assert list(parameters.own) == ["log_scale", "rate/conv1"]
    assert parameters.own["rate/conv1"].dtype == "float32"
    assert parameters.own["log_scale"].dtype == "float64"
    assert parameters.units("layer")["conv1"][-1] == len(parameters.names) - 1


@pytest.mark.parametrize("mode", ["map", "vectorized", "unrolled"])
def test_couplings_reach_their_tasks_however_these_run(mode, batch):
    parameters = tiny_tasks.parameters(CoupledCentres(), fused=False)
    run = tf.function(lambda: outer_gradients(parameters, batch, execution=TaskExecution(mode)), autograph=False)
    np.testing.assert_allclose(run().gradients[-1], coupled_slopes(parameters, batch), rtol=1e-6, atol=1e-9)


def test_a_learner_keeps_what_no_gradient_trains(batch):
    """The sum of the losses of all meta-steps, which then moves a parameter that is trained too."""
    step, plain = build(CountedCentres()), build(Centres())
    parameters, other = step.parameters, plain.parameters
    assert list(parameters.own) == ["log_scale", "kept/losses"]
    assert parameters.own_trained == ["log_scale"] and parameters.names == other.names
    assert parameters.units("layer") == other.units("layer")
    before = 0.0
    for s in range(2):
        out, kept = run(step, batch, s), parameters.own["kept/losses"].numpy()
        expected = run(plain, batch, s)
        assert kept == pytest.approx(before + N_TASKS * expected["train/loss"], rel=1e-6)
        assert out["learner/kept/losses"] == kept
        moved = parameters.own["log_scale"].numpy() - other.own["log_scale"].numpy()
        assert moved == pytest.approx(1e-3 * kept * (s + 1), rel=1e-6)
        other.own["log_scale"].assign(parameters.own["log_scale"])
        before = kept
    assert not [key for key in expected if key.startswith("learner/")]


def mean_gradient(parameters, batch, at):
    """ḡ at some values of the trained variables, flat."""
    meta = parameters.replaced(parameters.values(), at)
    gradients = tf.function(outer_gradients, autograph=False)(parameters, batch, meta=meta).gradients
    return [np.mean(g, 0) for g in gradients]


def mean_loss(parameters, batch):
    """From values of the trained variables to the mean objective of the tasks."""
    losses = tiny_tasks.objectives(parameters, batch)
    meta = parameters.values()
    return lambda at: losses(parameters.replaced(meta, [tf.constant(v) for v in at])).mean()


def test_the_outer_gradient_is_taken_uphill_by_its_sharpness(batch):
    rho, step = 0.3, build(Centres(), sharpness=0.3)
    parameters = step.parameters
    before = values(parameters)
    mean = mean_gradient(parameters, batch, [tf.constant(v) for v in before])
    length = np.sqrt(sum((g * g).sum() for g in mean))
    uphill = [v + rho * g / length for v, g in zip(before, mean)]
    loss, r, h = mean_loss(parameters, batch), np.random.default_rng(2), 1e-6
    way = [r.normal(size=v.shape) for v in before]
    up, down = (loss([v + s * d for v, d in zip(uphill, way)]) for s in (h, -h))
    out = run(step, batch)
    moved = [b - a for b, a in zip(before, values(parameters))]
    found = sum((m * d).sum() for m, d in zip(moved, way)) / RATE
    assert found == pytest.approx((up - down) / (2 * h), rel=1e-6)
    flat = sum((g * d).sum() for g, d in zip(mean, way))
    assert abs(found - flat) > 0.01 * abs(flat)
    assert out["train/loss"] == pytest.approx(loss(before), rel=1e-6)  # where the weights are


def test_a_little_sharpness_changes_little_and_none_is_the_default(batch):
    after = []
    for settings in ({}, {"sharpness": 1e-7}):
        step = build(Centres(), **settings)
        run(step, batch)
        after.append(values(step.parameters))
    assert OuterLoop().sharpness == 0
    for a, b in zip(*after):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert any((a != b).any() for a, b in zip(*after))
