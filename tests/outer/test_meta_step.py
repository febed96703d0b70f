"""The meta-step: what it updates, how often it is traced, and that replicas change nothing."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_lwdgh.aggregators.schedules import ExploreExploit

from tests import oracles
from tf_lwdgh.aggregators import LWDGH, Mean
from tf_lwdgh.learners import MAML
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.networks.backbones import convnet4
from tf_lwdgh.outer.meta_step import MetaStep, OuterLoop, task_gradients
from tf_lwdgh.types import Episode

N_WAY, N_TASKS = 3, 4


def meta_batch(seed=0, size=8):
    r = np.random.default_rng(seed)
    labels = np.tile(np.repeat(np.arange(N_WAY, dtype=np.int32), 2), (N_TASKS, 1))
    images = [
        (r.normal(size=(N_TASKS, 2 * N_WAY, size, size, 1)) + labels[..., None, None, None])
        for _ in range(2)
    ]
    images = [tf.constant(x, tf.float32) for x in images]
    return Episode(images[0], tf.constant(labels), images[1], tf.constant(labels))


def build(aggregator=None, optimizer=None, outer=None, algorithm=None):
    keras.utils.set_random_seed(1)
    return MetaStep(
        keras_model=convnet4(image_size=8, channels=1, n_way=N_WAY, filters=4, blocks=2),
        algorithm=algorithm or MAML(InnerLoop(steps=2, inner_lr=0.1)),
        aggregator=aggregator or LWDGH(),
        optimizer=optimizer or keras.optimizers.Adam(0.01),
        settings=OuterLoop(**{"steps_per_epoch": 2, "epochs": 6, **(outer or {})}),
        seed=0,
    )


def run(step, s=0):
    out = step(meta_batch(s), tf.constant(s, tf.int64))
    return {k: v.numpy() for k, v in out.items()}


def test_traced_once_over_steps_explore_and_exploit():
    step = build(LWDGH(explore=ExploreExploit(mode="fixed", p_max=1, transition=0.5)))
    flags = [run(step, s)["explore/flag"] for s in range(12)]
    assert flags == [1] * 6 + [0] * 6
    assert step.traces == 1


def test_sgd_step_equals_weights_minus_rate_times_harmonized_gradient():
    step = build(LWDGH(explore=None), keras.optimizers.SGD(0.5), {"clip_value": None})
    before = [np.array(v) for v in step.variables_trained]
    gradients, _, _ = tf.function(task_gradients)(step.model, step.algorithm, meta_batch())
    run(step)
    for old, new, g in zip(before, step.variables_trained, gradients):
        _, update = oracles.lwdgh(g.numpy().reshape(N_TASKS, -1).astype(np.float64))
        np.testing.assert_allclose(old - 0.5 * update.reshape(old.shape), new, atol=1e-6)


@pytest.mark.parametrize("outer, bound", [({"clip_value": 1e-3}, None), ({"clip_norm": 1e-3}, 1e-3)])
def test_update_is_clipped(outer, bound):
    step = build(Mean(), keras.optimizers.SGD(1.0), {"clip_value": None, **outer})
    before = [np.array(v) for v in step.variables_trained]
    run(step)
    moved = np.concatenate([np.ravel(a - np.array(b)) for a, b in zip(before, step.variables_trained)])
    if bound:
        assert np.linalg.norm(moved) == pytest.approx(bound, rel=1e-2)
    else:
        assert np.abs(moved).max() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("aggregator", [Mean(), LWDGH()], ids=["mean", "lwdgh"])
def test_training_on_one_meta_batch_lowers_its_loss(aggregator):
    step = build(aggregator)
    losses = [step(meta_batch(), tf.constant(s, tf.int64))["train/loss"].numpy() for s in range(40)]
    assert losses[-1] < 0.5 * losses[0]


def test_metrics_are_complete():
    step = build()
    out = run(step)
    names = step.model.names
    expected = {f"{group}/{n}" for group in ("gci", "weights", "gradient_norm") for n in names}
    expected |= {
        "gci/total", "gradient_norm/total", "explore/probability", "explore/flag",
        "learning_rate/outer", "train/loss", "train/accuracy",
    }  # fmt: skip
    assert set(out) == expected
    for name in names:
        assert out[f"weights/{name}"].shape == (N_TASKS,)
        assert out[f"weights/{name}"].sum() == pytest.approx(1, abs=1e-6)


def test_learning_rate_schedule_is_followed():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.1, 0.01])
    step = build(optimizer=keras.optimizers.SGD(schedule))
    assert [float(run(step, s)["learning_rate/outer"]) for s in range(5)] == pytest.approx(
        [0.1, 0.1, 0.1, 0.01, 0.01]
    )


def test_zero_head_is_not_trained_and_any_way_can_be_predicted():
    step = build(algorithm=MAML(InnerLoop(steps=2, inner_lr=0.1), head="zero"))
    head = [np.array(v) for v in step.model.variables[-2:]]
    run(step)
    for a, b in zip(head, step.model.variables[-2:]):
        np.testing.assert_array_equal(a, b)
    images, labels = tf.random.normal([10, 8, 8, 1]), tf.repeat(tf.range(5), 2)
    logits = step.algorithm.adapt_and_predict(
        step.model, step.model.values(), step.model.state(), images, labels, images[:7], n_way=5
    )
    assert logits.shape == (7, 5)


def test_global_statistics_move_towards_the_tasks_mean():
    step = build(
        algorithm=MAML(InnerLoop(steps=1), batch_norm="global"), outer={"statistics_momentum": 0.75}
    )
    before = [np.array(v) for v in step.model.state_variables]
    _, _, statistics = tf.function(task_gradients)(step.model, step.algorithm, meta_batch())
    run(step)
    for old, new, s in zip(before, step.model.state_variables, statistics):
        np.testing.assert_allclose(new, 0.75 * old + 0.25 * np.mean(s, 0), rtol=1e-4, atol=1e-5)


def predictions(algorithm, queries):
    step = build(algorithm=algorithm)
    run(step)
    support = tf.nest.map_structure(lambda x: x[0], meta_batch(3))
    return step.algorithm.adapt_and_predict(
        step.model, step.model.values(), step.model.state(),
        support.support_images, support.support_labels, queries,
    ).numpy()  # fmt: skip


@pytest.mark.parametrize(
    "mode, independent", [("inductive", True), ("global", True), ("transductive", False)]
)
def test_one_querys_prediction_depends_on_the_others_only_if_transductive(mode, independent):
    algorithm = MAML(InnerLoop(steps=2, inner_lr=0.1), batch_norm=mode)
    r = np.random.default_rng(9)
    one, some, others = (r.normal(size=(n, 8, 8, 1)).astype(np.float32) for n in (1, 4, 4))
    a = predictions(algorithm, tf.constant(np.r_[one, some]))[0]
    b = predictions(algorithm, tf.constant(np.r_[one, 3 * others + 1]))[0]
    alone = predictions(algorithm, tf.constant(one))[0]
    if independent:
        np.testing.assert_allclose(a, b, atol=1e-6)
        np.testing.assert_allclose(a, alone, atol=1e-6)
    else:
        assert np.abs(a - b).max() > 1e-2


def test_optimizer_that_clips_is_refused():
    with pytest.raises(ValueError, match="must not clip; set OuterLoop.clip_value .*clipnorm=1.0"):
        build(optimizer=keras.optimizers.Adam(clipnorm=1.0))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="OuterLoop.meta_batch_size must be at least 1. Received: 0"):
        OuterLoop(meta_batch_size=0)
    with pytest.raises(ValueError, match="InnerLoop.memory must be one of store, recompute"):
        InnerLoop(memory="none")
    with pytest.raises(ValueError, match="every expression must match a variable. Received: 'hed'"):
        build(algorithm=MAML(InnerLoop(inner_lr={"hed": 0.1})))
        InnerLoop(inner_lr={"hed": 0.1}).rates(["head/kernel"], [False])
    with pytest.raises(ValueError, match="MAML.batch_norm must be one of .* Received: 'batch'"):
        MAML(batch_norm="batch")


def test_two_replicas_give_the_update_of_one():
    env = {**os.environ, "PYTHONPATH": os.getcwd(), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.outer.replicas"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    for name, differences in report.items():
        assert differences["weights"] < 1e-9, (name, differences)
        assert differences["metrics"] < 1e-6, (name, differences)
    assert len(set(report["lwdgh_ee"]["flags"])) == 2
