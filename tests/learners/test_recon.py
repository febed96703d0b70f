# SPDX-License-Identifier: Apache-2.0
"""Recon's reading: which layers move, and the learners that it then is."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.learners import tiny_tasks as tiny
from tf_lwdgh.learners import ANIL, BOIL, MAML, Recon
from tf_lwdgh.learners.inner_loop import InnerLoop

LAYERS = ("conv1", "conv2", "head")


@pytest.fixture(autouse=True)
def _eagerly():
    """Without graphs, whose tracing is most of the time of such small tasks."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def recon(**settings):
    inner = settings.pop("inner", None) or InnerLoop(steps=2, inner_lr=0.1)
    return Recon(inner_loop=inner, **settings)


@functools.cache
def model():
    return parameters(recon(layers=LAYERS)).model


def parameters(learner):
    """On plain operations, which take less time to start."""
    return tiny.parameters(learner, fused=False)


@pytest.mark.parametrize(
    ("other", "layers"),
    [(MAML, LAYERS), (MAML, LAYERS[::-1]), (ANIL, ("head",)), (BOIL, ("conv2", "conv1"))],
)
def test_chosen_layers_make_it_another_learner(other, layers):
    ours = parameters(recon(layers=layers))
    theirs = parameters(other(inner_loop=InnerLoop(steps=2, inner_lr=0.1)))
    batch, meta = tiny.episodes(), tiny.perturbed(ours)
    tiny.assert_same_gradients(tiny.outcome(ours, batch, meta), tiny.outcome(theirs, batch, meta))


def test_only_the_chosen_layers_move():
    params = parameters(recon(layers=("head", "conv2"), n_layers=1))
    meta, one = params.values(), tiny.task(tiny.episodes())
    adapted = params.learner.adapt(tiny.context(params), meta, one.support_images, one.support_labels)
    moved = {
        layer for layer, a, b in zip(params.model.layer_names, adapted.params, meta.network) if np.abs(a - b).max() > 0
    }
    assert moved == {"head"}
    assert all(params.learner.trained(params.model))


def test_batch_norm_can_be_chosen_where_the_inner_loop_moves_it():
    moving = recon(layers=("norm2",), inner=InnerLoop(inner_lr=0.1, adapt_batch_norm=True))
    rates = dict(zip(model().names, moving.rates(model())))
    assert {name for name, rate in rates.items() if rate} == {"norm2/gamma", "norm2/beta"}
    with pytest.raises(ValueError, match="doesn't move 'norm2'.*adapt_batch_norm = False"):
        recon(layers=("norm2",)).check(model())


def test_random_layers_depend_on_the_seed_alone():
    drawn = [recon(control="random", n_layers=2, seed=s).chosen(model()) for s in range(30)]
    again = [recon(control="random", n_layers=2, seed=s).chosen(model()) for s in range(30)]
    assert drawn == again
    assert set(drawn) == {("conv1", "conv2"), ("conv1", "head"), ("conv2", "head")}
    assert recon(control="random", n_layers=3).chosen(model()) == LAYERS


def test_more_random_layers_than_can_move_are_refused():
    still_head = InnerLoop(inner_lr={"conv": 0.1})
    with pytest.raises(ValueError, match="n_layers must be at most the 2 layers.*conv1, conv2"):
        recon(control="random", n_layers=3, inner=still_head).check(model())


def test_an_unknown_layer_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no layer 'conv9'. Its layers are conv1, norm1, conv2"):
        recon(layers=("head", "conv9")).check(model())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "Recon.layers must be listed: see tools/rank_layers.py"),
        ({"layers": "head"}, "Recon.layers must be a tuple of names"),
        ({"layers": ("head", "head")}, "Recon.layers names a layer twice"),
        ({"layers": ("head",), "n_layers": 2}, "must be at most the 1 layers listed"),
        ({"layers": ("head",), "n_layers": 0}, "Recon.n_layers must be at least 1"),
        ({"control": "first"}, "Recon.control must be one of ranked, random"),
        ({"control": "random"}, "Recon.n_layers must be set"),
        ({"control": "random", "n_layers": 1, "layers": ("head",)}, "control = 'ranked' alone"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        recon(**settings)
