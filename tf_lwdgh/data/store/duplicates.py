# SPDX-License-Identifier: Apache-2.0
"""Images that a data set holds twice, byte for byte."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from tf_lwdgh.data.store.findings import Finding, Findings
from tf_lwdgh.data.store.records import class_path
from tf_lwdgh.data.store.spec import SPLITS, DatasetSpec


def find_duplicates(
    folder: str | os.PathLike,
    spec: DatasetSpec,
    images: Sequence[tuple[bytes, Sequence[int]]],
    findings: Findings,
) -> None:
    """Warns of every image of which another split holds the same bytes, and once of those within a split.

    Args:
      folder: the records'.
      spec: their description.
      images: of each class, 16 bytes of hash of each image and the numbers of their records.
      findings: is told.
    """
    digests = np.frombuffer(b"".join(d for d, _ in images), np.uint64).reshape(-1, 2)
    classes = np.repeat(np.arange(len(images)), [len(numbers) for _, numbers in images])
    records = np.concatenate([np.asarray(numbers, np.int64) for _, numbers in images] or [np.zeros(0, np.int64)])
    splits = np.repeat(np.arange(len(SPLITS)), [spec.classes_per_split[s] for s in SPLITS])
    order = np.lexsort(digests.T)  # stable: the first of equal images is the first of the data set
    same = (digests[order][1:] == digests[order][:-1]).all(axis=1)
    groups = np.split(order, np.flatnonzero(~same) + 1) if same.any() else []

    def name(i: int) -> str:
        c = int(classes[i])
        split, path = SPLITS[splits[c]], class_path(folder, spec, c)
        return f"record {records[i]} of {path} (class {c}, {spec.class_names[c]!r}, {split})"

    within = []
    for group in groups:
        first, *others = group
        for other in others:
            if splits[classes[other]] != splits[classes[first]]:
                what = f"the same image is in two splits: {name(first)} and {name(other)}."
                place = (class_path(folder, spec, int(classes[other])), int(classes[other]))
                findings.warn(Finding(what, *place, int(records[other])))
            else:
                within.append((first, other))
    if within:
        first, other = within[0]
        findings.warn(Finding(
            f"{len(within):,} images are in the data set again within their split, the first of them "
            f"{name(first)} and {name(other)}."
        ))  # fmt: skip
