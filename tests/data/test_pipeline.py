# SPDX-License-Identifier: Apache-2.0
"""From record files to meta-batches: the same to the bit, however they are made."""

from __future__ import annotations

import dataclasses
import logging
import os

import numpy as np
import pytest
import tensorflow as tf

from tests import records
from tests.memory import resident_bytes
from tf_lwdgh import config as gin_config
from tf_lwdgh.data import episodes, pipeline, store
from tf_lwdgh.data.episodes import EpisodeConfig
from tf_lwdgh.data.image_source import STORAGES, ImageSource
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.data.pipeline import PipelineConfig
from tf_lwdgh.data.task_lists import TaskList
from tf_lwdgh.types import Episode

EPISODE = EpisodeConfig(n_way=3, k_shot=2, n_query=4)
IMAGE = ImageConfig(image_size=8, channels=3, flip=True, crop_padding=1, color_jitter=0.3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "tiny"
    return folder, records.write_records(folder)


@pytest.fixture(scope="module")
def source(data):
    return ImageSource(*data, "train", IMAGE)


def batches(source, episode=EPISODE, **settings):
    settings = {"meta_batch_size": 2, "seed": 5, "start_step": 0, "end_step": 4, **settings}
    return list(pipeline.meta_batches(source, episode, **settings))


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def test_a_batch_has_static_shapes_and_labels_class_by_class(source):
    dataset = pipeline.meta_batches(source, EPISODE, meta_batch_size=2, seed=0)
    spec = dataset.element_spec
    assert isinstance(spec, Episode)
    shapes = [(2, 6, 8, 8, 3), (2, 6), (2, 12, 8, 8, 3), (2, 12), (2, 3)]
    assert [tuple(s.shape) for s in spec] == shapes
    assert [s.dtype for s in spec] == [*[tf.float32, tf.int32] * 2, tf.int32]
    batch = next(iter(dataset))
    assert batch.support_labels[1].numpy().tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.query_labels[0].numpy().tolist() == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("storage", STORAGES)
def test_the_images_are_those_that_the_indices_name(data, storage):
    pixels = records.all_pixels("test", (8, 8, 3))
    source = ImageSource(*data, "test", ImageConfig(8, 3, "signed"), storage)
    assert len(source) == sum(len(p) for p in pixels)
    settings = {"start_step": 7, "end_step": 8, "seed": 3}
    (batch,) = batches(source, **settings)
    for task in range(2):
        indices = episodes.sample(source.spec, "test", EPISODE, seed=3, step=7, task=task)
        for label in range(3):
            position = int(indices.class_ids[label]) - source.spec.classes("test").start
            expected = pixels[position][indices.image_indices[label].numpy()] / 127.5 - 1
            support = batch.support_images[task, 2 * label : 2 * label + 2]
            query = batch.query_images[task, 4 * label : 4 * label + 4]
            np.testing.assert_allclose(np.concatenate([support, query]), expected, atol=1e-6)


def test_rotated_classes_hold_rotated_images(data):
    pixels = records.all_pixels("train", (8, 8, 3))
    source = ImageSource(*data, "train", ImageConfig(8, 3))
    config = EpisodeConfig(6, 1, 2, rotations=True)
    (batch,) = batches(source, config, end_step=1, meta_batch_size=1)
    indices = episodes.sample(source.spec, "train", config, seed=5, step=0, task=0)
    assert len(set(indices.rotations.numpy())) > 1
    for label in range(6):
        raw = pixels[int(indices.class_ids[label])][int(indices.image_indices[label, 0])]
        turned = np.rot90(raw, int(indices.rotations[label])) / 255.0
        np.testing.assert_allclose(batch.support_images[0, label], turned, atol=1e-6)


@pytest.mark.parametrize("augment", [False, True])
def test_threads_storages_and_restarts_change_nothing(data, source, augment):
    whole = batches(source, augment=augment)
    for threads, parallel in ((1, 1), (4, 8)):
        settings = PipelineConfig(threads=threads, parallel_tasks=parallel, prefetch=1)
        assert_same(batches(source, augment=augment, pipeline_config=settings), whole)
    for storage in ("decoded", "disk"):
        other = ImageSource(*data, "train", IMAGE, storage)
        assert_same(batches(other, augment=augment), whole)
    assert_same(batches(source, augment=augment, start_step=2), whole[2:])


def test_resized_storages_agree_too(data):
    config = ImageConfig(image_size=5, channels=1, resize="bilinear", invert=True)
    ours = [batches(ImageSource(*data, "val", config, storage)) for storage in STORAGES]
    assert ours[0][0].support_images.shape == (2, 6, 5, 5, 1)
    assert_same(ours[1], ours[0])
    assert_same(ours[2], ours[0])


def test_an_endless_run_goes_on(source):
    endless = pipeline.meta_batches(source, EPISODE, meta_batch_size=2, seed=5, start_step=2)
    assert_same(list(endless.take(2)), batches(source)[2:])


def test_steps_tasks_and_seeds_differ(source):
    images = [b.support_images.numpy() for b in batches(source)]
    images += [b.support_images.numpy() for b in batches(source, seed=6)]
    tasks = np.concatenate(images).reshape(16, -1)
    assert len(np.unique(tasks, axis=0)) == 16


def test_augmentation_changes_images_and_not_the_choice(data):
    plain = ImageSource(*data, "train", ImageConfig(8, 3))
    jittered = ImageSource(*data, "train", ImageConfig(8, 3, color_jitter=0.2))
    ours, theirs = batches(plain, augment=True), batches(jittered, augment=True)
    assert_same(batches(plain), ours)  # nothing is switched on
    assert_same(batches(jittered), ours)  # augment=False
    for a, b in zip(ours, theirs, strict=True):
        assert 0 < np.abs(a.query_images - b.query_images).max() <= 0.5


def test_augmentation_differs_between_tasks(data):
    source = ImageSource(*data, "train", ImageConfig(8, 3, flip=True, crop_padding=2))
    config = EpisodeConfig(6, 1, 6)  # every task holds nearly all images
    seen: dict[bytes, set[bytes]] = {}
    raw = batches(source, config, end_step=6)
    for plain, changed in zip(raw, batches(source, config, end_step=6, augment=True), strict=True):
        before = plain.query_images.numpy().reshape(-1, 8 * 8 * 3)
        after = changed.query_images.numpy().reshape(-1, 8 * 8 * 3)
        for a, b in zip(before, after, strict=True):
            seen.setdefault(a.tobytes(), set()).add(b.tobytes())
    assert max(len(changes) for changes in seen.values()) >= 4


def test_listed_and_sampled_evaluation_tasks_agree(data, tmp_path):
    source = ImageSource(*data, "test", IMAGE)
    config = EpisodeConfig(3, 1, 5)
    tasks = TaskList.draw(source.spec, "test", config, seed=9, n_tasks=6)
    tasks.write(tmp_path / "tasks.json.gz")
    read = TaskList.read(tmp_path / "tasks.json.gz")
    listed = pipeline.listed_tasks(source, read, batch_size=3)
    sampled = pipeline.evaluation_tasks(source, config, seed=9, n_tasks=6, batch_size=3)
    assert listed.element_spec == sampled.element_spec
    assert listed.element_spec.query_images.shape == (3, 15, 8, 8, 3)
    assert_same(list(listed), list(sampled))
    odd = list(pipeline.listed_tasks(source, read, batch_size=4))
    assert [len(b.query_labels) for b in odd] == [4, 2]


def test_a_list_of_another_split_is_refused(data, source):
    tasks = TaskList.draw(source.spec, "test", EPISODE, seed=9, n_tasks=2)
    with pytest.raises(ValueError, match="split: the list has 'test'. Received: 'train'"):
        pipeline.listed_tasks(source, tasks, batch_size=2)


@pytest.mark.parametrize("storage", STORAGES)
def test_images_are_not_written_into_the_graph(data, storage):
    source = ImageSource(*data, "train", ImageConfig(64, 3), storage)
    rows = tf.TensorSpec([6], tf.int64)
    graph = tf.function(source.gather).get_concrete_function(rows).graph
    assert graph.as_graph_def().ByteSize() < 50_000
    assert len(graph.captures) == (storage != "disk")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_images_in_memory_are_not_copied_by_an_iterator():
    images = tf.ones([2**28], tf.uint8)
    before = resident_bytes()

    def make(number):
        return Episode(*[tf.gather(images, number)] * 4)

    next(iter(pipeline._batched(tf.data.Dataset.range(4), make, 2, True, None)))
    assert resident_bytes() - before < 2**27


def test_memory_is_stated_and_logged(data, caplog):
    with caplog.at_level(logging.INFO, logger="tf_lwdgh.data.image_source"):
        sources = {s: ImageSource(*data, "train", ImageConfig(6, 3), s) for s in STORAGES}
    count = sum(records.SIZES["train"])
    assert sources["decoded"].memory_bytes == count * 6 * 6 * 3
    assert sources["disk"].memory_bytes == count * 16
    encoded = sum(tf.strings.length(sources["encoded"]._encoded).numpy())
    assert sources["encoded"].memory_bytes == encoded + 24 * count
    assert f"tiny/train: {count} images, storage 'decoded'" in caplog.text


def test_impossible_tasks_are_refused_before_anything_runs(source):
    with pytest.raises(ValueError, match=r"has 6\. Received: EpisodeConfig.n_way = 7"):
        batches(source, EpisodeConfig(7, 1, 1))
    with pytest.raises(ValueError, match=r"EpisodeConfig.n_query = 7, which need 8"):
        pipeline.evaluation_tasks(source, EpisodeConfig(3, 1, 7), seed=0, n_tasks=1, batch_size=1)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"meta_batch_size": 0}, "meta_batch_size must be an integer of at least 1. Received: 0"),
        ({"start_step": -1}, "start_step must be an integer of at least 0. Received: -1"),
        ({"start_step": 5, "end_step": 4}, "end_step must be an integer of at least 5"),
        ({"seed": 0.5}, "seed must be an integer. Received: 0.5"),
    ],
)
def test_wrong_numbers_are_refused(source, settings, text):
    with pytest.raises(ValueError, match=text):
        batches(source, **settings)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"storage": "ram"}, "storage must be one of 'encoded', 'decoded', 'disk'.*'ram'"),
        ({"threads": 0}, "threads must be an integer of at least 1 or None.*= 0"),
        ({"prefetch": None}, "prefetch must be an integer of at least 1. Received.*None"),
    ],
)
def test_wrong_settings_name_the_binding(settings, text):
    with pytest.raises(ValueError, match=rf"PipelineConfig\.{text}"):
        PipelineConfig(**settings)


def test_gin_binds_the_settings():
    gin_config.parse([], ["PipelineConfig.storage = 'disk'", "PipelineConfig.threads = 3"])
    assert PipelineConfig().storage == "disk" and PipelineConfig().private_threads == 3


def test_a_file_cut_after_indexing_stops_the_run(tmp_path):
    spec = records.write_records(tmp_path / "tiny")
    source = ImageSource(tmp_path / "tiny", spec, "train", ImageConfig(8, 3), "disk")
    for path in (tmp_path / "tiny").glob("*.tfrecords"):
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"\.tfrecords \(class \d, 'train-\d'\) was cut since it was indexed"):
        batches(source)


def test_a_spec_that_counts_wrong_is_refused(data):
    folder, spec = data
    sizes = (*spec.images_per_class[:1], 5, *spec.images_per_class[2:])
    wrong = dataclasses.replace(spec, images_per_class=sizes)
    for storage in STORAGES:
        with pytest.raises(ValueError, match=r"class 'train-1' .*'tiny'.*says \(5\)\. Received: 9\."):
            ImageSource(folder, wrong, "train", ImageConfig(8, 3), storage)


def test_an_image_that_cannot_be_decoded_names_its_class(tmp_path):
    pixels = {"train": [("owls", [b"no image"] * 3)], "val": [], "test": []}
    spec = store.write_dataset(tmp_path / "bad", "bad", pixels, image_size=8)
    with pytest.raises(ValueError, match=r"0.tfrecords \(class 0, 'owls'\): the image of record 0 cannot be dec"):
        ImageSource(tmp_path / "bad", spec, "train", ImageConfig(8, 3), "decoded")


def test_a_split_without_classes_is_refused(tmp_path):
    pixels = {"train": [("owls", [np.zeros((8, 8), np.uint8)])], "val": [], "test": []}
    spec = store.write_dataset(tmp_path / "half", "half", pixels, image_size=8)
    with pytest.raises(ValueError, match="split 'val' of data set 'half' has no classes"):
        ImageSource(tmp_path / "half", spec, "val", ImageConfig(8, 3))


@pytest.mark.parametrize("rotations", [False, True])
def test_an_episode_tells_which_classes_of_the_split_it_has(data, rotations):
    """Each image's first pixel tells its class, and where that pixel lies how it is turned."""
    folder, spec = data
    config = EpisodeConfig(n_way=3, k_shot=1, n_query=1, rotations=rotations)
    source = ImageSource(folder, spec, "val", ImageConfig(image_size=8))
    corners = [(0, 0), (7, 0), (7, 7), (0, 7)]
    seen, classes = set(), spec.classes("val")
    for batch in pipeline.evaluation_tasks(source, config, seed=1, n_tasks=6, batch_size=1):
        for image, label in zip(batch.support_images[0].numpy(), batch.support_labels[0].numpy()):
            number = int(batch.class_ids[0, label])
            turns, position = divmod(number, len(classes))
            assert round(255 * image[corners[turns]][0]) // 20 == classes.start + position
            seen.add(number)
    assert seen <= set(range(episodes.n_classes(spec, "val", config))) and len(seen) > 2
