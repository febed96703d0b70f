# SPDX-License-Identifier: Apache-2.0
"""Folders of records as Meta-Dataset's converters leave them, imitated: JPEG images, and its three forms of spec."""

from __future__ import annotations

import io
import json

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tf_lwdgh.data import store
from tf_lwdgh.data.class_groups import groups
from tf_lwdgh.data.image_source import STORAGES, ImageSource
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.data.variable_episodes import VariableEpisodes

IMAGES = (3, 4, 2, 5, 3, 2)  # of each class
NAMES = ("n01", "n02", "n03", "n11", "n21", "n22")  # 3 classes of train, 1 of val, 2 of test
COMMON = {"name": "birds", "path": "/path/to/records/birds", "file_pattern": "{}.tfrecords"}
BY_ID = {"class_names": {str(i): n for i, n in enumerate(NAMES)}}
COUNTED = {"images_per_class": {str(i): n for i, n in enumerate(IMAGES)}}


def node(name, children=(), parents=()):
    return {
        "wn_id": name, "words": f"a {name}", "children_ids": list(children), "parents_ids": list(parents)
    }  # fmt: skip


PLAIN = {
    **COMMON, **BY_ID, **COUNTED, "__class__": "DatasetSpecification",
    "classes_per_split": {"TRAIN": 3, "VALID": 1, "TEST": 2},
}  # fmt: skip
BI_LEVEL = {
    **COMMON, **BY_ID, **COUNTED, "__class__": "BiLevelDatasetSpecification",
    "superclasses_per_split": {"TRAIN": 2, "VALID": 1, "TEST": 1},
    "classes_per_superclass": {"0": 2, "1": 1, "2": 1, "3": 2},
    "superclass_names": {"0": "a", "1": "b", "2": "c", "3": "d"},
}  # fmt: skip
GRAPH = {
    **COMMON, **BY_ID, "__class__": "HierarchicalDatasetSpecification",
    "split_subgraphs": {
        "TRAIN": [  # n02 lies below two nodes
            node("a", ["b", "c"]), node("b", ["n01", "n02"], ["a"]), node("c", ["n02", "n03"], ["a"]),
            node("n01", (), ["b"]), node("n02", (), ["b", "c"]), node("n03", (), ["c"]),
        ],
        "VALID": [node("n11")],
        "TEST": [node("n21", (), ["t"]), node("n22", (), ["t"]), node("t", ["n21", "n22"])],
    },
    "images_per_class": {
        "TRAIN": {"n01": 3, "n02": 4, "n03": 2, "b": 7, "c": 6, "a": 9},
        "VALID": {"n11": 5},
        "TEST": {"n21": 3, "n22": 2, "t": 5},
    },
}  # fmt: skip
FORMS = {"plain": PLAIN, "bi-level": BI_LEVEL, "graph": GRAPH}


def jpeg(class_id: int, image: int) -> bytes:
    pixels = np.full((12, 16, 3), (40 * class_id, 50 * image, 128), np.uint8)
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).save(out, format="JPEG", quality=95)
    return out.getvalue()


def write(folder, spec):
    """The folder as Meta-Dataset's converters leave it."""
    folder.mkdir(exist_ok=True)
    (folder / "dataset_spec.json").write_text(json.dumps(spec, indent=2), encoding="utf-8")
    for class_id, count in enumerate(IMAGES):
        with tf.io.TFRecordWriter(str(folder / f"{class_id}.tfrecords")) as writer:
            for image in range(count):
                encoded = tf.train.BytesList(value=[jpeg(class_id, image)])
                label = tf.train.Int64List(value=[class_id])
                feature = {
                    "image": tf.train.Feature(bytes_list=encoded),
                    "label": tf.train.Feature(int64_list=label),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_spec_loads_with_its_records(tmp_path, form):
    write(tmp_path / "birds", FORMS[form])
    folder, spec = store.open_dataset(tmp_path, "birds")
    assert [len(spec.classes(s)) for s in store.SPLITS] == [3, 1, 2]
    assert spec.images_per_class == IMAGES and spec.class_names == NAMES
    for storage in STORAGES:
        source = ImageSource(folder, spec, "test", ImageConfig(image_size=8, channels=3), storage)
        colours = source.gather(tf.range(5, dtype=tf.int64)).numpy().mean(axis=(1, 2))
        expected = [(160, 0), (160, 50), (160, 100), (200, 0), (200, 50)]
        np.testing.assert_allclose(colours[:, :2], expected, atol=4)


def test_superclasses_and_nodes_are_the_groups_of_tasks(tmp_path):
    small = VariableEpisodes(min_ways=2, max_ways_upper_bound=3)
    write(tmp_path / "two", {**BI_LEVEL, "classes_per_superclass": {"0": 3, "1": 1, "2": 2},
                             "superclasses_per_split": {"TRAIN": 1, "VALID": 1, "TEST": 1},
                             "superclass_names": {"0": "a", "1": "b", "2": "c"}})  # fmt: skip
    write(tmp_path / "graph", GRAPH)
    two, graph = (store.DatasetSpec.load(tmp_path / name) for name in ("two", "graph"))
    assert [g.members for g in groups(two, "train", small)] == [(0, 1, 2)]
    assert graph.nodes == ((0, 1, 2), (0, 1), (1, 2), (4, 5))
    found = groups(graph, "train", small)
    assert [(g.members, g.fewest, g.most) for g in found] == [((0, 1, 2), 3, 3), ((0, 1), 2, 2), ((1, 2), 2, 2)]
    assert [g.members for g in groups(graph, "test", small)] == [(4, 5)]


def test_a_graph_is_kept_when_the_spec_is_written_again_and_marks_the_data(tmp_path):
    write(tmp_path / "graph", GRAPH)
    spec = store.DatasetSpec.load(tmp_path / "graph")
    spec.write(tmp_path)
    again = store.DatasetSpec.load(tmp_path)
    assert again == spec and again.fingerprint == spec.fingerprint
    write(tmp_path / "plain", PLAIN)
    assert store.DatasetSpec.load(tmp_path / "plain").fingerprint != spec.fingerprint


def test_a_spec_without_a_graph_has_the_fingerprint_that_it_always_had(tmp_path):
    write(tmp_path / "plain", PLAIN)
    found = store.DatasetSpec.load(tmp_path / "plain").fingerprint
    assert found == "9fa3024b8613365cca7034205631b331d10e02cc020433ad6138ebff8e259013"


def changed(path, value):
    spec = json.loads(json.dumps(GRAPH))
    *way, last = path
    at = spec
    for key in way:
        at = at[key]
    at[last] = value
    return spec


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({**PLAIN, "file_pattern": "{}_{}.tfrecords"}, "file_pattern needs one {}"),
        ({**PLAIN, "images_per_class": {"0": {"train": 3, "test": 2}}}, "with pools of images.*not supported"),
        ({**PLAIN, "__class__": "Other"}, "__class__ must be"),
        (changed(["split_subgraphs", "TRAIN", 2, "children_ids"], ["n09"]), "hold every node's children.*n09"),
        (changed(["split_subgraphs", "TRAIN", 2, "children_ids"], ["a"]), "have no cycle.*'a'"),
        (changed(["split_subgraphs", "VALID", 0, "wn_id"], "n99"), r"\[VALID\] must have leaves of class_names.*n99"),
        (changed(["images_per_class", "TEST"], {"n21": 3}), r"images_per_class\[TEST\] must count.*n22"),
        (changed(["split_subgraphs", "VALID"], []), r"\[TEST\] must have the classes 3 to 4.*\[4, 5\]"),
        (changed(["split_subgraphs", "TRAIN"], {}), "must be a list of nodes"),
        (changed(["split_subgraphs"], []), "split_subgraphs must be a dictionary"),
    ],
)  # fmt: skip
def test_what_is_no_spec_or_not_supported_is_refused_by_name(tmp_path, spec, text):
    (tmp_path / "dataset_spec.json").write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(ValueError, match=f"(?s)dataset_spec.json.*{text}|{text}"):
        store.DatasetSpec.load(tmp_path)
