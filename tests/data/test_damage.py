# SPDX-License-Identifier: Apache-2.0
"""Damaged, swapped and undecodable records: named by file, class and record, however images are kept."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tests import records
from tf_lwdgh.data import pipeline, store
from tf_lwdgh.data.episodes import EpisodeConfig
from tf_lwdgh.data.image_source import STORAGES, ImageSource
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.data.mixed_source import MixedSource
from tf_lwdgh.data.mixtures import Mixture
from tf_lwdgh.data.task_lists import TaskList

EPISODE = EpisodeConfig(n_way=3, k_shot=1, n_query=4)
IMAGE = ImageConfig(image_size=8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def spoiled(image: bytes) -> bytes:
    """A PNG with a flipped bit in its pixels: its own checksum does not fit."""
    at = image.index(b"IDAT") + 20
    return image[:at] + bytes([image[at] ^ 1]) + image[at + 1 :]


def write_with_bad_image(folder, bad_class: int, bad_record: int) -> store.DatasetSpec:
    """A set whose records are all whole, and one of which holds an image that is not."""
    classes, class_id = {}, 0
    for split in store.SPLITS:
        classes[split] = []
        for i, pixels in enumerate(records.all_pixels(split, (8, 8, 3))):
            images = [png(p) for p in pixels]
            if class_id == bad_class:
                images[bad_record] = spoiled(images[bad_record])
            classes[split].append((f"{split}-{i}", images))
            class_id += 1
    return store.write_dataset(folder, "bad", classes, image_size=8)


def run_through(source, end_step=30):
    for _ in pipeline.meta_batches(source, EPISODE, meta_batch_size=2, seed=0, end_step=end_step):
        pass


@pytest.mark.parametrize("storage", STORAGES)
def test_an_image_that_cannot_be_decoded_is_named_when_it_is_drawn(tmp_path, storage):
    spec = write_with_bad_image(tmp_path / "bad", 2, 5)
    named = r"2\.tfrecords \(class 2, 'train-2'\): the image of record 5 cannot be decoded: [^\n]+$"
    with pytest.raises(ValueError, match=named):
        run_through(ImageSource(tmp_path / "bad", spec, "train", IMAGE, storage))
    run_through(ImageSource(tmp_path / "bad", spec, "val", IMAGE, storage), end_step=3)


@pytest.mark.parametrize("storage", ["encoded", "disk"])
def test_it_is_named_in_evaluations_too(tmp_path, storage):
    spec = write_with_bad_image(tmp_path / "bad", 10, 3)
    source = ImageSource(tmp_path / "bad", spec, "test", IMAGE, storage)
    named = r"10\.tfrecords \(class 10, 'test-1'\): the image of record 3 "
    drawn = {"seed": 1, "n_tasks": 40}
    with pytest.raises(ValueError, match=named):
        list(pipeline.evaluation_tasks(source, EPISODE, **drawn, batch_size=7))
    tasks = TaskList.draw(spec, "test", EPISODE, **drawn)
    with pytest.raises(ValueError, match=named):
        list(pipeline.listed_tasks(source, tasks, batch_size=7))


@pytest.mark.parametrize("storage", ["encoded", "disk"])
def test_it_is_named_in_a_mixture_too(tmp_path, storage):
    good = records.write_records(tmp_path / "good", name="good")
    bad = write_with_bad_image(tmp_path / "bad", 1, 0)
    spec = Mixture(("good", "bad"), (good, bad), (1.0, 1.0))
    folders = [str(tmp_path / "good"), str(tmp_path / "bad")]
    source = MixedSource(folders, spec, "train", IMAGE, storage)
    with pytest.raises(ValueError, match=r"bad/1\.tfrecords \(class 1, 'train-1'\): the image of record 0 "):
        run_through(source)


def test_the_batches_before_it_are_given(tmp_path):
    """What is prefetched and made in parallel changes nothing in where the run stops."""
    good = records.write_records(tmp_path / "good")
    bad = write_with_bad_image(tmp_path / "bad", 2, 5)
    settings = {"meta_batch_size": 2, "seed": 8, "end_step": 30}
    whole = list(pipeline.meta_batches(ImageSource(tmp_path / "good", good, "train", IMAGE), EPISODE, **settings))
    came = []
    with pytest.raises(ValueError, match="record 5"):
        for batch in pipeline.meta_batches(
            ImageSource(tmp_path / "bad", bad, "train", IMAGE), EPISODE, **settings,
            pipeline_config=pipeline.PipelineConfig(threads=2, parallel_tasks=8, prefetch=4),
        ):  # fmt: skip
            came.append(batch)
    assert len(came) == 3  # that seed draws the image in the fourth batch
    for ours, theirs in zip(came, whole):
        np.testing.assert_array_equal(ours.query_images, theirs.query_images)


def test_a_byte_flipped_under_an_index_is_named_when_it_is_drawn(tmp_path):
    spec = records.write_records(tmp_path / "tiny")
    ImageSource(tmp_path / "tiny", spec, "train", IMAGE, "disk")
    path = tmp_path / "tiny" / "4.tfrecords"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    source = ImageSource(tmp_path / "tiny", spec, "train", IMAGE, "disk")  # the index still fits
    with pytest.raises(ValueError, match=r"4\.tfrecords \(class 4, 'train-4'\) is damaged: the data of record 9 at"):
        run_through(source)


def test_a_file_that_goes_while_it_is_used_is_named(tmp_path):
    spec = records.write_records(tmp_path / "tiny")
    source = ImageSource(tmp_path / "tiny", spec, "train", IMAGE, "disk")
    (tmp_path / "tiny" / "3.tfrecords").unlink()
    with pytest.raises(FileNotFoundError, match=r"3\.tfrecords"):
        run_through(source)


def test_a_failure_that_is_no_image_s_stays_what_it_is(tmp_path):
    spec = records.write_records(tmp_path / "tiny")
    source = ImageSource(tmp_path / "tiny", spec, "train", IMAGE)
    batches = pipeline.meta_batches(source, EPISODE, meta_batch_size=2, seed=0, end_step=3)

    def fail(dataset):
        return dataset.map(lambda *e: tf.debugging.Assert(False, ["out of luck"]) and e)

    with pytest.raises(tf.errors.InvalidArgumentError, match="out of luck"):
        list(batches.through(fail))


@pytest.mark.parametrize("storage", STORAGES)
def test_the_file_of_another_class_is_refused(tmp_path, storage):
    """A test class's records in a training class's place: whole, and as many as they should be."""
    spec = records.write_records(tmp_path / "tiny")
    assert spec.images_per_class[1] == spec.images_per_class[9]
    first = ImageSource(tmp_path / "tiny", spec, "train", IMAGE, storage)
    assert len(first) == sum(records.SIZES["train"])
    shutil.copyfile(tmp_path / "tiny" / "9.tfrecords", tmp_path / "tiny" / "1.tfrecords")
    found, stated = spec.class_checksums[9], spec.class_checksums[1]
    said = rf"1\.tfrecords \(class 1, 'train-1'\) is not the file that .*{stated}, of 9 records. Received: {found}"
    with pytest.raises(ValueError, match=said):
        ImageSource(tmp_path / "tiny", spec, "train", IMAGE, storage)


def test_an_index_does_not_hide_another_spec(tmp_path):
    spec = records.write_records(tmp_path / "tiny")
    ImageSource(tmp_path / "tiny", spec, "train", IMAGE, "disk")
    other = dataclasses.replace(spec, class_checksums=("0" * 8, *spec.class_checksums[1:]))
    with pytest.raises(ValueError, match=r"0\.tfrecords .*must have the checksum 00000000"):
        ImageSource(tmp_path / "tiny", other, "train", IMAGE, "disk")


@pytest.mark.parametrize("storage", STORAGES)
def test_records_without_stated_checksums_load(tmp_path, storage):
    spec = dataclasses.replace(records.write_records(tmp_path / "tiny"), class_checksums=())
    spec.write(tmp_path / "tiny")
    read = store.DatasetSpec.load(tmp_path / "tiny")
    assert read.class_checksums == () and read == spec
    ImageSource(tmp_path / "tiny", read, "train", IMAGE, storage)


def test_checksums_of_the_files_leave_the_fingerprint_as_it_was(tmp_path):
    spec = records.write_records(tmp_path / "tiny")
    assert dataclasses.replace(spec, class_checksums=()).fingerprint == spec.fingerprint
    again = records.write_records(tmp_path / "again")
    assert again.class_checksums == spec.class_checksums and len(set(spec.class_checksums)) == 13


@pytest.mark.parametrize("storage", STORAGES)
def test_more_images_than_a_file_can_hold_are_refused_before_memory_is_taken(tmp_path, storage):
    spec = records.write_records(tmp_path / "tiny")
    counts = (spec.images_per_class[0], 2**24, *spec.images_per_class[2:])
    with pytest.raises(ValueError, match=r"1\.tfrecords \(class 1, .*says \(16777216\)\. Received: a file of"):
        ImageSource(tmp_path / "tiny", dataclasses.replace(spec, images_per_class=counts), "train", IMAGE, storage)
    (tmp_path / "tiny" / "2.tfrecords").unlink()
    with pytest.raises(FileNotFoundError, match=r"2\.tfrecords \(class 2, 'train-2'\) is not there"):
        ImageSource(tmp_path / "tiny", spec, "train", IMAGE, storage)
