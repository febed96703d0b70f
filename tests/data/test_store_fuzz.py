# SPDX-License-Identifier: Apache-2.0
"""Specs, record files and indices that chance made: taken whole, or refused by their own error.

Each of the tests below tries EXAMPLES inputs; STORE_FUZZ_EXAMPLES sets another number.
"""

from __future__ import annotations

import json
import os
import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import records
from tf_lwdgh.data import store
from tf_lwdgh.data.store import DatasetSpec, index
from tf_lwdgh.data.store.examination import examine
from tf_lwdgh.data.store.records import masked_crc32c

EXAMPLES = int(os.environ.get("STORE_FUZZ_EXAMPLES", "100"))
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES <= 100,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
SHORT_TEXT = st.text(max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | SHORT_TEXT | st.sampled_from([2**31, 2**63, 10**30])
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(SHORT_TEXT, v, max_size=4), max_leaves=8
)


@pytest.fixture(scope="module")
def made():
    """A folder of records, their spec, and the bytes of each file."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "tiny"
        spec = records.write_records(folder)
        store.index_split(folder, spec, "val")
        yield folder, spec, {path.name: path.read_bytes() for path in folder.iterdir()}


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """The content with some bytes changed, cut out, put in or doubled."""
    out = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(out) - 1)))
        kind = data.draw(st.sampled_from(["change", "cut", "insert", "double", "end"]))
        size = data.draw(st.integers(1, 40))
        if kind == "change":
            out[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
        elif kind == "cut":
            del out[at : at + size]
        elif kind == "insert":
            out[at:at] = data.draw(st.binary(max_size=20))
        elif kind == "double":
            out[at:at] = out[at : at + size]
        else:
            del out[at:]
    return bytes(out)


def loads_or_is_refused(folder: pathlib.Path, text: bytes) -> None:
    (folder / store.SPEC_FILE).write_bytes(text)
    try:
        spec = DatasetSpec.load(folder)
    except ValueError as error:
        assert str(error).startswith(str(folder / store.SPEC_FILE)) and len(str(error)) < 2000
        return
    assert len(spec.images_per_class) == len(spec.class_names) == sum(spec.classes_per_split.values())
    names = {store.class_path(folder, spec, c) for c in range(len(spec.class_names))}
    assert len(names) == len(spec.class_names) and all(os.path.dirname(n) == str(folder) for n in names)
    spec.write(folder)
    assert DatasetSpec.load(folder) == spec and len(spec.fingerprint) == 64


@FUZZ
@given(data=st.data())
def test_specs_with_any_values(made, data):
    content = json.loads(made[2][store.SPEC_FILE])
    for place in (content, content["tf_lwdgh"]):
        for key in data.draw(st.lists(st.sampled_from(sorted(place)), max_size=2)):
            place[key] = data.draw(VALUES)
    with tempfile.TemporaryDirectory() as folder:
        loads_or_is_refused(pathlib.Path(folder), json.dumps(content).encode())


@FUZZ
@given(data=st.data())
def test_specs_with_damaged_bytes(made, data):
    with tempfile.TemporaryDirectory() as folder:
        loads_or_is_refused(pathlib.Path(folder), damaged(data, made[2][store.SPEC_FILE]))


def read_or_refused(folder: pathlib.Path, spec: DatasetSpec, name: str) -> None:
    """Loading and indexing agree on the file; the examination finds a fault where they do."""
    outcomes = []
    for read in (lambda: store.read_class(folder, spec, 6), lambda: store.index_split(folder, spec, "val")):
        try:
            outcomes.append(len(read()) > 0)
        except ValueError as error:
            assert str(error).startswith(f"{folder}/6.tfrecords (class 6, 'val-0')"), error
            outcomes.append(False)
    assert outcomes[0] == outcomes[1]
    if not outcomes[0]:
        assert any(f.file == str(folder / name) for f in examine(folder, spec, threads=1).faults)


@FUZZ
@given(data=st.data())
def test_record_files_with_damaged_bytes(made, data):
    folder, spec, contents = made
    content = damaged(data, contents["6.tfrecords"])
    (folder / "6.tfrecords").write_bytes(content)
    if content != contents["6.tfrecords"]:
        with pytest.raises(ValueError):
            store.read_class(folder, spec, 6)
    read_or_refused(folder, spec, "6.tfrecords")


@FUZZ
@given(parts=st.lists(st.binary(max_size=60), max_size=5), lengths=st.lists(st.integers(0, 2**64 - 1), max_size=1))
def test_record_files_whose_checksums_are_right(made, parts, lengths):
    """Any data in whole frames, and a last header, right by its checksum, of any length."""
    folder, spec, _ = made
    content = b""
    for part in parts:
        length = len(part).to_bytes(8, "little")
        content += length + masked_crc32c(length).to_bytes(4, "little")
        content += part + masked_crc32c(part).to_bytes(4, "little")
    for number in lengths:
        length = number.to_bytes(8, "little")
        content += length + masked_crc32c(length).to_bytes(4, "little") + b"end"
    (folder / "6.tfrecords").write_bytes(content)
    read_or_refused(folder, spec, "6.tfrecords")


@FUZZ
@given(data=st.data())
def test_indices_with_damaged_bytes(made, data):
    folder, spec, contents = made
    (folder / "6.tfrecords").write_bytes(contents["6.tfrecords"])
    expected = [index._places(index._walk(store.RecordFile(folder, spec, c))[0]) for c in spec.classes("val")]
    (folder / ".index.val").write_bytes(damaged(data, contents[".index.val"]))
    found = store.index_split(folder, spec, "val")
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
