# SPDX-License-Identifier: Apache-2.0
"""The index beside the records: kept, used, rebuilt, and done without."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os

import numpy as np
import pytest
import tensorflow as tf

from tests import records
from tf_lwdgh.data import store
from tf_lwdgh.data.image_source import ImageSource
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.data.store import index as indexing


@pytest.fixture
def made(tmp_path):
    return tmp_path / "tiny", records.write_records(tmp_path / "tiny")


@pytest.fixture
def walked(monkeypatch) -> list[int]:
    """The classes whose records are read, as they are read."""
    seen, walk = [], indexing._walk

    def watched(file):
        seen.append(file.class_id)
        return walk(file)

    monkeypatch.setattr(indexing, "_walk", watched)
    return seen


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_what_was_indexed_is_not_read_again(made, walked):
    first = store.index_split(*made, "train")
    assert walked == list(range(6)) and (made[0] / ".index.train").exists()
    assert same(store.index_split(*made, "train"), first) and len(walked) == 6
    store.index_split(*made, "val")
    assert walked[6:] == [6, 7, 8] and sorted(n for n in os.listdir(made[0]) if n[0] == ".") == [
        ".index.train", ".index.val",
    ]  # fmt: skip
    for places, count in zip(first, records.SIZES["train"], strict=True):
        assert places.dtype == np.int64 and places.shape == (count, 2)


def test_a_file_that_changed_is_read_anew_and_no_other(made, walked):
    folder, spec = made[0], dataclasses.replace(made[1], class_checksums=())
    first = store.index_split(folder, spec, "train")
    os.utime(folder / "3.tfrecords", ns=(1, 1))
    assert same(store.index_split(folder, spec, "train"), first) and walked[6:] == [3]
    records.write_records(folder.parent / "other", shape=(9, 9, 3))
    os.replace(folder.parent / "other" / "2.tfrecords", folder / "2.tfrecords")
    changed = store.index_split(folder, spec, "train")
    assert walked[7:] == [2] and not np.array_equal(changed[2], first[2])
    assert same(changed[:2] + changed[3:], first[:2] + first[3:])
    assert same(store.index_split(folder, spec, "train"), changed) and len(walked) == 8


def test_a_damaged_index_is_made_anew(made, walked):
    first = store.index_split(*made, "train")
    path = made[0] / ".index.train"
    whole = path.read_bytes()
    flipped = [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(0, len(whole), 7)]
    cut = [whole[:i] for i in range(0, len(whole), 29)]
    for damaged in (*flipped, *cut, whole + b"\0"):
        path.write_bytes(damaged)
        walked.clear()
        assert same(store.index_split(*made, "train"), first) and len(walked) == 6
        assert path.read_bytes() == whole


def test_an_index_that_contradicts_the_files_counts_for_nothing(made, walked):
    """Whole by its checksum, with the files' sizes and times, and places that are not the records'."""
    first = store.index_split(*made, "train")
    table, lengths = indexing._read(made[0] / ".index.train", indexing_table(made))
    indexing._keep(made[0] / ".index.train", table, [part + 1 for part in lengths])
    assert same(store.index_split(*made, "train"), first) and len(walked) == 12


def indexing_table(made):
    paths = [store.class_path(*made, c) for c in made[1].classes("train")]
    return np.array([indexing._stamp(path) for path in paths], indexing._CLASS)


def test_a_folder_that_cannot_be_written_does_without(made, walked, monkeypatch, caplog):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "…/.index.train")

    monkeypatch.setattr(indexing.files, "write", refuse)
    with caplog.at_level(logging.INFO, logger=indexing.__name__):
        first = store.index_split(*made, "train")
        assert same(store.index_split(*made, "train"), first) and len(walked) == 12
    assert "no index is kept" in caplog.text and not (made[0] / ".index.train").exists()


def _open_often(folder, spec, start):
    start.wait()
    for _ in range(20):
        store.index_split(folder, spec, "train")
        os.utime(folder / "1.tfrecords")


def test_several_processes_may_index_at_once(made):
    first = store.index_split(*made, "train")
    context = multiprocessing.get_context("fork")
    start = context.Event()
    several = [context.Process(target=_open_often, args=(*made, start)) for _ in range(3)]
    for process in several:
        process.start()
    start.set()
    for process in several:
        process.join(60)
        assert process.exitcode == 0
    assert same(store.index_split(*made, "train"), first)
    assert sorted(n for n in os.listdir(made[0]) if n[0] == ".") == [".index.train"]


def test_with_or_without_an_index_the_images_are_the_same(made):
    rows = tf.range(20, dtype=tf.int64)
    config = ImageConfig(image_size=8)
    fresh = ImageSource(*made, "train", config, "disk").gather(rows)
    again = ImageSource(*made, "train", config, "disk").gather(rows)
    encoded = ImageSource(*made, "train", config, "encoded").gather(rows)
    assert np.array_equal(fresh, again) and np.array_equal(fresh, encoded)
