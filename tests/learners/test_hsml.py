# SPDX-License-Identifier: Apache-2.0
"""HSML: its representation, tree and gates against NumPy, MAML where the gates are open, orders, sizes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.learners import tiny_tasks
from tests.learners.numpy_lstm import sigmoid
from tf_lwdgh.learners import HSML, MAML
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.learners.shuffles import rounds
from tf_lwdgh.networks.backbones import convnet4
from tf_lwdgh.networks.layers.local_response import LocalResponseNormalization

LOOP, BATCH = InnerLoop(steps=2, inner_lr=0.1), tiny_tasks.episodes()
SMALL = {"width": 6, "embedding": (3, 5, 4), "inner_loop": LOOP}


# The same in NumPy.


def convolved(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """SAME, stride 1, then ReLU: [B, H, W, C], [5, 5, C, D]."""
    padded, (_, height, width, _) = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))), x.shape
    parts = (padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(5) for j in range(5))
    return np.maximum(sum(parts), 0)


def pooled(x: np.ndarray) -> np.ndarray:
    """The largest of 3×3, every second, of an even size: SAME pads below and to the right."""
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
    height, width = x.shape[1:3]
    windows = [padded[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)]
    return np.max(windows, 0)


def normalised(x: np.ndarray, radius: int = 4) -> np.ndarray:
    y = np.empty_like(x)
    for c in range(x.shape[-1]):
        near = x[..., max(c - radius, 0) : c + radius + 1]
        y[..., c] = x[..., c] / (1 + 0.001 / 9 * (near**2).sum(-1)) ** 0.75
    return y


class Written:
    """HSML's parts by their parameters."""

    def __init__(self, meta):
        self.own = {name: value.numpy() for name, value in meta.own.items()}

    def dense(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.own[f"{name}/kernel"] + self.own[f"{name}/bias"]

    def pairs(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        x = normalised(pooled(convolved(images, self.own["embedding/conv1/kernel"])))
        x = pooled(normalised(convolved(x, self.own["embedding/conv2/kernel"])))
        for layer in ("dense1", "dense2"):
            x = np.maximum(self.dense(f"embedding/{layer}", x.reshape(len(x), -1)), 0)
        return np.concatenate([x, np.eye(tiny_tasks.N_WAY)[labels]], 1)

    def gru(self, part: str, x: np.ndarray, h: np.ndarray) -> np.ndarray:
        reset, update = np.split(sigmoid(self.dense(f"{part}/gates", np.append(x, h))), 2)
        new = np.tanh(self.dense(f"{part}/candidate", np.append(x, reset * h)))
        return update * h + (1 - update) * new

    def recurrent(self, pairs: np.ndarray) -> tuple[np.ndarray, float]:
        states, said = [np.zeros(6)], [np.zeros(pairs.shape[1])]
        for u in pairs:
            states.append(self.gru("encoder", u, states[-1]))
        h = states[-1]
        for _ in pairs:
            h = self.gru("decoder", said[-1], h)
            said.append(self.dense("output/dense", h))
        return np.mean(states[1:], 0), np.mean((pairs - np.array(said[:0:-1])) ** 2)

    def mean(self, pairs: np.ndarray) -> tuple[np.ndarray, float]:
        def through(part: str, x: np.ndarray) -> np.ndarray:
            return self.dense(f"{part}/dense2", np.maximum(self.dense(f"{part}/dense1", x), 0))

        each = np.maximum(through("encoder", pairs), 0)
        z = np.maximum(self.dense("pooled/dense1", each.mean(0)), 0)
        return z, np.mean((pairs - through("decoder", each)) ** 2) / 2

    def tree(self, z: np.ndarray, distance: bool) -> np.ndarray:
        def at(level: int, name: str) -> np.ndarray:
            return self.own[f"tree/level{level}/{name}"]

        p = np.exp(-((z - at(1, "centres")) ** 2).sum(1) / 20)
        leaves = [
            share * np.tanh(z @ kernel + bias)
            for share, kernel, bias in zip(p / p.sum(), at(1, "kernel"), at(1, "bias"))
        ]
        branches = np.zeros((2, 6))
        for h in leaves:
            a, b = at(2, "gate_kernel"), at(2, "gate_bias")[:, 0]
            q = np.exp(-(((h - a) ** 2).sum(1) + b) / 2 if distance else a @ h + b)
            for j in range(2):
                candidate = np.tanh(h @ at(2, "kernel")[j] + at(2, "bias")[j])
                branches[j] += q[j] / q.sum() * candidate
        return np.tanh(self.dense("tree/root", branches)).sum(0)


@pytest.fixture
def eagerly():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def made(fused=False, **settings):
    learner = HSML(**{**SMALL, **settings})
    params = tiny_tasks.parameters(learner, fused=fused)
    return learner, params, tiny_tasks.perturbed(params, scale=0.2), tiny_tasks.context(params)


@pytest.mark.parametrize("distance", [False, True])
@pytest.mark.parametrize("aggregation", ["recurrent", "mean"])
def test_a_task_starts_from_what_tree_and_gates_make_of_it(aggregation, distance, eagerly):
    assignment = "distance" if distance else "linear"
    learner, params, meta, told = made(aggregation=aggregation, assignment=assignment)
    one, theirs = tiny_tasks.task(BATCH), Written(meta)
    images, labels = one.support_images.numpy(), one.support_labels.numpy()
    order = rounds(one.support_labels, told.key).numpy()
    assert (order != np.arange(len(order))).any()
    task = learner.represent(told, meta, one.support_images, one.support_labels)
    z, error = getattr(theirs, aggregation)(theirs.pairs(images, labels)[order])
    np.testing.assert_allclose(task.z[0], z, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(task.error, error, rtol=1e-9)
    both = np.append(z, theirs.tree(z, distance))
    moved = learner.gated(told, meta, task.z).network
    for name, before, after in zip(params.model.names, meta.network, moved, strict=True):
        layer = f"gates/{name.replace('/', '_')}"
        if f"{layer}/kernel" in theirs.own:
            gate = sigmoid(theirs.dense(layer, both)).reshape(before.shape)
            np.testing.assert_allclose(after, before * gate, rtol=1e-9)
        else:  # BatchNorm's, and the biases that it cancels
            assert name[:4] in ("norm", "conv") and not name.endswith("kernel")
            np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("radius", [0, 2, 9])
def test_the_local_response_is_tensorflows(radius):
    x = tf.random.stateless_normal([2, 3, 3, 7], [1, 2])
    ours = LocalResponseNormalization(radius, 1.5, 0.3, 0.75)(x)
    np.testing.assert_allclose(ours, tf.nn.lrn(x, radius, 1.5, 0.3, 0.75), rtol=1e-5)


def test_soft_assignments_sum_to_one():
    _, params, _, _ = made(clusters=(4, 3, 2))
    levels = {layer.name: layer for layer in params.model.parts["tree"]._keras_model.layers}
    z = tf.random.stateless_normal([1, 6], [0, 1], dtype=tf.float64)
    p = levels["level1"].shares(z)
    assert p.shape == (4, 1) and tf.reduce_sum(p).numpy() == pytest.approx(1)
    h = levels["level1"](z)
    for name, nodes in (("level2", 3), ("level3", 2)):
        q = levels[name].shares(h)
        assert q.shape == (len(h), nodes)
        np.testing.assert_allclose(tf.reduce_sum(q, 1), 1, rtol=1e-12)
        h = levels[name](h)
    assert h.shape == (2, 6)


def test_with_open_gates_it_is_maml(eagerly):
    _, params, meta, _ = made(reconstruction_weight=0.0)
    own = dict(meta.own)
    for name, value in own.items():
        if name.startswith("gates/"):
            own[name] = tf.fill(value.shape, tf.cast(50.0 if name.endswith("bias") else 0.0, tf.float64))
    ours = tiny_tasks.outcome(params, BATCH, meta._replace(own=own))
    maml = tiny_tasks.parameters(MAML(inner_loop=LOOP), fused=False)
    theirs = tiny_tasks.outcome(maml, BATCH, maml.replaced(maml.values(), meta.network))
    count = len(theirs.gradients)
    tiny_tasks.assert_same_gradients(ours._replace(gradients=ours.gradients[:count]), theirs)


@pytest.mark.parametrize("aggregation", ["recurrent", "mean"])
def test_the_order_of_the_support_set_matters_to_the_recurrent_one_alone(aggregation, eagerly):
    learner, _, meta, told = made(aggregation=aggregation)
    one = tiny_tasks.task(BATCH)
    back = one.support_images[::-1], one.support_labels[::-1]
    keys = [told, told._replace(key=tf.constant([7, 9], tf.int64))]
    task, turned = (learner.represent(told, meta, *x) for x in (one[:2], back))
    redrawn = learner.represent(keys[1], meta, *one[:2])
    for other in (turned, redrawn):
        apart = np.abs(task.z - other.z).max()
        assert apart > 1e-4 if aggregation == "recurrent" else apart < 1e-12
    again = learner.represent(keys[0], meta, *one[:2])
    np.testing.assert_array_equal(task.z, again.z)


def test_the_first_images_of_an_order_by_turns_make_z(eagerly):
    learner, _, meta, told = made(aggregation="mean", embedded=3)
    one = tiny_tasks.task(tiny_tasks.episodes(k_shot=4))
    chosen = rounds(one.support_labels, told.key)[:3]
    assert sorted(tf.gather(one.support_labels, chosen).numpy()) == [0, 1, 2]
    few = (tf.gather(x, chosen) for x in one[:2])
    ours = learner.represent(told, meta, *one[:2])
    theirs = dataclasses.replace(learner, embedded=None).represent(told, meta, *few)
    np.testing.assert_allclose(ours.z, theirs.z, rtol=1e-12)


def test_a_support_set_of_unknown_size_is_read_alike(eagerly):
    learner, _, meta, told = made()
    one, told = tiny_tasks.task(BATCH), told._replace(training=False)
    expected = learner.represent(told, meta, *one[:2]).z
    tf.config.run_functions_eagerly(False)
    specs = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in one[:2]]
    run = tf.function(lambda *x: learner.represent(told, meta, *x).z, input_signature=specs)
    np.testing.assert_allclose(run(*one[:2]), expected, rtol=1e-10)


def test_orders_by_turns_are_permutations_drawn_by_the_key():
    labels = tf.constant([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    seen = set()
    for k in range(20):
        order = rounds(labels, tf.constant([k, 3], tf.int64)).numpy()
        assert sorted(order) == list(range(10))
        turns = labels.numpy()[order]
        assert sorted(turns[:3]) == sorted(turns[3:6]) == [0, 1, 2] and turns[9] == 0
        seen.add(tuple(order))
    assert len(seen) == 20


def test_recomputed_steps_give_the_same_gradients(eagerly):
    stored = HSML(**SMALL)
    again = HSML(**{**SMALL, "inner_loop": dataclasses.replace(LOOP, memory="recompute")})
    theirs = tiny_tasks.perturbed_outcome(stored, fused=False)
    tiny_tasks.assert_same_gradients(tiny_tasks.perturbed_outcome(again, fused=False), theirs)


def test_its_weights_are_those_of_the_authors_but_for_the_gates_of_cancelled_biases():
    params = MetaParameters(convnet4(image_size=84, filters=32), HSML())

    def count(part: str) -> int:
        return sum(int(np.prod(v.shape)) for n, v in params.own.items() if n.startswith(part + "/"))

    # 257 weights for every weight with a gate: of 32,645, 128 are biases in front of BatchNorm.
    assert count("gates") == 257 * (32_645 - 128)
    gru = 2 * 128 * (69 + 128 + 1) + 128 * (69 + 128 + 1)
    assert count("encoder") == count("decoder") == gru
    assert count("output") == 69 * 129
    assert count("tree") == 4 * (128 * 128 + 2 * 128) + 2 * (128 * 128 + 2 * 128 + 1) + 129 * 128
    pixels = 21 * 21 * 32
    assert count("embedding") == 25 * 3 * 32 + 25 * 32 * 32 + (pixels + 1) * 384 + 385 * 64
    mean = MetaParameters(convnet4(image_size=28, channels=1), HSML(aggregation="mean"))
    assert {n.split("/")[0] for n in mean.own} == {
        "embedding", "encoder", "decoder", "pooled", "tree", "gates"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "bad"),
    [
        ("aggregation", "max"),
        ("assignment", "hard"),
        ("width", 0),
        ("embedding", (32, 64)),
        ("clusters", ()),
        ("variance", 0.0),
        ("reconstruction_weight", -1.0),
        ("embedded", 0),
    ],
)
def test_settings_out_of_range_are_refused(setting, bad):
    with pytest.raises(ValueError, match=f"HSML.{setting} must be"):
        HSML(**{setting: bad})
