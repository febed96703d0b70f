# SPDX-License-Identifier: Apache-2.0
"""A learned classifier can be kept: the same bits later as in one call, and clear refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.serving.exports import CASES, SIZE, task


def keep(classifier: dict, path) -> dict[str, np.ndarray]:
    """A classifier after a stay on disk."""
    np.savez(path, **classifier)
    with np.load(path) as file:
        return dict(file)


def same_bits(a, b) -> None:
    assert set(a) == set(b) == {"probabilities", "labels"}
    for name in a:
        x, y = np.asarray(a[name]), np.asarray(b[name])
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert x.tobytes() == y.tobytes()


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.slow] * (c == "residual")) for c in CASES])
def test_a_kept_classifier_gives_the_bits_of_one_call(exported, case, tmp_path):
    model, (support, labels, query) = exported[case].loaded, task()
    whole = model.adapt_and_predict(support, labels, query)
    classifier = model.adapt(support, labels)
    same_bits(model.predict(classifier, query), whole)
    same_bits(model.predict(keep(classifier, tmp_path / "classifier.npz"), query), whole)


def test_the_signatures_hand_a_classifier_on_by_its_names(exported):
    model, (support, labels, query) = exported["inductive"].loaded, task(n_way=6)
    whole = model.adapt_and_predict(support, labels, query)
    tensor = tf.constant(labels, tf.int32)
    signatures = model.signatures
    classifier = signatures["adapt"](support_images=tf.constant(support), support_labels=tensor)
    same_bits(signatures["predict"](query_images=tf.constant(query), **classifier), whole)
    floats = [tf.constant((x / 255.0).astype(np.float32)) for x in (support, query)]
    classifier = signatures["adapt_float"](support_images=floats[0], support_labels=tensor)
    answer = signatures["predict_float"](query_images=floats[1], **classifier)
    same_bits(answer, model.adapt_and_predict_float(floats[0], labels, floats[1]))
    same_bits(answer, model.predict_float(model.adapt_float(floats[0], labels), floats[1]))


def test_one_classifier_answers_batch_after_batch(exported):
    model, (support, labels, query) = exported["inductive"].loaded, task(n_query=8)
    classifier = model.adapt(support, labels)
    together = model.predict(classifier, query)["probabilities"]
    for i in range(8):
        alone = model.predict(classifier, query[i : i + 1])["probabilities"]
        np.testing.assert_allclose(alone, together[i : i + 1], rtol=1e-3, atol=1e-5)


def test_the_metadata_name_the_tensors_of_a_classifier(exported):
    model = exported["inductive"].loaded
    told = json.loads(model.signatures["metadata"]()["json"].numpy())["classifier"]
    names = {"n_way", "params_conv1_kernel", "params_head_bias", "state_norm1_moving_mean"}
    assert names <= set(told)
    assert told["params_conv1_kernel"] == {"dtype": "float32", "shape": [3, 3, 3, 8]}
    assert told["params_head_kernel"] == {"dtype": "float32", "shape": [128, "n_way"]}
    assert told["n_way"] == {"dtype": "int32", "shape": []}
    classifier = model.adapt(*task(n_way=3)[:2])
    assert classifier["n_way"].numpy() == 3
    for name, about in told.items():
        shape = [3 if size == "n_way" else size for size in about["shape"]]
        assert classifier[name].shape.as_list() == shape
        assert classifier[name].dtype.name == about["dtype"]
    assert set(classifier) == set(told)


@pytest.fixture(scope="module")
def learned(exported) -> dict[str, np.ndarray]:
    """A classifier of 5 ways."""
    return {k: v.numpy() for k, v in exported["transductive"].loaded.adapt(*task()[:2]).items()}


REFUSALS = {
    "another width": ("params_conv2_kernel", lambda x: x[..., 1:], r"\[3, 3, 8, 8\].*\[3 3 8 7\]"),
    "another rank": ("params_norm1_beta", lambda x: x[None], r"shape \[8\]. Received: \[1 8\]"),
    "a scalar": ("params_norm1_beta", lambda x: x[0], r"shape \[8\]. Received: \[\]"),
    # NumPy's rules would spread one way over all of them.
    "another task's": ("params_head_kernel", lambda x: x[:, :1], r"\[128, n_way\]. Received: \[128 1\]"),  # fmt: skip
    "other ways": ("n_way", lambda x: x - 2, r"params_head_\w+ must have shape \[.*n_way\]"),
    "many ways": ("n_way", lambda x: np.int32([5]), r"n_way must have shape \[\]. Received: \[1\]"),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_a_tensor_of_a_wrong_shape_is_refused_by_its_name(exported, learned, fault):
    name, change, message = REFUSALS[fault]
    wrong = {**learned, name: np.asarray(change(learned[name]))}
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"classifier: .*{message}"):
        exported["transductive"].loaded.predict(wrong, task()[2])


def test_wrong_names_are_refused_with_the_right_ones(exported, learned):
    model, query = exported["transductive"].loaded, task()[2]
    without = {k: v for k, v in learned.items() if k != "params_head_bias"}
    for wrong in (without, {**learned, "more": np.float32(1)}):
        with pytest.raises(TypeError, match="(?s)different keys .*'params_head_bias'"):
            model.predict(wrong, query)
    signature = model.signatures["predict"]
    tensors = {k: tf.constant(v) for k, v in without.items()}
    with pytest.raises(TypeError, match="missing a required argument: 'params_head_bias'"):
        signature(query_images=tf.constant(query), **tensors)


IMAGES = np.zeros((2, SIZE, SIZE, 3), np.uint8)
WRONG_QUERIES = {
    "none": (IMAGES[:0], "query_images: there must be at least one"),
    "size": (IMAGES[:, :9], r"query_images.*\[any, 16, 16, 3\].*\[2 9 16 3\]"),
    "floats as uint8": (IMAGES + 1.0, "pass float images in .* name ends in _float"),
}


@pytest.mark.parametrize("fault", WRONG_QUERIES)
def test_wrong_queries_are_refused(exported, learned, fault):
    images, message = WRONG_QUERIES[fault]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        exported["transductive"].loaded.predict(learned, images)


def test_wrong_support_sets_are_refused(exported):
    model, (support, labels, _) = exported["transductive"].loaded, task()
    for wrong, message in (
        ((support, labels + 1), r"head has 5 ways, 0\.\.4"),
        ((support, labels[:4]), r"of one length.*\[10 4\]"),
        ((support / 255.0, labels), "name ends in _float"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            model.adapt(*wrong)
    with pytest.raises(tf.errors.InvalidArgumentError, match="as uint8 to the function without"):
        model.adapt_float(support.astype(np.float32), labels)


def test_a_classifier_that_diverged_is_told_when_it_answers(exported, learned):
    wrong = {**learned, "params_head_bias": learned["params_head_bias"] * np.nan}
    with pytest.raises(tf.errors.InvalidArgumentError, match="diverged, some logits are NaN"):
        exported["transductive"].loaded.predict(wrong, task()[2])
