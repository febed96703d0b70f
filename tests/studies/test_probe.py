# SPDX-License-Identifier: Apache-2.0
"""The probe against gradients derived by hand in float64, and that it draws and reads what it says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles, tiny
from tests.studies import probed_runs
from tf_lwdgh.data import episodes, pipeline
from tf_lwdgh.runs import experiment
from tf_lwdgh.studies import probe as probing
from tf_lwdgh.studies.probe import Prober, probe

TEMPERATURE = 0.05  # so that the weights are far from alike
STEPS, TASKS = 3, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("probe")
    tiny.write_patterns(path / "data")
    return path


@pytest.fixture(scope="module")
def lwdgh(folder):
    """A run with two checkpoints, and the weights of the last."""
    return probed_runs.write_run(folder, "lwdgh", f"LWDGH.temperature = {TEMPERATURE}", "INNER_LR = 0.1", steps=(4, 8))


@pytest.fixture(scope="module")
def found(folder, lwdgh):
    return probe(lwdgh[0], data_dir=folder / "data", steps=STEPS)


@pytest.fixture(scope="module")
def derived(folder, lwdgh):
    """Each task's query loss [S, K], and gradients by variable: {name: [S, K, D]}, from definitions."""
    run_dir, params = lwdgh
    assembly = experiment.from_run(run_dir, data_dir=folder / "data")
    model = assembly.parameters.model
    moving = [not still for still in model.is_batch_norm]  # frozen in the inner loop
    rates = [0.1 if moves else 0.0 for moves in moving]
    batches = pipeline.meta_batches(
        assembly.source("train"), assembly.episode, meta_batch_size=TASKS,
        seed=probing._stream(0), end_step=STEPS,
    )  # fmt: skip
    losses, gradients = [], []
    for batch in batches:
        for k in range(TASKS):
            x_s, y_s, x_q, y_q = (part[k].numpy() for part in batch[:4])
            support = (tf.constant(x_s, tf.float64), tf.constant(y_s))
            query = (tf.constant(x_q, tf.float64), tf.constant(y_q))
            theta = [tf.constant(p) for p in params]
            steps = oracles._gradient(theta, *support)
            adapted = [p - rate * g for p, rate, g in zip(theta, rates, steps)]
            losses.append(oracles.loss(adapted, *query).numpy())
            gradients.append(oracles.maml_gradient(params, support, query, rates=rates, steps=1))
    shape = (STEPS, TASKS)
    by_name = {
        name: np.stack([g[i].ravel() for g in gradients]).reshape(*shape, -1) for i, name in enumerate(model.names)
    }
    return np.reshape(losses, shape), by_name


def close(ours, theirs):
    """Float32 against float64."""
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4 * np.abs(theirs).max())


def test_losses_norms_and_cosines_are_those_of_gradients_derived_by_hand(found, derived):
    losses, gradients = derived
    close(found.losses, losses)
    assert found.losses.dtype == found.gci.dtype == np.float64
    for u, unit in enumerate(found.units):
        g = gradients[unit]
        mean = g.mean(1, keepdims=True)
        norms, length = np.linalg.norm(g, axis=-1), np.linalg.norm(mean, axis=-1)
        close(found.gradient_norms[:, u], norms)
        close(found.cosines[:, u], (g * mean).sum(-1) / norms / length)
        close(found.mean_norms[:, u], length[:, 0])


def test_conflict_weights_and_updates_follow_the_papers_equations(found, derived):
    spread = 0.0
    for u, unit in enumerate(found.units):
        for s in range(STEPS):
            g = derived[1][unit][s]
            weights, update = oracles.lwdgh(g, TEMPERATURE)
            close(found.gci[s, u], oracles.gci(g, g.mean(0)))
            np.testing.assert_allclose(found.weights[s, u], weights, atol=5e-3)
            length = np.linalg.norm(update)
            np.testing.assert_allclose(found.update_norms[s, u], length, rtol=1e-2)
            ratio = length / np.linalg.norm(g.mean(0))
            np.testing.assert_allclose(found.effective_steps[s, u], ratio, rtol=1e-2)
            spread = max(spread, np.ptp(weights))
    assert spread > 0.3


def test_the_whole_effective_step_is_that_of_all_units_side_by_side(found):
    update, mean = (np.sqrt((x**2).sum(1)) for x in (found.update_norms, found.mean_norms))
    np.testing.assert_allclose(found.whole_effective_steps, update / mean)


def test_variables_without_a_gradient_are_left_out(found, derived):
    left_out = set(derived[1]) - set(found.units)
    assert left_out == {"conv1/bias", "conv2/bias"}  # batch statistics cancel them
    assert found.units == tuple(name for name in derived[1] if name not in left_out)


def test_a_probe_writes_nothing_and_says_what_it_measured(folder, lwdgh):
    run_dir = lwdgh[0]
    before = {p: p.stat().st_mtime_ns for p in run_dir.rglob("*")}
    again = probe(run_dir, data_dir=folder / "data", steps=2, which=4, split="val", seed=3)
    assert {p: p.stat().st_mtime_ns for p in run_dir.rglob("*")} == before
    assert (again.step, again.split, again.seed, again.run_dir) == (4, "val", 3, str(run_dir))
    assert again.rule.startswith(f"LWDGH(unit='variable', temperature={TEMPERATURE}, ")


def test_checkpoints_one_after_the_other_are_measured_as_each_alone(folder, lwdgh):
    prober = Prober(lwdgh[0], data_dir=folder / "data")
    first, last = prober.at(4, steps=2), prober.at(8, steps=2)
    alone = probe(lwdgh[0], data_dir=folder / "data", steps=2, which=8)
    assert (first.step, last.step) == (4, 8)
    for name in ("losses", "gradient_norms", "gci", "cosines", "weights", "update_norms", "mean_norms"):
        np.testing.assert_array_equal(getattr(last, name), getattr(alone, name))
        assert not np.array_equal(getattr(first, name), getattr(last, name))


def test_the_same_tasks_and_numbers_come_again_and_for_every_method(folder, lwdgh, found):
    """A run of the mean with the same weights and settings; its rule is the paper's, whatever gin says."""
    mean = probed_runs.write_run(
        folder, "mean", "Experiment.aggregator = @Mean()", "Experiment.explore = None",
        "INNER_LR = 0.1", "LWDGH.temperature = 0.2", steps=(4, 8),
    )[0]  # fmt: skip
    other = probe(mean, data_dir=folder / "data", steps=STEPS, which=8)
    for name in ("losses", "gradient_norms", "gci", "cosines", "mean_norms"):
        np.testing.assert_array_equal(getattr(other, name), getattr(found, name))
    np.testing.assert_allclose(other.effective_steps, 1, rtol=1e-6)
    scores = np.exp(-other.gci)
    np.testing.assert_allclose(other.weights, scores / scores.sum(-1, keepdims=True), rtol=1e-5)
    assert other.rule.startswith("LWDGH(unit='variable', temperature=1.0, ")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_training_tasks_alone_are_changed_as_the_run_has_them(folder, monkeypatch, split):
    noisy = probed_runs.write_run(folder, f"noisy-{split}", "LabelNoise.share_of_labels = 1.0")[0]
    asked = {}

    def meta_batches(source, episode, **settings):
        asked.update(settings, split=source.split)
        raise InterruptedError

    monkeypatch.setattr(pipeline, "meta_batches", meta_batches)
    with pytest.raises(InterruptedError):
        probe(noisy, data_dir=folder / "data", split=split)
    assert asked["split"] == split and asked["augment"] == (split == "train")
    noise = asked["label_noise"]
    assert (noise is not None and noise.share_of_labels == 1) == (split == "train")


def test_no_task_is_one_of_training(folder, lwdgh):
    assembly = experiment.from_run(lwdgh[0], data_dir=folder / "data")

    def drawn(seed):
        tasks = [episodes.sample(assembly.spec, "train", assembly.episode, seed=seed, step=0, task=t)
                 for t in range(5)]  # fmt: skip
        return {tuple(t.image_indices.numpy().ravel()) for t in tasks}

    assert not drawn(0) & drawn(probing._stream(0))
    assert len({probing._stream(seed) for seed in range(50)}) == 50


def test_the_clock_stands_still_and_draws_anew_for_every_meta_batch():
    def clock(batch):
        return probing._StandingClock(tf.constant(batch, tf.int64), tf.constant(7), steps_per_epoch=4, epochs=3, seed=1)

    keys = {tuple(clock(batch).key("task").numpy()) for batch in (0, 1, 1)}
    assert len(keys) == 2
    assert clock(5).epoch == 1 and clock(5).step == 7


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"steps": 0}, ValueError, "steps must be an integer of at least 1. Received: steps = 0"),
        ({"seed": 0.5}, ValueError, "seed must be an integer. Received: seed = 0.5"),
        ({"which": "first"}, ValueError, "which must be one of best, last, or the step.*'first'"),
        ({"which": True}, ValueError, "which must be one of.*Received: which = True"),
        ({"which": 5}, FileNotFoundError, "steps there are: 4, 8.*keep_checkpoints.*which = 5"),
        ({"which": "best"}, FileNotFoundError, "there is no best checkpoint"),
        ({"split": "dev"}, ValueError, "split must be one of train, val, test.*'dev'"),
        ({"run_dir": "nowhere"}, FileNotFoundError, "--run_dir must be a folder.*'nowhere'"),
        ({"data_dir": "nowhere"}, FileNotFoundError, "No data set 'patterns'"),
    ],
)
def test_what_cannot_be_probed_is_refused(folder, lwdgh, changes, error, message):
    arguments = {"run_dir": lwdgh[0], "data_dir": folder / "data", **changes}
    with pytest.raises(error, match=message):
        probe(arguments.pop("run_dir"), **arguments)


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match=r"Probe.gci must have shape \(30, 3, 4\). Received: \(30, 4\)"):
        dataclasses.replace(probed_runs.made_up(), gci=np.zeros([30, 4]))
