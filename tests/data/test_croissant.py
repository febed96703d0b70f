# SPDX-License-Identifier: Apache-2.0
"""croissant.json: mlcroissant finds nothing wrong, and reads from it what the spec says."""

import hashlib
import json

import mlcroissant
import pytest

from tests import records
from tf_lwdgh.data import store
from tf_lwdgh.data.store import croissant


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "superclasses"])
def folder(request, tmp_path_factory):
    """Records, with superclasses or without; a class's name is no plain ASCII."""
    out = tmp_path_factory.mktemp("data") / "tiny"
    pixels = list(records.class_pixels(0, 3, (8, 8, 3)))
    classes = {"train": [("ä/1", pixels), ("b", pixels)], "val": [("c", pixels)], "test": [("d", pixels)]}
    superclasses = {"ä/1": "x", "b": "x", "c": "y", "d": "z"} if request.param else None
    store.write_dataset(out, "tiny", classes, split_name="own", superclasses=superclasses)
    return out


@pytest.fixture(scope="module")
def dataset(folder):
    return mlcroissant.Dataset(jsonld=str(folder / store.CROISSANT_FILE))


def test_mlcroissant_finds_no_error_and_a_standard_context(folder, caplog):
    read = mlcroissant.Dataset(jsonld=str(folder / store.CROISSANT_FILE))
    issues = read.metadata.issues
    assert not issues.errors
    assert all("is recommended" in warning for warning in issues.warnings)  # a licence, say
    assert "@context" not in caplog.text


def test_splits_and_classes_read_back_as_the_spec_says(folder, dataset):
    spec = store.DatasetSpec.load(folder)
    assert [r["splits/name"] for r in dataset.records("splits")] == ["train", "val", "test"]
    rows = list(dataset.records("classes"))
    assert [r["classes/id"] for r in rows] == list(range(4))
    assert tuple(r["classes/name"] for r in rows) == spec.class_names
    assert tuple(r["classes/images"] for r in rows) == spec.images_per_class
    for split in store.SPLITS:
        found = [r["classes/id"] for r in rows if r["classes/split"] == split]
        assert found == list(spec.classes(split))
    names = [spec.superclass_names[i] for i in spec.superclasses]
    assert [r["classes/superclass"] for r in rows if "classes/superclass" in r] == names


def test_its_files_are_those_of_the_folder(folder, dataset):
    files, records_of = dataset.metadata.distribution
    content = (folder / store.SPEC_FILE).read_bytes()
    assert (files.content_url, files.sha256) == (store.SPEC_FILE, hashlib.sha256(content).hexdigest())
    found = {path.name for path in folder.glob(records_of.includes[0])}
    assert found == {row["classes/file"] for row in dataset.records("classes")}
    there = {path.name for path in folder.iterdir()}
    assert there == found | {store.SPEC_FILE, store.CROISSANT_FILE}


def test_its_images_are_the_columns_of_the_records(folder, dataset):
    (images,) = [r for r in dataset.metadata.record_sets if r.id == "images"]
    example = store.serialise(b"", 0)
    for field in images.fields:
        assert field.source.file_set == "records"
        assert field.source.extract.column.encode() in example


def test_its_description_names_split_and_checksum(folder):
    spec = store.DatasetSpec.load(folder)
    said = json.loads((folder / store.CROISSANT_FILE).read_text())["description"]
    assert "train 2 classes / 6 images" in said
    assert spec.split_name in said and spec.content_checksum in said


def test_it_wants_a_spec_beside_it(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="dataset_spec.json"):
        croissant.write(tmp_path, store.DatasetSpec.load(folder))
