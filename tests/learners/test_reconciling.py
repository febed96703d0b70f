# SPDX-License-Identifier: Apache-2.0
"""The mixture of initialisations: MAML where it is one, shares, answers, and how it grows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.learners import tiny_tasks
from tf_lwdgh.learners import MAML, Reconciling
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.learners.reconciling import COUNTS, OPEN, WAIT
from tf_lwdgh.networks.backbones import convnet4

LOOP, BATCH = InnerLoop(steps=2, inner_lr=0.1), tiny_tasks.episodes()
NETWORK = {"fused": False, "blocks": 1}


@pytest.fixture
def eagerly():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def made(**settings):
    learner = Reconciling(**{"inner_loop": LOOP, **settings})
    params = tiny_tasks.parameters(learner, **NETWORK)
    return learner, params, params.values()


def test_one_initialisation_is_maml():
    ours = tiny_tasks.outcome(made(initialisations=1)[1], BATCH)
    theirs = tiny_tasks.outcome(tiny_tasks.parameters(MAML(inner_loop=LOOP), **NETWORK), BATCH)
    tiny_tasks.assert_same_gradients(ours, theirs, 1e-12)


def test_equal_initialisations_share_a_task_alike(eagerly):
    _, params, _ = made(initialisations=3, init_spread=0.0)
    ours = tiny_tasks.outcome(params, BATCH)
    theirs = tiny_tasks.outcome(tiny_tasks.parameters(MAML(inner_loop=LOOP), **NETWORK), BATCH)
    count = len(theirs.gradients)
    assert len(ours.gradients) == 3 * count
    for i, g in enumerate(ours.gradients):
        np.testing.assert_allclose(3 * g, theirs.gradients[i % count], rtol=1e-9, atol=1e-12)


def test_queries_are_answered_by_the_mixture_of_probabilities(eagerly):
    learner, params, meta = made(temperature=3.0)
    one, told = tiny_tasks.task(BATCH), tiny_tasks.context(params, training=False)
    adapted = learner.adapt(told, meta, one.support_images, one.support_labels)
    fits, p = [], []
    for network in adapted.networks:
        logits = [
            params.model.apply(network.params, meta.state, x, training=True)[0]
            for x in (one.support_images, one.query_images)
        ]
        support, query = (tf.nn.softmax(x).numpy() for x in logits)
        fits.append(np.log(support[np.arange(len(support)), one.support_labels]).sum())
        p.append(query)
    shares = np.exp(np.array(fits) / 3) / np.exp(np.array(fits) / 3).sum()
    np.testing.assert_allclose(adapted.shares, shares, rtol=1e-9)
    assert shares.max() - shares.min() > 0.01
    found = tf.nn.softmax(learner.predict(told, meta, adapted, one.query_images)[0])
    np.testing.assert_allclose(found, np.tensordot(shares, p, 1), rtol=1e-9)


def test_initialisations_start_around_the_network():
    learner = Reconciling(init_spread=0.25)
    params = MetaParameters(convnet4(image_size=84, filters=32), learner)
    meta, names = params.values(), params.model.names
    assert sum(int(np.prod(v.shape)) for v in params.variables_trained) == 3 * 32_901
    for slot in (2, 3):
        for name, first in zip(names, meta.network):
            own = meta.own[f"init{slot}/{name}"].numpy()
            ratio = np.std(own - first) / max(np.std(first), 1e-9)
            assert ratio == pytest.approx(0.25, abs=0.03) if name.endswith("kernel") else ratio < 1e-6
    apart = np.std(meta.own["init2/conv2/kernel"] - meta.own["init3/conv2/kernel"])
    assert apart > 0.3 * np.std(meta.network[names.index("conv2/kernel")])
    units = params.units("layer")
    assert "init2/conv1" in units and "conv1" in units
    assert [params.names[i] for i in units["init2/conv1"]] == ["init2/conv1/kernel"]


def test_a_zero_head_takes_any_ways_and_has_none_of_its_own(eagerly):
    learner, params, meta = made(head="zero", initialisations=2)
    assert not [name for name in params.own if "head" in name]
    one = tiny_tasks.task(tiny_tasks.episodes(n_way=5))
    told = tiny_tasks.context(params, training=False, n_way=5)
    adapted = learner.adapt(told, meta, one.support_images, one.support_labels)
    assert learner.predict(told, meta, adapted, one.query_images)[0].shape == [10, 5]


# How it grows.


def test_a_growing_mixture_starts_as_one(eagerly):
    learner, params, meta = made(growing=True)
    assert [params.own[name].numpy().tolist() for name in (OPEN, WAIT, COUNTS)] == [1, 200, [1, 0, 0]]
    assert not {OPEN, WAIT, COUNTS} & set(params.names)
    told, one = tiny_tasks.context(params, training=False), tiny_tasks.task(BATCH)
    adapted = learner.adapt(told, meta, *one[:2])
    np.testing.assert_array_equal(adapted.shares, [1, 0, 0])
    maml, theirs = MAML(inner_loop=LOOP), meta._replace(own={})
    expected = maml.predict(told, theirs, maml.adapt(told, theirs, *one[:2]), one.query_images)[0]
    found = learner.predict(told, meta, adapted, one.query_images)[0]
    np.testing.assert_allclose(tf.nn.softmax(found), tf.nn.softmax(expected), rtol=1e-9)


def test_shares_follow_the_counts_and_the_candidate_the_concentration(eagerly):
    learner, params, meta = made(growing=True, concentration=2.0, temperature=1.5)
    counts = tf.constant([30.0, 4.0, 0.0], tf.float64)
    meta.own.update({OPEN: tf.constant(2.0, tf.float64), COUNTS: counts})
    one, told = tiny_tasks.task(BATCH), tiny_tasks.context(params)
    fixed = learner.objective(told, meta, one)
    plain = dataclasses.replace(learner, growing=False).adapt(told, meta, *one[:2]).shares.numpy()
    scores = np.array([30, 4, 2.0]) ** (1 / 1.5) * plain  # softmax(ρ/τ) ∝ n^(1/τ) e^(fit/τ)
    shares, candidate = fixed.told
    np.testing.assert_allclose(candidate, scores[2] / scores.sum(), rtol=1e-9)
    np.testing.assert_allclose(shares, [*scores[:2] / scores[:2].sum(), 0], rtol=1e-9)
    found, _ = learner.outer_gradient(told, meta, one)
    assert all(np.abs(g).max() == 0 for n, g in found.own.items() if n.startswith("init3/"))
    assert np.abs(found.own["init2/conv1/kernel"]).max() > 0


def after(learner, params, meta, shares, candidate, step=0):
    """The new values where some tasks told so much together."""
    clock = tiny_tasks.context(params).clock
    clock.step = tf.cast(step, tf.int64)
    told = [tf.constant(x, tf.float64) for x in (shares, candidate)]
    return learner.after_step(tiny_tasks.context(params, clock=clock), meta, told)


def test_a_candidate_joins_where_its_share_is_large_and_the_pause_is_over():
    learner, params, meta = made(growing=True, threshold=0.25, pause=2)
    seen = []
    for candidate in (0.9, 0.9, 0.4, 0.9, 3.9, 0.6, 0.9):
        new = after(learner, params, meta, [3.0, 0.0, 0.0], candidate)
        meta.own.update(new)
        seen.append((float(new[OPEN]), float(new[WAIT]), new[COUNTS].numpy().tolist()))
    assert seen == [
        (1, 1, [4, 0, 0]),
        (1, 0, [7, 0, 0]),
        (1, 0, [10, 0, 0]),  # too small a share: 0.4 of 3
        (2, 2, [13, 0.9, 0]),
        (2, 1, [16, 0.9, 0]),
        (2, 0, [19, 0.9, 0]),
        (3, 2, [22, 0.9, 0.9]),
    ]
    for _ in range(4):  # no slot is left
        meta.own.update(after(learner, params, meta, [1.0, 1.0, 1.0], 0.0))
    assert float(meta.own[OPEN]) == 3 and float(meta.own[WAIT]) == 0


def test_the_candidate_is_drawn_anew_from_a_gaussian_fitted_to_the_open_ones():
    learner, params, meta = made(growing=True, initialisations=4, init_spread=0.0)
    meta.own[OPEN] = tf.constant(2.0, tf.float64)
    first, name = meta.network[0].numpy(), params.model.names[0]
    second = first + np.linspace(-2, 2, first.size).reshape(first.shape)
    meta.own[f"init2/{name}"] = tf.constant(second)
    run = tf.function(lambda s: after(learner, params, meta, [1.0, 1.0, 0, 0], 0.0, step=s))
    drawn = [run(tf.constant(s, tf.int64)) for s in range(200)]
    for kept in ("init2", "init4"):
        np.testing.assert_array_equal(drawn[0][f"{kept}/{name}"], meta.own[f"{kept}/{name}"])
    every = np.array([d[f"init3/{name}"] for d in drawn])
    spread = np.abs(second - first) / 2
    np.testing.assert_allclose(every.std(0), spread, rtol=0.25)
    offset = np.abs(every.mean(0) - (first + second) / 2)
    assert np.all(offset <= 5 * spread / np.sqrt(200) + 1e-12)
    again = after(learner, params, meta, [1.0, 1.0, 0, 0], 0.0, step=3)
    np.testing.assert_array_equal(again[f"init3/{name}"], every[3])


def test_it_grows_within_the_meta_step(eagerly):
    learner = Reconciling(inner_loop=LOOP, growing=True, threshold=0.01, pause=1, batch_norm="global", temperature=5.0)
    step = tiny_tasks.meta_step(learner, **NETWORK)
    params, opened, third = step.parameters, [], []
    for s in range(6):
        third.append(params.own["init3/conv1/kernel"].numpy())
        out = step(BATCH, tf.constant(s, tf.int64))
        opened.append(float(out["learner/mixture/open"]))
    assert opened == [1, 2, 2, 3, 3, 3]
    counts = params.own[COUNTS].numpy()
    extra = counts.sum() - 1 - 6 * tiny_tasks.N_TASKS  # what the two that joined brought
    assert 0 < extra < 2 * tiny_tasks.N_TASKS and counts.min() > 0
    assert np.abs(third[0] - third[1]).max() == 0  # not next yet
    assert np.abs(third[2] - third[3]).max() > 1e-2  # drawn anew
    assert 0 < np.abs(third[4] - third[5]).max() < 0.05  # trained


@pytest.mark.parametrize(
    ("setting", "bad"),
    [
        ("initialisations", 0),
        ("temperature", 0.0),
        ("concentration", -1.0),
        ("init_spread", -0.1),
        ("threshold", 1.0),
        ("pause", -1),
    ],
)
def test_settings_out_of_range_are_refused(setting, bad):
    with pytest.raises(ValueError, match=f"Reconciling.{setting} must be"):
        Reconciling(**{setting: bad})
