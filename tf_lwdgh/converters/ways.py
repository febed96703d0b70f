# SPDX-License-Identifier: Apache-2.0
"""Which tasks the splits of a data set allow, in words, and where they are few."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tf_lwdgh.data import store

_USUAL_WAYS, _USUAL_IMAGES = 5, 16  # 1 shot and 15 queries
_FEW = 200  # sets of classes: as many as tasks of a validation


def lines(spec: store.DatasetSpec) -> Iterator[str]:
    """The largest tasks of each split, then a note for each split whose tasks are too small or too few."""
    for split in store.SPLITS:
        ways, images = _largest(spec, split)
        if ways:
            yield f"tasks of {split}: up to {ways} ways, k_shot + n_query up to {images}"
    for split in store.SPLITS:
        note = _note(split, _largest(spec, split)[0])
        if note:
            yield f"note: {note}"
    yield from _note_of_smallest(spec)


def _largest(spec: store.DatasetSpec, split: str) -> tuple[int, int]:
    """The number of classes, and of the images of the smallest."""
    classes = spec.classes(split)
    return len(classes), min((spec.images_per_class[c] for c in classes), default=0)


def _note(split: str, ways: int) -> str | None:
    """What is to be known of a split with few classes."""
    if ways < 2:
        return f"{split} has {'one class' if ways else 'no class'}, and a task needs two"
    sets = math.comb(ways, _USUAL_WAYS)
    if not sets:
        return (
            f"{split} has {ways} classes, fewer than the usual {_USUAL_WAYS} ways: give it more, or train "
            f"with --gin_param='N_WAY = {ways}'"
        )
    if sets < _FEW:
        of = "one set" if sets == 1 else f"{sets} sets"
        return (
            f"{split} has {ways} classes: its {_USUAL_WAYS}-way tasks are of {of} of classes, and so repeat; "
            "more classes would tell more"
        )
    return None


def _note_of_smallest(spec: store.DatasetSpec) -> Iterator[str]:
    images = min(spec.images_per_class)
    if images >= _USUAL_IMAGES:
        return
    name = spec.class_names[spec.images_per_class.index(images)]
    queries = f"train with --gin_param='N_QUERY = {images - 1}', or " if images > 1 else ""
    yield (
        f"note: the smallest class, {name!r}, has {images} images, fewer than the usual {_USUAL_IMAGES} "
        f"(k_shot = 1, n_query = {_USUAL_IMAGES - 1}): {queries}leave such classes out with "
        f"--min_images={_USUAL_IMAGES} --skip_bad"
    )
