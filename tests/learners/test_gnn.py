# SPDX-License-Identifier: Apache-2.0
"""The graph network: its size, its edges, and what its answers depend on."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.learners import tiny_tasks
from tests.learners.tiny_tasks import answers
from tf_lwdgh.learners import GNN
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.encoders import gnn_encoder
from tf_lwdgh.networks.graph_network import Edges

SMALL = {"hidden": (4, 3), "growth": 2}


def reversed_support(one):
    return one._replace(support_images=one.support_images[::-1], support_labels=one.support_labels[::-1])


def test_sizes_are_the_authors():
    keras.utils.set_random_seed(0)
    params = MetaParameters(gnn_encoder(), GNN())
    own = sum(int(np.prod(v.shape)) for v in params.own.values())
    total = sum(int(np.prod(v.shape)) for v in params.variables_trained)
    assert (own, total - own) == (335_994, 1_283_200)


def test_edges_sum_to_one_and_lead_to_others():
    scores = tf.random.stateless_normal([2, 4, 4, 1], [1, 2], dtype=tf.float64)
    found = Edges(dtype="float64")(scores).numpy()
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-12)
    assert (np.diagonal(found, axis1=1, axis2=2) == 0).all()
    e = np.exp(scores.numpy()[0, 1, :, 0])
    np.testing.assert_allclose(found[0, 1, 0], e[0] / (e[0] + e[2] + e[3]), rtol=1e-9)


def forward(own: dict, x: np.ndarray) -> np.ndarray:
    """The graph network by its equations: graphs [B, M, F] -> logits of the last node."""

    def dense(x, name):
        return x @ own[f"graph/{name}/kernel"] + own[f"graph/{name}/bias"]

    def norm(x, name):
        axes = tuple(range(x.ndim - 1))
        mean, variance = x.mean(axes), x.var(axes)
        z = (x - mean) / np.sqrt(variance + 1e-5)
        return z * own[f"graph/{name}/gamma"] + own[f"graph/{name}/beta"]

    def leaky(x):
        return np.where(x > 0, x, 0.01 * x)

    def gathered(x, name):
        a = np.abs(x[:, :, None] - x[:, None])
        for k in (1, 2):
            a = leaky(norm(dense(a, f"{name}_dense{k}"), f"{name}_norm{k}"))
        e = np.exp(dense(a, f"{name}_score")[..., 0])
        e *= 1 - np.eye(x.shape[1])
        return np.concatenate([x, e / e.sum(-1, keepdims=True) @ x], -1)

    for i in (1, 2):
        new = leaky(norm(dense(gathered(x, f"edges{i}"), f"round{i}"), f"round{i}_norm"))
        x = np.concatenate([x, new], -1)
    return dense(gathered(x, "edges3")[:, -1], "logits")


@pytest.mark.parametrize(("unknown", "label"), [("zero", 0.0), ("uniform", 1 / 3)])
def test_logits_are_the_equations(unknown, label):
    one = tiny_tasks.task(tiny_tasks.episodes())
    params = tiny_tasks.parameters(GNN(unknown=unknown, **SMALL))
    meta = tiny_tasks.perturbed(params)
    own = {name: v.numpy() for name, v in meta.own.items()}
    features = functools.partial(tiny_tasks.features, params, meta)
    known = np.hstack([features(one.support_images), np.eye(3)[one.support_labels]])
    queries = features(one.query_images)
    asked = np.hstack([queries, np.full([len(queries), 3], label)])
    graphs = np.stack([np.vstack([known, q]) for q in asked])
    np.testing.assert_allclose(answers(params, meta, one), forward(own, graphs), rtol=1e-8)


@pytest.mark.parametrize("batch_norm", ["transductive", "inductive", "global"])
def test_the_order_of_the_support_set_moves_no_logit(batch_norm):
    one = tiny_tasks.task(tiny_tasks.episodes())
    params = tiny_tasks.parameters(GNN(batch_norm=batch_norm, **SMALL))
    meta = tiny_tasks.perturbed(params)
    found = answers(params, meta, reversed_support(one))
    np.testing.assert_allclose(found, answers(params, meta, one), rtol=1e-8)


@pytest.mark.parametrize(("name", "value"), [("hidden", ()), ("growth", 0), ("unknown", "x"), ("dropout", 1.0)])
def test_settings_out_of_range_name_their_binding(name, value):
    with pytest.raises(ValueError, match=rf"GNN\.{name} must"):
        GNN(**{name: value})
