# SPDX-License-Identifier: Apache-2.0
"""Descriptions of data sets that no converter wrote: refused by name, in bounded memory and time."""

from __future__ import annotations

import json
import os
import tracemalloc

import pytest

from tests import records
from tf_lwdgh.data import store
from tf_lwdgh.data.store import DatasetSpec
from tf_lwdgh.data.store import spec as spec_module


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict:
    """The JSON of a whole spec."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    records.write_records(folder)
    return json.loads((folder / store.SPEC_FILE).read_text())


def refused(folder, content: str | bytes | dict, message: str) -> None:
    """Loading fails with this message, in little memory."""
    if isinstance(content, dict):
        content = json.dumps(content)
    data = content.encode() if isinstance(content, str) else content
    (folder / store.SPEC_FILE).write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"dataset_spec\.json is no description of a data set: ") as raised:
            DatasetSpec.load(folder)
        assert tracemalloc.get_traced_memory()[1] < 50e6 + 10 * len(data)
    finally:
        tracemalloc.stop()
    said = str(raised.value)
    assert message in said and len(said) < 1000 + len(str(folder)), said
    said.encode()


def levels(whole: dict, **changes) -> dict:
    """The bi-level form."""
    n = len(whole["images_per_class"])
    form = {k: v for k, v in whole.items() if k != "classes_per_split"} | {
        "__class__": "BiLevelDatasetSpecification",
        "superclasses_per_split": {"TRAIN": 1, "VALID": 1, "TEST": 1},
        "classes_per_superclass": {"0": n - 2, "1": 1, "2": 1},
        "superclass_names": {"0": "a", "1": "b", "2": "c"},
    }
    return form | changes


@pytest.mark.parametrize("count", [2**63, 10**18, 10**400, -1, 1.5, 1e300, True, "7", None, [1], 2**24 + 1])
def test_counts_that_are_none(tmp_path, whole, count):
    counts = {**whole["images_per_class"], "1": count}
    text = json.dumps({**whole, "images_per_class": counts})
    refused(tmp_path, text, "images_per_class[1] must be a whole number from 0 to 16,777,216. Received: ")


def test_a_number_of_more_digits_than_python_reads(tmp_path, whole):
    text = json.dumps({**whole, "images_per_class": {"0": 1}}).replace('{"0": 1}', '{"0": ' + "9" * 10**6 + "}")
    refused(tmp_path, text, "dataset_spec.json")


@pytest.mark.parametrize("size", [10**18, 2**31 - 1, 2**64])
def test_superclasses_of_exabytes(tmp_path, whole, size):
    sizes = {"0": size, "1": 1, "2": 1}
    refused(tmp_path, levels(whole, classes_per_superclass=sizes), "classes_per_superclass")
    splits = {"TRAIN": size, "VALID": 1, "TEST": 1}
    refused(tmp_path, levels(whole, superclasses_per_split=splits), "superclasses_per_split")
    refused(tmp_path, {**whole, "classes_per_split": splits}, "classes")


@pytest.mark.parametrize(
    "pattern",
    ["{}_{}.tfrecords", "{0}.tfrecords", "{a}.tfrecords", "{.real}.tfrecords", "{[0]}.tfrecords", "{!r}.tfrecords",
     "{:>1000000000}.tfrecords", "{}\0.tfrecords", "../{}.tfrecords", "a\\{}", "{", "}", "{{}}", "", "x" * 10**6 + "{}",
     "{:{}}"],
)  # fmt: skip
def test_file_patterns_that_name_no_file_of_the_folder(tmp_path, whole, pattern):
    changed = {**whole, "file_pattern": pattern}
    refused(tmp_path, changed, "DatasetSpec.file_pattern needs one {} for the class id, and no folder")


@pytest.mark.parametrize("pattern", ["{}", "class-{}.rec", "{{{}}}.tfrecords", "é{}"])
def test_file_patterns_that_do(tmp_path, whole, pattern):
    (tmp_path / store.SPEC_FILE).write_text(json.dumps({**whole, "file_pattern": pattern}))
    spec = DatasetSpec.load(tmp_path)
    path = store.class_path(tmp_path, spec, 3)
    assert os.path.dirname(path) == str(tmp_path) and "3" in os.path.basename(path)


@pytest.mark.parametrize(
    "extras, message",
    [
        ({"superclasses": ["x"] * 15}, "superclasses[0] must be a whole number"),
        ({"superclasses": [[1]] * 15}, "superclasses[0] must be a whole number"),
        ({"superclasses": [0.0] * 15}, "superclasses[0] must be a whole number"),
        ({"superclasses": [True] * 15}, "superclasses[0] must be a whole number"),
        ({"superclasses": [2**70] * 15}, "superclasses[0] must be a whole number"),
        ({"superclasses": "abc"}, "superclasses must be a list"),
        ({"superclasses": {"0": 1}}, "superclasses must be a list"),
        ({"superclasses": [0] * 3, "superclass_names": ["x"]}, "DatasetSpec.superclasses needs one for each"),
        ({"superclass_names": [1]}, "superclass_names must be text. Received: 1"),
        ({"superclass_names": "x"}, "superclass_names must be a list"),
        ({"class_checksums": ["0" * 8]}, "DatasetSpec.class_checksums needs one for each of the"),
        ({"class_checksums": ["0" * 9] * 13}, "DatasetSpec.class_checksums must be 8 hexadecimal digits"),
        ({"class_checksums": [7] * 13}, "class_checksums must be text"),
        ({"class_checksums": 7}, "class_checksums must be a list"),
        ({"image_size": "84"}, "image_size must be a whole number from 0 to 65,536"),
        ({"image_size": 2**40}, "image_size must be a whole number from 0 to 65,536"),
        ({"image_size": 0}, "DatasetSpec.image_size must be above 0"),
        ({"encoding": "webp"}, "DatasetSpec.encoding must be 'png', 'jpeg' or 'mixed'"),
        ({"encoding": ["png"]}, "encoding must be text"),
        ({"content_checksum": None}, "content_checksum must be text"),
        ({"split_name": {}}, "split_name must be text"),
    ],
)
def test_our_own_keys_of_the_wrong_kind(tmp_path, whole, extras, message):
    refused(tmp_path, {**whole, "tf_lwdgh": {**whole["tf_lwdgh"], **extras}}, message)


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"__class__": "DatasetSpecification", "name": [', "[[],"])
def test_ten_megabytes_of_nested_brackets(tmp_path, opening):
    text = (opening * (10_000_000 // len(opening)))[:10_000_000]
    refused(tmp_path, text, "its brackets are nested too deep")


@pytest.mark.parametrize("depth", [100, 900, 3000])
def test_nesting_within_a_value(tmp_path, whole, depth):
    text = json.dumps({**whole, "name": "NAME"}).replace('"NAME"', "[" * depth + "]" * depth)
    refused(tmp_path, text, "name must be text" if depth == 100 else "")


def test_files_larger_than_any_spec(tmp_path, whole, monkeypatch):
    path = tmp_path / store.SPEC_FILE
    with open(path, "wb") as file:
        file.truncate(2**40)  # a hole: takes no place on disk
    with pytest.raises(ValueError, match="it must have at most 16,777,216 bytes"):
        DatasetSpec.load(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="it must be a file"):
        DatasetSpec.load(tmp_path)
    path.unlink()
    path.write_text(json.dumps(whole))
    monkeypatch.setattr(spec_module, "LARGEST_FILE", path.stat().st_size)
    assert len(DatasetSpec.load(tmp_path).class_names) == 13


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_halves_of_surrogate_pairs(tmp_path, whole, text):
    for changed in ({"name": text}, {"class_names": {**whole["class_names"], "0": text}}, {"file_pattern": text + "{}"}):
        refused(tmp_path, {**whole, **changed}, "must be text that UTF-8 can hold")


@pytest.mark.parametrize("key", ["name", "images_per_class", "class_names", "file_pattern", "classes_per_split"])
@pytest.mark.parametrize("value", [None, 1, [], ["x" * 10**6], {"x" * 10**6: 1}, {"00": 1}])
def test_values_of_the_wrong_kind(tmp_path, whole, key, value):
    refused(tmp_path, {**whole, key: value}, key)


@pytest.mark.parametrize("kind", [None, ["DatasetSpecification"], "x" * 10**6, {}])
def test_kinds_that_are_none(tmp_path, whole, kind):
    refused(tmp_path, {**whole, "__class__": kind}, "__class__ must be DatasetSpecification or")
