# SPDX-License-Identifier: Apache-2.0
"""Examinations find every fault, say where it is, and go on."""

from __future__ import annotations

import dataclasses
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf

from tests import records
from tests.data.test_damage import png, write_with_bad_image
from tf_lwdgh.data import store
from tf_lwdgh.data.store.examination import examine


@pytest.fixture
def made(tmp_path):
    return tmp_path / "tiny", records.write_records(tmp_path / "tiny")


def place_of(path, record: int) -> int:
    """Where a record begins in a file."""
    content, at = path.read_bytes(), 0
    for _ in range(record):
        at += 16 + struct.unpack_from("<Q", content, at)[0]
    return at


def flip(path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_whole_set_has_no_faults_and_every_image_is_counted(made):
    told = []
    findings = examine(*made, progress=told.append)
    assert findings.lines() == [] and sum(told) == sum(made[1].images_per_class)
    assert findings.as_json() == {"faults": 0, "warnings": 0, "first_faults": [], "first_warnings": []}


def test_all_faults_are_found_and_named_not_the_first_alone(made):
    folder, spec = made
    places = {}
    for class_id, record in ((0, 2), (0, 6), (4, 9), (11, 0)):
        path = folder / f"{class_id}.tfrecords"
        places[class_id, record] = place_of(path, record)
        flip(path, places[class_id, record] + 40)  # in the data
    flip(folder / "7.tfrecords", place_of(folder / "7.tfrecords", 3))  # in a header
    cut = (folder / "8.tfrecords").read_bytes()
    (folder / "8.tfrecords").write_bytes(cut[:-5])
    (folder / "9.tfrecords").unlink()
    findings = examine(folder, spec)
    assert findings.n_faults == 7 and findings.n_warnings == 0
    found = {(f.class_id, f.record, f.byte) for f in findings.faults}
    assert {(c, r, b) for (c, r), b in places.items()} <= found
    said = "\n".join(findings.lines())
    for (class_id, record), byte in places.items():
        name = f"{folder}/{class_id}.tfrecords (class {class_id}, {spec.class_names[class_id]!r})"
        assert f"{name} is damaged: the data of record {record} at byte {byte} do not" in said
    assert "7.tfrecords (class 7, 'val-1') is damaged: wrong checksum in the header of record 3" in said
    assert "8.tfrecords (class 8, 'val-2') is cut short: record 6" in said
    assert "9.tfrecords (class 9, 'test-0') is not there" in said


def test_an_image_that_cannot_be_decoded_is_named_with_its_place(tmp_path):
    spec = write_with_bad_image(tmp_path / "bad", 5, 4)
    (fault,) = examine(tmp_path / "bad", spec).faults
    byte = place_of(tmp_path / "bad" / "5.tfrecords", 4)
    assert (fault.class_id, fault.record, fault.byte) == (5, 4, byte)
    assert f"5.tfrecords (class 5, 'train-5'): the image of record 4 at byte {byte} cannot be decoded: " in fault.what


def test_a_swapped_file_is_found_by_its_checksum_and_by_its_labels(made):
    folder, spec = made
    shutil.copyfile(folder / "9.tfrecords", folder / "1.tfrecords")
    findings = examine(folder, spec)
    by_checksum, by_label = findings.lines()[:2]
    assert "1.tfrecords (class 1, 'train-1') is not the file that dataset_spec.json describes" in by_checksum
    assert "every record must have the label 1. Received: 9 in record 0 at byte 0; 9 of 9 records" in by_label
    assert findings.n_faults == 2 and findings.n_warnings == 9  # the images are in two splits
    assert "the same image is in two splits: record 0 of" in findings.lines()[2]
    unstated = dataclasses.replace(spec, class_checksums=())
    (by_label,) = (f.what for f in examine(folder, unstated).faults if "label" in f.what)
    assert any(
        "describes other images: their checksum must be" in f.what for f in examine(folder, unstated).faults
    )


def test_images_that_are_there_twice_are_told_apart_by_split(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    a, b, c, d, *rest = [png(p) for p in pixels]
    classes = {"train": [("a", [a, b, a]), ("b", [c, b])], "val": [("c", [d, *rest])], "test": [("d", [rest[0], c])]}
    spec = store.write_dataset(tmp_path / "t", "t", classes, image_size=8)
    findings = examine(tmp_path / "t", spec)
    assert findings.n_faults == 0 and findings.n_warnings == 3
    within, *across = sorted(findings.lines(), key=lambda line: "two splits" in line)
    assert "2 images are in the data set again within their split" in within
    assert any("record 1 of" in x and "(class 2, 'c', val)" in x and "record 0 of" in x and "(class 3, 'd', test)" in x
               for x in across)  # fmt: skip
    assert any("(class 1, 'b', train)" in x and "record 1 of" in x and "(class 3, 'd', test)" in x for x in across)


def test_what_the_spec_says_of_counts_sizes_and_encodings_is_held_to(made):
    folder, spec = made
    counts = (spec.images_per_class[0] + 1, *spec.images_per_class[1:])
    wrong = dataclasses.replace(spec, images_per_class=counts, image_size=9, encoding="jpeg")
    said = "\n".join(examine(folder, wrong).lines())
    assert "0.tfrecords (class 0, 'train-0') must hold as many images as dataset_spec.json says (8). Received: 7" in said
    assert "every record must have an image of 9×9. Received: 8×8 in record 0 at byte 0; 7 of 7 records" in said
    assert "every record must have an image in jpeg. Received: png in record 0 at byte 0" in said


def test_records_that_are_no_examples_and_labels_that_are_missing(tmp_path):
    spec = records.write_records(tmp_path / "t")
    example = tf.train.Example()
    example.features.feature["image"].bytes_list.value.append(png(np.zeros((8, 8, 3), np.uint8)))
    with tf.io.TFRecordWriter(str(tmp_path / "t" / "0.tfrecords")) as writer:
        for record in (b"\xff" * 30, b"", example.SerializeToString()):
            writer.write(record)
    said = "\n".join(examine(tmp_path / "t", spec).lines())
    assert "record 0 at byte 0 is no tf.train.Example with a feature 'image'" in said
    assert "record 1 at byte 46 is no tf.train.Example with a feature 'image'" in said
    assert "the label 0. Received: none in record 2 at byte 62; 1 of 1 records" in said


def test_strays_are_warnings_and_the_index_is_none(made):
    store.index_split(*made, "train")
    (made[0] / "13.tfrecords").write_bytes(b"")
    (made[0] / "notes").mkdir()
    findings = examine(*made)
    assert findings.n_faults == 0
    assert [line.rsplit("/", 1)[1] for line in findings.lines()] == [
        "13.tfrecords belongs to no class of the data set.", "notes belongs to no class of the data set.",
    ]  # fmt: skip


def test_what_is_kept_is_bounded_and_all_is_counted(made):
    folder, spec = made
    for class_id in range(6):
        flip(folder / f"{class_id}.tfrecords", 40)
    findings = examine(folder, spec, limit=2)
    assert len(findings.faults) == 2 and findings.n_faults == 6
    assert findings.lines()[-1] == "… and 4 more faults"
