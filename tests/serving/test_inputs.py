# SPDX-License-Identifier: Apache-2.0
"""Besides uint8 images of one task: encoded images, batches of tasks, many queries."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.serving.exports import SIZE, close, task
from tests.serving.test_threads import encoded
from tf_lwdgh.data.images import decode
from tf_lwdgh.serving import graphs
from tf_lwdgh.serving.loaded import load


def test_encoded_images_of_the_models_size_give_the_bits_of_their_pixels(exported):
    model, (support, labels, query) = exported["inductive"].loaded, task()
    whole = model.adapt_and_predict(support, labels, query)["probabilities"]
    from_png = model.adapt_and_predict_bytes(encoded(support), labels, encoded(query))
    np.testing.assert_array_equal(from_png["probabilities"], whole)


def test_encoded_images_of_any_size_and_format_are_resized_as_in_training(exported):
    export, (_, labels, _) = exported["inductive"], task()
    random = np.random.default_rng(1)
    sizes = random.integers(9, 40, (len(labels), 2))
    pictures = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    grey = random.integers(0, 256, (30, 20, 1), np.uint8)
    support = np.array([tf.io.encode_jpeg(p).numpy() for p in pictures], object)
    query = np.array([tf.io.encode_png(grey).numpy(), support[3]], object)
    pixels = [decode(tf.constant(x), export.images).numpy() for x in (support, query)]
    expected = export.in_process(pixels[0], labels, pixels[1])
    close(export.loaded.adapt_and_predict_bytes(support, labels, query)["probabilities"], expected)
    signature = export.loaded.signatures["adapt_and_predict_bytes"]
    answer = signature(
        support_images_bytes=tf.constant(support),
        support_labels=tf.constant(labels, tf.int32),
        query_images_bytes=tf.constant(query),
    )
    close(answer["probabilities"], expected)


def test_a_batch_of_tasks_gives_the_bits_of_each_task_alone(exported):
    model, tasks = exported["inductive"].loaded, [task(n_way=3, seed=seed) for seed in range(5)]
    stacked = [np.stack(parts) for parts in zip(*tasks)]
    whole = model.adapt_and_predict_tasks(*stacked)
    classifiers = model.adapt_tasks(*stacked[:2])
    later = model.predict_tasks(classifiers, stacked[2])
    for i, one in enumerate(tasks):
        alone = model.adapt_and_predict(*one)
        for key in alone:
            np.testing.assert_array_equal(whole[key][i], alone[key])
            np.testing.assert_array_equal(later[key][i], alone[key])
        learned = model.adapt(*one[:2])
        for name in learned:
            np.testing.assert_array_equal(classifiers[name][i], learned[name])


def test_tasks_of_several_ways_in_a_batch_are_refused(exported):
    model, (support, labels, query) = exported["inductive"].loaded, task(n_way=4)
    several = np.stack([labels, labels // 2])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"same number of ways.*\[4 2\]"):
        model.adapt_and_predict_tasks(np.stack([support] * 2), several, np.stack([query] * 2))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"as many tasks\. Received: \[2 1\]"):
        model.adapt_and_predict_tasks(np.stack([support] * 2), np.stack([labels] * 2), query[None])


@pytest.mark.parametrize("n_query", [graphs.CHUNK, 2 * graphs.CHUNK + 1])
def test_many_queries_are_answered_as_they_are_all_at_once(exported, n_query):
    export, (support, labels, query) = exported["inductive"], task(n_query=n_query)
    answer = export.loaded.adapt_and_predict(support, labels, query)
    assert answer["labels"].shape == (n_query,)
    close(answer["probabilities"], export.in_process(support, labels, query))


def test_queries_that_depend_on_each_other_are_answered_together_or_not_at_all(exported):
    export, (support, labels, query) = exported["transductive"], task(n_query=300)
    close(
        export.loaded.adapt_and_predict(support, labels, query)["probabilities"],
        export.in_process(support, labels, query),
    )
    told = json.loads(export.loaded.signatures["metadata"]()["json"].numpy())
    assert told["most_queries_in_a_call"] == graphs.MOST_TOGETHER
    many = np.resize(query, (graphs.MOST_TOGETHER + 1, *query.shape[1:]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 1000 queries.*Received: 1001"):
        export.loaded.adapt_and_predict(support, labels, many)


def test_a_black_query_is_an_image(exported):
    export, (support, labels, query) = exported["inductive"], task(n_query=1)
    black = np.zeros_like(query)
    answer = export.loaded.adapt_and_predict(support, labels, black)["probabilities"]
    close(answer, export.in_process(support, labels, black))
    support[3] = 0  # and one of the support set may be black too
    answer = export.loaded.adapt_and_predict(support, labels, query)["probabilities"]
    close(answer, export.in_process(support, labels, query))


def test_what_load_gives_takes_arrays_lists_tensors_and_bytes(exported):
    export, (support, labels, query) = exported["inductive"], task()
    model = load(export.path)
    assert model.metadata["step"] == 7
    expected = export.loaded.adapt_and_predict(support, labels, query)
    classifier = model.adapt(support, list(labels))
    assert all(isinstance(x, np.ndarray) for x in classifier.values())
    answers = [
        model.predict(classifier, query),
        model.adapt_and_predict(tf.constant(support), tf.constant(labels), tf.constant(query)),
        model.adapt_and_predict(support, labels.astype(float), query),
        model.adapt_and_predict(list(encoded(support)), labels, list(encoded(query))),
        {k: v[0] for k, v in model.adapt_and_predict(support[None], labels[None], query[None]).items()},
    ]
    for answer in answers:
        for key in expected:
            np.testing.assert_array_equal(answer[key], expected[key])
    close(
        model.adapt_and_predict(support / 255, labels, query / 255)["probabilities"],
        expected["probabilities"],
    )


def test_a_bitmap_that_ends_in_black_is_whole(exported):
    export, (support, labels, query) = exported["inductive"], task()
    query[:, 0] = 0  # a bitmap's rows go upwards
    bitmaps = []
    for image in query:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "BMP")
        bitmaps.append(buffer.getvalue())
    assert bitmaps[0].endswith(b"\0\0")
    model = load(export.path)
    classifier = model.adapt(support, labels)
    expected = model.predict(classifier, query)["probabilities"]
    for given in (bitmaps, np.array(bitmaps, object)):
        np.testing.assert_array_equal(model.predict(classifier, given)["probabilities"], expected)


def test_what_is_no_export_is_not_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match="a folder that tf_lwdgh.export wrote. Received: '"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, SIZE, SIZE, 3), np.int64), r"encoded images as bytes. Received: int64 of"),
        ([b"no image"], "Unknown image file format"),
        (["a"], "encoded images as bytes"),
        (np.full((1, SIZE, SIZE, 3), np.nan), "every value must be finite"),
    ],
)
def test_what_load_gives_says_what_is_wrong_with_images(exported, images, message):
    model, (support, labels, _) = load(exported["inductive"].path), task()
    with pytest.raises(ValueError, match=message):
        model.predict(model.adapt(support, labels), images)
