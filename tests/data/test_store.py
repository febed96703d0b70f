# SPDX-License-Identifier: Apache-2.0
"""Records and specs: what is written is read back, foreign specs load, halves are refused."""

import dataclasses
import json
import os
import struct

import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh.data import store
from tf_lwdgh.data.image_source import STORAGES, ImageSource
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.data.store import DatasetSpec, is_finished, write_dataset

R = np.random.default_rng(0)


def pictures(n, size=6, channels=3):
    return [R.integers(0, 256, (size, size, channels), dtype=np.uint8) for _ in range(n)]


def classes():
    return {
        "train": [("a", pictures(3)), ("b", pictures(4))],
        "val": [("c", iter(pictures(2)))],
        "test": [("d", [tf.io.encode_jpeg(p).numpy() for p in pictures(5)])],
    }


def write(folder, **kwargs):
    return write_dataset(folder, "tiny", classes(), image_size=6, split_name="s", **kwargs)


def test_what_is_written_is_read_back(tmp_path):
    images = classes()
    spec = write_dataset(tmp_path / "tiny", "tiny", {**images, "val": [("c", pictures(2))]})
    assert spec == DatasetSpec.load(tmp_path / "tiny")
    assert [list(spec.classes(s)) for s in store.SPLITS] == [[0, 1], [2], [3]]
    assert spec.images_per_class == (3, 4, 2, 5) and spec.class_names == ("a", "b", "c", "d")
    assert spec.encoding == "mixed"
    for ours, read in zip(images["train"][1][1], store.read_class(tmp_path / "tiny", spec, 1)):
        np.testing.assert_array_equal(tf.io.decode_png(read), ours)
    assert store.read_class(tmp_path / "tiny", spec, 3) == images["test"][0][1]


def test_index_points_at_the_images_that_tensorflow_reads(tmp_path):
    spec = write(tmp_path / "tiny")
    indexed = [p for s in store.SPLITS for p in store.index_split(tmp_path / "tiny", spec, s)]
    for class_id in range(4):
        path = store.class_path(tmp_path / "tiny", spec, class_id)
        content = open(path, "rb").read()
        data = [content[a : a + n] for a, n in indexed[class_id]]
        assert data == [r.numpy() for r in tf.data.TFRecordDataset(path)]
        ours = store.read_class(tmp_path / "tiny", spec, class_id)
        features = {
            "image": tf.io.FixedLenFeature([], tf.string),
            "label": tf.io.FixedLenFeature([], tf.int64),
        }
        parsed = [tf.io.parse_single_example(r, features) for r in tf.data.TFRecordDataset(path)]
        assert ours == [p["image"].numpy() for p in parsed]
        assert {int(p["label"]) for p in parsed} == {class_id}


def test_a_record_is_of_the_same_bytes_in_every_process():
    def field(number: int, content: bytes) -> bytes:  # of the wire format, shorter than 128 bytes
        return bytes([number << 3 | 2, len(content)]) + content

    image = field(1, field(1, b"image") + field(2, field(1, field(1, b"pixels"))))
    label = field(1, field(1, b"label") + field(2, field(3, field(1, b"\x07"))))
    assert store.serialise(b"pixels", 7) == field(1, image + label)


def test_fingerprint_follows_content_and_not_place(tmp_path):
    data = classes()
    data["val"] = [("c", pictures(2))]
    a, b = (write_dataset(tmp_path / f, "tiny", data) for f in ("a", "b"))
    assert a.fingerprint == b.fingerprint == DatasetSpec.load(tmp_path / "b").fingerprint
    data["val"] = [("c", pictures(2))]
    assert write_dataset(tmp_path / "c", "tiny", data).fingerprint != a.fingerprint
    assert dataclasses.replace(a, split_name="other").fingerprint != a.fingerprint


def test_superclasses_survive(tmp_path):
    spec = write(tmp_path / "t", superclasses={"a": "x", "b": "y", "c": "z", "d": "x"})
    assert spec == DatasetSpec.load(tmp_path / "t")
    assert spec.superclasses == (0, 1, 2, 0) and spec.superclass_names == ("x", "y", "z")
    data = json.loads((tmp_path / "t" / store.SPEC_FILE).read_text())
    assert data["__class__"] == "DatasetSpecification"  # x spans two splits: no bi-level form


def test_nested_superclasses_take_meta_datasets_bi_level_form(tmp_path):
    spec = write(tmp_path / "t", superclasses={"a": "x", "b": "x", "c": "y", "d": "z"})
    assert spec == DatasetSpec.load(tmp_path / "t")
    data = json.loads((tmp_path / "t" / store.SPEC_FILE).read_text())
    assert data["__class__"] == "BiLevelDatasetSpecification"
    assert data["superclasses_per_split"] == {"TRAIN": 1, "VALID": 1, "TEST": 1}
    assert data["classes_per_superclass"] == {"0": 2, "1": 1, "2": 1}


def test_meta_datasets_own_specs_load(tmp_path):
    plain = {
        "name": "aircraft", "path": "/records/aircraft", "file_pattern": "{}.tfrecords",
        "classes_per_split": {"TRAIN": 2, "VALID": 1, "TEST": 1},
        "images_per_class": {"0": 5, "1": 6, "2": 7, "3": 8},
        "class_names": {"0": "a", "1": "b", "2": "c", "3": "d"},
        "__class__": "DatasetSpecification",
    }  # fmt: skip
    (tmp_path / store.SPEC_FILE).write_text(json.dumps(plain))
    spec = DatasetSpec.load(tmp_path)
    assert spec.images_per_class == (5, 6, 7, 8) and list(spec.classes("test")) == [3]
    levels = {
        **{k: v for k, v in plain.items() if k != "classes_per_split"},
        "superclasses_per_split": {"TRAIN": 1, "VALID": 1, "TEST": 1},
        "classes_per_superclass": {"0": 2, "1": 1, "2": 1},
        "superclass_names": {"0": "x", "1": "y", "2": "z"},
        "__class__": "BiLevelDatasetSpecification",
    }
    (tmp_path / store.SPEC_FILE).write_text(json.dumps(levels))
    spec = DatasetSpec.load(tmp_path)
    assert spec.superclasses == (0, 0, 1, 2) and list(spec.classes("val")) == [2]


def test_our_specs_have_meta_datasets_keys(tmp_path):
    write(tmp_path / "tiny")
    data = json.loads((tmp_path / "tiny" / store.SPEC_FILE).read_text())
    keys = {"name", "classes_per_split", "images_per_class", "class_names", "path", "file_pattern"}
    assert keys < set(data)
    assert data["classes_per_split"] == {"TRAIN": 2, "VALID": 1, "TEST": 1}
    assert data["__class__"] == "DatasetSpecification" and data["file_pattern"] == "{}.tfrecords"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images_per_class": {"0": 1}}, "images_per_class needs a count for each of the 4 cl"),
        ({"images_per_class": {"0": 1, "2": 1}}, "ids must run from 0 .* Received: .'2'."),
        ({"images_per_class": {"0": "many"}}, r"images_per_class\[0\] must be .*: 'many'"),
        ({"images_per_class": {"0": {"train": 1, "test": 1}}}, "pools of images .* not supported"),
        ({"class_names": None}, "dataset_spec.json is no .* class_names must be a dict.*: None"),
        ({"classes_per_split": {"TRAIN": 4}}, "classes_per_split must have the keys TRAIN, VALID"),
        ({"classes_per_split": {"TRAIN": 5, "VALID": -2, "TEST": 1}}, r"VALID\] must be .*: -2"),
        ({"file_pattern": "../{}.tfrecords"}, "file_pattern needs one {} .* and no folder"),
        ({"__class__": "Other"}, "__class__ must be DatasetSpecification or .* Received: 'Other'"),
        ({"file_pattern": "x"}, "file_pattern needs one {} for the class id"),
    ],
)
def test_malformed_specs_are_refused(tmp_path, change, message):
    write(tmp_path / "tiny")
    path = tmp_path / "tiny" / store.SPEC_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        DatasetSpec.load(tmp_path / "tiny")


def test_missing_key_is_named(tmp_path):
    (tmp_path / store.SPEC_FILE).write_text('{"__class__": "DatasetSpecification"}')
    with pytest.raises(ValueError, match="the key 'name' is missing"):
        DatasetSpec.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_specs_that_are_no_json_dictionary_are_refused_by_file(tmp_path, text):
    (tmp_path / store.SPEC_FILE).write_text(text)
    with pytest.raises(ValueError, match="dataset_spec.json is no description of a data set"):
        DatasetSpec.load(tmp_path)


def test_failed_writing_leaves_nothing(tmp_path):
    def broken():
        yield pictures(1)[0]
        raise OSError("disk on fire")

    with pytest.raises(OSError, match="disk on fire"):
        write_dataset(tmp_path / "tiny", "tiny", {**classes(), "test": [("d", broken())]})
    assert os.listdir(tmp_path) == []


def test_finished_output_is_kept_unless_overwritten(tmp_path):
    first = write(tmp_path / "tiny")
    with pytest.raises(FileExistsError, match="exists and is not empty; .* --overwrite"):
        write(tmp_path / "tiny")
    assert DatasetSpec.load(tmp_path / "tiny") == first
    second = write(tmp_path / "tiny", overwrite=True, converter_version="2")
    assert DatasetSpec.load(tmp_path / "tiny") == second and os.listdir(tmp_path) == ["tiny"]
    assert is_finished(tmp_path / "tiny", converter_version="2", split_name="s")
    assert not is_finished(tmp_path / "tiny", converter_version="3", split_name="s")


@pytest.mark.parametrize("keep", [5, 40, -3])
def test_truncated_records_are_refused(tmp_path, keep):
    spec = write(tmp_path / "tiny")
    path = store.class_path(tmp_path / "tiny", spec, 0)
    content = open(path, "rb").read()
    open(path, "wb").write(content[:keep])
    with pytest.raises(ValueError, match=r"0.tfrecords \(class 0, 'a'\) is cut short"):
        store.read_class(tmp_path / "tiny", spec, 0)


@pytest.mark.parametrize("at", [0, 3, 9])
def test_damaged_lengths_are_refused(tmp_path, at):
    spec = write(tmp_path / "tiny")
    path = store.class_path(tmp_path / "tiny", spec, 0)
    content = bytearray(open(path, "rb").read())
    content[at] ^= 4
    open(path, "wb").write(content)
    with pytest.raises(ValueError, match=r"0.tfrecords \(class 0, 'a'\) is damaged: wrong checksum in the header of record 0"):
        store.index_split(tmp_path / "tiny", spec, "train")


@pytest.mark.parametrize("storage", STORAGES)
def test_no_flipped_bit_of_a_record_is_taken(tmp_path, storage):
    """Every byte of a class's file, one bit of each: refused with file, class and record."""
    spec = write(tmp_path / "tiny")
    path = store.class_path(tmp_path / "tiny", spec, 0)
    whole = open(path, "rb").read()
    second = 16 + struct.unpack_from("<Q", whole)[0]  # where the second record begins
    for at in range(0, len(whole), 7):
        content = bytearray(whole)
        content[at] ^= 1 << at % 8
        open(path, "wb").write(content)
        record = r"record 0|wrong checksum" if at < second else r"record [12]|wrong checksum"
        with pytest.raises(ValueError, match=rf"0.tfrecords \(class 0, 'a'\).*({record})"):
            ImageSource(str(tmp_path / "tiny"), spec, "train", ImageConfig(image_size=6), storage)


def test_a_record_changed_since_it_was_indexed_is_refused_when_it_is_read(tmp_path):
    spec = write(tmp_path / "tiny")
    source = ImageSource(str(tmp_path / "tiny"), spec, "train", ImageConfig(image_size=6), "disk")
    path = store.class_path(tmp_path / "tiny", spec, 1)
    content = bytearray(open(path, "rb").read())
    content[-10] ^= 1  # in the last record's data
    open(path, "wb").write(content)
    source.gather(tf.range(len(source) - 1, dtype=tf.int64))  # all but that one
    with pytest.raises((ValueError, tf.errors.OpError), match=r"\(class 1, 'b'\) is damaged: the data of record 3"):
        source.gather(tf.constant([len(source) - 1], tf.int64))


@pytest.mark.parametrize("record", [b"", b"\xff" * 40, b"\x0a\x7f", bytes(range(64))])
def test_records_that_are_no_examples_are_refused(tmp_path, record):
    spec = write(tmp_path / "tiny")
    path = store.class_path(tmp_path / "tiny", spec, 0)
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(record)
    with pytest.raises(ValueError, match="record 0 at byte 0 is no tf.train.Example with a feature"):
        store.index_split(tmp_path / "tiny", spec, "train")


def test_missing_data_set_says_what_there_is_and_how_to_make_it(tmp_path):
    write(tmp_path / "tiny")
    (tmp_path / ".other.partial-1").mkdir()
    (tmp_path / ".other.partial-1" / store.SPEC_FILE).write_text("{}")
    message = r"'glyphs' \(DatasetConfig.name\) .*found there: tiny\. .*make_glyphs"
    with pytest.raises(FileNotFoundError, match=message):
        store.open_dataset(tmp_path, "glyphs")
    assert store.open_dataset(tmp_path, "tiny")[1].name == "tiny"


def test_empty_class_and_odd_arrays_are_refused(tmp_path):
    with pytest.raises(ValueError, match="class 'd' .id 3. has no image"):
        write_dataset(tmp_path / "t", "t", {**classes(), "test": [("d", [])]})
    with pytest.raises(ValueError, match=r"must be uint8 .* Received: float32 \[4, 4\]"):
        odd = [("d", [np.zeros((4, 4), np.float32)])]
        write_dataset(tmp_path / "t", "t", {**classes(), "test": odd})
