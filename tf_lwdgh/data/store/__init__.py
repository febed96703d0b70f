# SPDX-License-Identifier: Apache-2.0
"""Data sets on disk: Meta-Dataset's TFRecords, one file a class, described by dataset_spec.json.

A record is a tf.train.Example {image: bytes (PNG or JPEG), label: int64}. Class ids run on from
train to val to test. Records and specs that Meta-Dataset's converters wrote load here, and ours
load there.
"""

from tf_lwdgh.data.store.croissant import CROISSANT_FILE
from tf_lwdgh.data.store.example import serialise
from tf_lwdgh.data.store.index import INDEX_FILES, index_split
from tf_lwdgh.data.store.records import Fault, RecordFile, check_files, class_path, read_class
from tf_lwdgh.data.store.scratch import scratch_folder
from tf_lwdgh.data.store.spec import SPEC_FILE, SPLITS, DatasetSpec, dataset_names, open_dataset
from tf_lwdgh.data.store.writer import encode_png, is_finished, write_dataset

__all__ = [
    "CROISSANT_FILE", "INDEX_FILES", "SPEC_FILE", "SPLITS", "DatasetSpec", "Fault", "RecordFile",
    "check_files", "class_path", "dataset_names", "encode_png", "index_split", "is_finished", "open_dataset",
    "read_class", "scratch_folder", "serialise", "write_dataset",
]  # fmt: skip
