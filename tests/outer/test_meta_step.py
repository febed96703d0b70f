# SPDX-License-Identifier: Apache-2.0
"""The meta-step: what it updates, how often it is traced, and that replicas change nothing."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tf_lwdgh.aggregators import LWDGH, Mean
from tf_lwdgh.aggregators.conflict_report import ConflictReport
from tf_lwdgh.aggregators.explore_exploit import ExploreExploit
from tf_lwdgh.learners import MAML
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.backbones import convnet4
from tf_lwdgh.outer.meta_step import MetaStep, OuterLoop
from tf_lwdgh.outer.outer_gradients import outer_gradients
from tf_lwdgh.types import Episode

N_WAY, N_TASKS = 3, 4


def meta_batch(seed=0, size=8):
    r = np.random.default_rng(seed)
    labels = np.tile(np.repeat(np.arange(N_WAY, dtype=np.int32), 2), (N_TASKS, 1))
    images = [(r.normal(size=(N_TASKS, 2 * N_WAY, size, size, 1)) + labels[..., None, None, None]) for _ in range(2)]
    images = [tf.constant(x, tf.float32) for x in images]
    return Episode(images[0], tf.constant(labels), images[1], tf.constant(labels))


def network():
    keras.utils.set_random_seed(1)
    return convnet4(image_size=8, channels=1, n_way=N_WAY, filters=4, blocks=2, fused=False)


def build(aggregator=None, optimizer=None, outer=None, learner=None, **others):
    learner = learner or MAML(inner_loop=InnerLoop(steps=1, inner_lr=0.1))
    return MetaStep(
        parameters=MetaParameters(network(), learner),
        aggregator=aggregator or LWDGH(),
        optimizer=optimizer or keras.optimizers.Adam(0.01),
        settings=OuterLoop(**{"steps_per_epoch": 2, "epochs": 6, **(outer or {})}),
        seed=0,
        **others,
    )


def trained(step):
    """The present values of what the outer loop trains."""
    return [np.array(v) for v in step.parameters.variables_trained]


def run(step, s=0):
    out = step(meta_batch(s), tf.constant(s, tf.int64))
    return {k: v.numpy() for k, v in out.items()}


@pytest.mark.parametrize("aggregator", [Mean(), LWDGH()], ids=["mean", "lwdgh"])
def test_explore_exploit_wraps_any_aggregator_and_the_step_is_traced_once(aggregator):
    step = build(aggregator, explore=ExploreExploit(mode="fixed", p_max=1, transition=0.5))
    history = [run(step, s) for s in range(12)]
    assert [out["explore/flag"] for out in history] == [1] * 6 + [0] * 6
    assert [out["explore/probability"] for out in history] == [1] * 6 + [0] * 6
    assert step.traces == 1
    cosines = [out["update_cosine/conv1/kernel"] for out in history]
    assert cosines[:6] == pytest.approx([1] * 6, abs=1e-6)
    assert (min(cosines[6:]) > 0.9999) == isinstance(aggregator, Mean)


@pytest.mark.parametrize("explore", [None, ExploreExploit(mode="off")])
def test_without_explore_exploit_nothing_is_logged_of_it(explore):
    assert not [name for name in run(build(explore=explore)) if name.startswith("explore/")]


def test_sgd_step_equals_weights_minus_rate_times_harmonized_gradient():
    step = build(LWDGH(), keras.optimizers.SGD(0.5), {"clip_value": None})
    before = trained(step)
    gradients = tf.function(outer_gradients, autograph=False)(step.parameters, meta_batch()).gradients
    run(step)
    for old, new, g in zip(before, trained(step), gradients):
        _, update = oracles.lwdgh(g.numpy().reshape(N_TASKS, -1).astype(np.float64))
        np.testing.assert_allclose(old - 0.5 * update.reshape(old.shape), new, atol=1e-6)


@pytest.mark.parametrize("outer, bound", [({"clip_value": 1e-3}, None), ({"clip_norm": 1e-3}, 1e-3)])
def test_update_is_clipped(outer, bound):
    step = build(Mean(), keras.optimizers.SGD(1.0), {"clip_value": None, **outer})
    before = trained(step)
    run(step)
    moved = np.concatenate([np.ravel(a - b) for a, b in zip(before, trained(step))])
    if bound:
        assert np.linalg.norm(moved) == pytest.approx(bound, rel=1e-2)
    else:
        assert np.abs(moved).max() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("aggregator", [Mean(), LWDGH()], ids=["mean", "lwdgh"])
def test_training_on_one_meta_batch_lowers_its_loss(aggregator):
    step = build(aggregator)
    losses = [step(meta_batch(), tf.constant(s, tf.int64))["train/loss"].numpy() for s in range(40)]
    assert losses[-1] < 0.5 * losses[0]


IDLE = {"conv1/bias", "conv2/bias"}  # batch statistics cancel them


def test_metrics_are_complete():
    step = build(explore=ExploreExploit())
    out, names = run(step), set(step.parameters.names) - IDLE
    groups = {"gci", "attention", "gradient_norm", "update_cosine", "cosines", "conflict_rate",
              "strong_conflict_rate"}  # fmt: skip
    expected = {f"{group}/{name}" for group in groups for name in names}
    totals = groups - {"attention", "update_cosine", "cosines"}
    expected |= {f"{group}/total" for group in totals}
    expected |= {
        "explore/probability", "explore/flag", "learning_rate/outer", "train/loss", "train/accuracy",
    }  # fmt: skip
    assert set(out) == expected
    for name in names:
        assert out[f"attention/{name}"].shape == (N_TASKS,)
        assert out[f"attention/{name}"].sum() == pytest.approx(1, abs=1e-6)


def test_conflict_is_measured_as_numpy_does_whatever_aggregates():
    step = build(Mean(), report=ConflictReport(threshold=0.1))
    gradients = tf.function(outer_gradients, autograph=False)(step.parameters, meta_batch()).gradients
    out, rates = run(step), {"conflict_rate": [], "strong_conflict_rate": []}
    for name, g in zip(step.parameters.names, gradients):
        if name in IDLE:
            continue
        rows = g.numpy().reshape(N_TASKS, -1).astype(np.float64)
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = unit @ unit.T
        np.testing.assert_allclose(out[f"cosines/{name}"], cosines, atol=1e-5)
        pairs = cosines[np.triu_indices(N_TASKS, 1)]
        for key, below in (("conflict_rate", 0), ("strong_conflict_rate", 0.1)):
            rates[key].append((pairs < below).mean())
            assert out[f"{key}/{name}"] == pytest.approx(rates[key][-1])
        assert out[f"gci/{name}"] == pytest.approx(oracles.gci(rows, rows.mean(0)).sum(), rel=1e-4)
        assert out[f"update_cosine/{name}"] == pytest.approx(1, abs=1e-5)
        assert out[f"gradient_norm/{name}"] == pytest.approx(np.linalg.norm(rows.mean(0)), rel=1e-4)
    whole = np.concatenate([np.ravel(g.numpy().mean(0)) for g in gradients])
    assert out["gradient_norm/total"] == pytest.approx(np.linalg.norm(whole), rel=1e-4)
    for key, values in rates.items():
        assert out[f"{key}/total"] == pytest.approx(np.mean(values))
    assert np.ptp(rates["conflict_rate"]) > 0


def test_cosines_can_be_left_out():
    out = run(build(report=ConflictReport(cosines=False)))
    groups = {name.split("/")[0] for name in out}
    assert {"gci", "update_cosine"} <= groups
    assert not groups & {"cosines", "conflict_rate", "strong_conflict_rate"}


def test_learning_rate_schedule_is_followed():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.1, 0.01])
    step = build(optimizer=keras.optimizers.SGD(schedule))
    assert [float(run(step, s)["learning_rate/outer"]) for s in range(5)] == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01])


def answers(step, support, queries, **told):
    """Logits of queries after learning a support set, at the present values."""
    context, learner = Context(step.parameters.model, **told), step.parameters.learner
    meta = step.parameters.values()
    adapted = learner.adapt(context, meta, *support)
    return learner.predict(context, meta, adapted, queries)[0].numpy()


def test_zero_head_is_not_trained_and_any_way_can_be_predicted():
    step = build(learner=MAML(inner_loop=InnerLoop(steps=1, inner_lr=0.1), head="zero"))
    head = [np.array(v) for v in step.parameters.model.variables[-2:]]
    assert not [name for name in step.parameters.names if name.startswith("head")]
    run(step)
    for a, b in zip(head, step.parameters.model.variables[-2:]):
        np.testing.assert_array_equal(a, b)
    images, labels = tf.random.normal([10, 8, 8, 1]), tf.repeat(tf.range(5), 2)
    assert answers(step, (images, labels), images[:7], n_way=5).shape == (7, 5)


def test_global_statistics_are_weighted_means_over_the_steps_and_forget_where_they_began():
    learner = MAML(inner_loop=InnerLoop(steps=1), batch_norm="global")
    step = build(learner=learner, outer={"statistics_momentum": 0.75})
    averages = step.parameters.model.state_variables
    for variable in averages:
        variable.assign(variable + 100.0)
    gradients, means = tf.function(outer_gradients, autograph=False), []
    for index in range(3):
        statistics = gradients(step.parameters, meta_batch(index)).statistics
        means.append([np.mean(s, 0, dtype=np.float64) for s in statistics])
        run(step, index)
        weights = 0.75 ** np.arange(index, -1, -1)
        for variable, *of_steps in zip(averages, *means):
            np.testing.assert_allclose(variable, np.average(of_steps, axis=0, weights=weights), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode, independent", [("inductive", True), ("global", True), ("transductive", False)])
def test_one_querys_prediction_depends_on_the_others_only_if_transductive(mode, independent):
    step = build(learner=MAML(inner_loop=InnerLoop(steps=1, inner_lr=0.1), batch_norm=mode))
    assert step.parameters.learner.depends_on_queries != independent
    run(step)
    support = [x[0] for x in meta_batch(3)[:2]]
    r = np.random.default_rng(9)
    one, some, others = (r.normal(size=(n, 8, 8, 1)).astype(np.float32) for n in (1, 4, 4))
    batches = (np.r_[one, some], np.r_[one, 3 * others + 1], one)
    a, b, alone = (answers(step, support, tf.constant(queries))[0] for queries in batches)
    if independent:
        np.testing.assert_allclose(a, b, atol=1e-6)
        np.testing.assert_allclose(a, alone, atol=1e-6)
    else:
        assert np.abs(a - b).max() > 1e-2


def test_weight_decay_is_added_to_the_clipped_update():
    plain, decayed = (
        build(optimizer=keras.optimizers.SGD(1.0), outer={"clip_value": 1e-3, "weight_decay": decay})
        for decay in (0.0, 0.25)
    )
    before = [np.array(v) for v in plain.parameters.variables_trained]
    run(plain), run(decayed)
    pairs = zip(plain.parameters.variables_trained, decayed.parameters.variables_trained, before)
    for a, b, old in pairs:
        np.testing.assert_allclose(np.array(a) - np.array(b), 0.25 * old, atol=1e-6)


def test_optimizer_that_clips_is_refused():
    with pytest.raises(ValueError, match="must not clip; set OuterLoop.clip_value .*clipnorm=1.0"):
        build(optimizer=keras.optimizers.Adam(clipnorm=1.0))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="OuterLoop.meta_batch_size must be at least 1. Received: 0"):
        OuterLoop(meta_batch_size=0)
    with pytest.raises(ValueError, match="InnerLoop.memory must be one of store, recompute"):
        InnerLoop(memory="none")
    with pytest.raises(ValueError, match="OuterLoop.weight_decay must be >= 0 .*weight_decay = -1"):
        OuterLoop(weight_decay=-1)
    with pytest.raises(ValueError, match="OuterLoop.sharpness must be >= 0 .*sharpness = -1"):
        OuterLoop(sharpness=-1)
    with pytest.raises(ValueError, match="every expression must match a variable. Received: 'hed'"):
        build(learner=MAML(inner_loop=InnerLoop(inner_lr={"hed": 0.1})))
    with pytest.raises(ValueError, match="MAML.batch_norm must be one of .*batch_norm = 'batch'"):
        MAML(batch_norm="batch")


@pytest.mark.parametrize(
    "names, flags",
    [
        (["lwdgh_ee", "coupled_sharp"], {"lwdgh_ee on 2": 2, "coupled_sharp on 2": 2}),
        pytest.param(["own"], {"own on 2": 1, "own on 4": 1}, marks=pytest.mark.slow),
    ],
)
def test_several_replicas_give_the_update_of_one(names, flags):
    env = {**os.environ, "PYTHONPATH": os.getcwd(), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.outer.replicas", *names], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    for name, differences in report.items():
        assert differences["weights"] < 1e-9, (name, differences)
        assert differences["metrics"] < 1e-6, (name, differences)
    # Whether it explores changes from step to step, and -1 stands where it never does.
    assert {name: len(set(differences["flags"])) for name, differences in report.items()} == flags
