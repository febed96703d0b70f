# SPDX-License-Identifier: Apache-2.0
"""After a refusal of any kind, every function still answers another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from tests.serving.exports import task
from tf_lwdgh.serving.functions import IMAGES, NAMES, TASKS
from tf_lwdgh.serving.loaded import load

PATIENCE = 120.0  # seconds: a busy machine answers within them, a taken lock never
REFUSED = (TypeError, ValueError, tf.errors.OpError)


def answered(call: Callable[[], object]) -> object:
    """What a call returns in a thread of its own; fails where it doesn't come back."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert found, "no answer in another thread"
    return found[0]


def encoded(images: np.ndarray) -> np.ndarray:
    return np.array([tf.io.encode_png(image).numpy() for image in images], object)


KINDS = {
    "": lambda images: images,
    "_float": lambda images: (images / 255.0).astype(np.float32),
    "_bytes": encoded,
}
WRONG_DTYPE = {"": np.float32, "_float": np.uint8, "_bytes": np.uint8}


def inputs_of(kind: str, batch: str, classifier: dict) -> dict[str, dict]:
    """Good inputs of each function by its name, by the arguments' names."""
    support, labels, query = task()
    images = {"support_images": KINDS[kind](support), "query_images": KINDS[kind](query)}
    named = {**images, "support_labels": labels, "classifier": classifier}
    if batch:
        named = tf.nest.map_structure(lambda x: np.stack([x]), named)
    taken = {
        "adapt": ("support_images", "support_labels"),
        "predict": ("classifier", "query_images"),
        "adapt_and_predict": ("support_images", "support_labels", "query_images"),
    }
    return {name: {n: named[n] for n in names} for name, names in taken.items()}


def faults(kind: str, batch: str, good: dict) -> dict[str, tuple[tuple, dict]]:
    """Wrong calls (args, kwargs) by what is wrong."""
    values = list(good.values())
    found: dict[str, tuple[tuple, dict]] = {
        "missing": (tuple(values[:-1]), {}),
        "extra": ((*values, 1), {}),
        "misnamed": (tuple(values[:-1]), {"wrong": values[-1]}),
        "none": ((None, *values[1:]), {}),
    }

    def wrong(fault: str, **changes) -> None:
        found[fault] = (tuple({**good, **changes}.values()), {})

    for name in good.keys() - {"classifier"}:
        value = good[name]
        wrong(f"{name} a scalar", **{name: value.ravel()[0]})
        wrong(f"{name} of one axis more", **{name: value[None]})
        wrong(f"{name} of one axis less", **{name: value[0]})
        wrong(f"{name} none", **{name: value[..., :0] if batch else value[:0]})
        wrong(f"{name} ragged", **{name: [[1], [2, 3]]})
        wrong(f"{name} words", **{name: np.full(value.shape, "a")})
        wrong(f"{name} complex", **{name: tf.zeros(value.shape, tf.complex64)})
        if name != "support_labels":
            dtype = tf.as_dtype(WRONG_DTYPE[kind])
            wrong(f"{name} of another dtype", **{name: tf.zeros(value.shape, dtype)})
            channels = np.full(value.shape, b"no image") if kind == "_bytes" else value[..., :1]
            wrong(f"{name} of other content", **{name: channels})
    if "support_labels" in good:
        labels = good["support_labels"]
        one_hot = np.eye(5, dtype=np.int32)[labels]
        for fault, value in {
            "one-hot": one_hot, "fewer": labels[..., :-1], "beyond": labels + 1,
            "negative": labels - 1, "fractions": labels + 0.5, "NaN": labels * np.nan,
            "huge": labels * 1e30, "gaps": labels // 2 * 2, "integer tensor": tf.constant(labels),
        }.items():  # fmt: skip
            wrong(f"labels {fault}", support_labels=value)
    if "classifier" in good:
        classifier = good["classifier"]
        name = sorted(classifier)[0]
        less = {n: x for n, x in classifier.items() if n != name}
        wrong("classifier without a tensor", classifier=less)
        wrong("classifier with one more", classifier={**classifier, "more": np.float32(1)})
        wrong("classifier of scalars", classifier={**classifier, name: np.float32(1)})
        wrong("classifier of words", classifier={**classifier, name: "a"})
        wrong("no classifier", classifier=3)
    return found


@pytest.fixture(scope="module")
def classifier(exported) -> dict[str, np.ndarray]:
    learned = exported["transductive"].loaded.adapt(*task()[:2])
    return {name: tensor.numpy() for name, tensor in learned.items()}


@pytest.mark.parametrize("batch", ["", TASKS])
@pytest.mark.parametrize("kind", IMAGES)
def test_a_refused_call_leaves_every_function_answering(exported, classifier, kind, batch):
    model = exported["transductive"].loaded
    for name, good in inputs_of(kind, batch, classifier).items():
        function = getattr(model, name + batch + kind)
        expected = function(**good)
        for fault, (args, kwargs) in faults(kind, batch, good).items():
            with pytest.raises(REFUSED):
                function(*args, **kwargs)
                pytest.fail(f"{name}{batch}{kind}: {fault} was not refused")
            again = answered(lambda function=function, good=good: function(**good))
            for key in expected:
                np.testing.assert_array_equal(again[key], expected[key])


@pytest.mark.parametrize("name", ["serving_default", *(n + k for n in NAMES for k in IMAGES)])
def test_a_refused_call_of_a_signature_leaves_it_answering(exported, classifier, name):
    signature = exported["transductive"].loaded.signatures[name]
    kind = next((k for k in ("_float", "_bytes") if name.endswith(k)), "")
    base = name.removesuffix(kind).replace("serving_default", "adapt_and_predict")
    named = inputs_of(kind, "", classifier)[base]
    good = {**named.pop("classifier", {}), **named}
    end = "_bytes" if kind == "_bytes" else ""
    good = {n + end if n.endswith("_images") else n: x for n, x in good.items()}
    expected = signature(**good)
    for key, value in good.items():
        less = {n: x for n, x in good.items() if n != key}
        wrong = [less, {**less, f"{key}_": value}, {**good, "more": value}]
        wrong += [{**good, key: np.asarray(value)[None]}, {**good, key: [[1], [2, 3]]}]
        tensors = {n: tf.constant(x, signature.structured_input_signature[1][n].dtype) for n, x in good.items()}
        wrong += [
            {**tensors, key: tf.zeros([], tensors[key].dtype)},
            {**tensors, key: tf.zeros([3], tf.complex64)},
        ]
        for inputs in wrong:
            with pytest.raises(REFUSED):
                signature(**inputs)
            again = answered(lambda: signature(**good))
            np.testing.assert_array_equal(list(again.values())[0], list(expected.values())[0])


def test_many_threads_ask_at_once_while_some_are_refused(exported):
    model, (support, labels, query) = exported["inductive"].loaded, task()
    expected = model.adapt_and_predict(support, labels, query)["probabilities"].numpy()
    wrong = (labels[:4], labels[0], labels + 0.5, np.eye(5)[labels])
    found: list[np.ndarray] = []

    def ask(i: int) -> None:
        with pytest.raises(REFUSED):
            model.adapt_and_predict(support, wrong[i % len(wrong)], query)
        found.append(model.adapt_and_predict(support, labels, query)["probabilities"].numpy())

    threads = [threading.Thread(target=ask, args=(i,), daemon=True) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(found) == 8
    for answer in found:
        np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize("batch", ["", TASKS])
@pytest.mark.parametrize("kind", IMAGES)
def test_what_load_gives_refuses_in_words_and_goes_on(exported, classifier, kind, batch):
    model = load(exported["transductive"].path)
    for name, good in inputs_of(kind, batch, classifier).items():
        method = getattr(model, name)
        expected = method(**good)
        skipped = (
            "missing",
            "extra",
            "misnamed",
            "labels integer tensor",
        )  # Python's, or legal here
        also = ("support_images of one axis", "query_images of one axis", "of another dtype")
        for fault, (args, _) in faults(kind, batch, good).items():
            if fault in skipped or any(a in fault for a in also):
                continue
            with pytest.raises(ValueError) as caught:
                method(*args)
            assert "Graph execution" not in str(caught.value), fault
        again = answered(lambda method=method, good=good: method(**good))
        for key in expected:
            np.testing.assert_array_equal(again[key], expected[key])
