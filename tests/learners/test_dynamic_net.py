# SPDX-License-Identifier: Apache-2.0
"""DynamicNet against its equation in NumPy, and what its training task is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from tests.learners import tiny_tasks
from tests.learners.tiny_tasks import features
from tf_lwdgh.learners import DynamicNet

N_CLASSES = tiny_tasks.N_CLASSES
LEARNER = DynamicNet(n_classes=N_CLASSES, novel_ways=2, base_ways=1)
NETWORK = {"fused": False, "blocks": 1}


def unit(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return x / np.linalg.norm(x, axis=axis, keepdims=True)


def made(own: dict, z: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """The weight of one class of features z [K, D], by the training classes in `memory`."""
    z = unit(z)
    sharp = own["sharpness"] * unit(z @ own["memory/query"]) @ unit(own["memory/keys"][memory]).T
    base = unit(own["classifier/kernel"], 0).T[memory]
    recalled = special.softmax(sharp, axis=1) @ base
    return own["weights/average"] * z.mean(0) + own["weights/attention"] * recalled.mean(0)


def at(meta) -> dict[str, np.ndarray]:
    return {name: v.numpy() for name, v in meta.own.items()}


def test_at_test_all_training_classes_are_the_memory():
    params, one = tiny_tasks.parameters(LEARNER, **NETWORK), tiny_tasks.task(tiny_tasks.episodes())
    meta, told = tiny_tasks.perturbed(params), tiny_tasks.context(params, training=False)
    adapted = LEARNER.adapt(told, meta, one.support_images, one.support_labels)
    z, labels = features(params, meta, one.support_images), one.support_labels.numpy()
    expected = [made(at(meta), z[labels == k], np.arange(N_CLASSES)) for k in range(3)]
    np.testing.assert_allclose(adapted.weights, expected, rtol=1e-9)
    logits, _ = LEARNER.predict(told, meta, adapted, one.query_images)
    queries = unit(features(params, meta, one.query_images))
    cosines = queries @ unit(np.array(expected)).T
    np.testing.assert_allclose(logits, meta.own["scale"].numpy() * cosines, rtol=1e-9)


def test_without_attention_and_with_one_shot_the_nearest_image_by_cosine_decides():
    params = tiny_tasks.parameters(LEARNER, **NETWORK)
    one, meta = tiny_tasks.task(tiny_tasks.episodes(k_shot=1, n_query=5)), params.values()
    meta = meta._replace(own={**meta.own, "weights/attention": 0 * meta.own["weights/attention"]})
    told = tiny_tasks.context(params, training=False)
    adapted = LEARNER.adapt(told, meta, one.support_images, one.support_labels)
    logits, _ = LEARNER.predict(told, meta, adapted, one.query_images)
    z, queries = (unit(features(params, meta, x)) for x in (one.support_images, one.query_images))
    np.testing.assert_array_equal(logits.numpy().argmax(1), (queries @ z.T).argmax(1))


def test_in_training_the_classes_that_play_new_ones_leave_the_base():
    params, one = tiny_tasks.parameters(LEARNER, **NETWORK), tiny_tasks.task(tiny_tasks.episodes())
    meta = tiny_tasks.perturbed(params)
    found = LEARNER.objective(tiny_tasks.context(params), meta, one)
    own, ids = at(meta), one.class_ids.numpy()
    stay = np.array([c for c in range(N_CLASSES) if c not in ids[:2]])
    z, labels = features(params, meta, one.support_images), one.support_labels.numpy()
    new = [made(own, z[labels == k], stay) for k in range(2)]
    # The task's own base class comes first of those that stay.
    order = [ids[2], *(c for c in stay if c != ids[2])]
    weights = np.vstack([new, own["classifier/kernel"].T[order]])
    queries = features(params, meta, one.query_images)
    logits = own["scale"] * unit(queries) @ unit(weights).T
    np.testing.assert_allclose(found.logits, logits, rtol=1e-8)
    right = special.log_softmax(logits, axis=1)[np.arange(len(queries)), one.query_labels.numpy()]
    np.testing.assert_allclose(found.loss, -right.mean(), rtol=1e-9)
    assert found.logits.shape == (len(queries), N_CLASSES)


def test_the_network_stays_and_its_averages_too():
    learner = DynamicNet(n_classes=N_CLASSES, novel_ways=2, base_ways=1, batch_norm="global")
    step = tiny_tasks.meta_step(learner, **NETWORK)
    before = [v.numpy().copy() for v in step.parameters.model.keras_model.variables]
    tiny_tasks.losses_while_training(step, tiny_tasks.episodes(), 2)
    for b, v in zip(before, step.parameters.model.keras_model.variables):
        np.testing.assert_array_equal(b, v.numpy())
    assert set(step.parameters.names) == set(step.parameters.own)


def test_its_training_tasks_have_classes_of_both_kinds():
    assert DynamicNet().training_shape(64, 600) == {"n_way": 10}
    assert DynamicNet().for_classes(64).n_classes == 64
    with pytest.raises(ValueError, match="DynamicNet.n_classes must be that of the training classes, 64"):
        DynamicNet(n_classes=5).for_classes(64)


@pytest.mark.parametrize(
    ("name", "value"), [("n_classes", 1), ("novel_ways", 0), ("base_ways", 0), ("scale", 0.0), ("sharpness", -1.0)]
)
def test_settings_out_of_range_name_their_binding(name, value):
    with pytest.raises(ValueError, match=f"DynamicNet.{name} must be"):
        DynamicNet(**{name: value})
