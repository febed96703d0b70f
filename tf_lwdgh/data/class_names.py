# SPDX-License-Identifier: Apache-2.0
"""What the classes of a split are called, by the numbers that they have in an Episode."""

from __future__ import annotations

import collections

from tf_lwdgh.data.episodes import N_ROTATIONS, TaskShape
from tf_lwdgh.data.mixtures import Mixture, Spec


def class_names(spec: Spec, split: str, shape: TaskShape) -> list[str]:
    """The names by class number (Episode.class_ids), each different.

    Those of a mixture have the set's name and a slash in front, classes that are turned their angle behind,
    and those that would share a name their number.

    Args:
      spec: the data set or mixture.
      split: 'train', 'val' or 'test'.
      shape: the tasks' shape, which says whether classes are turned.
    """
    if isinstance(spec, Mixture):
        parts = zip(spec.names, spec.specs, strict=True)
        names = [f"{s}/{part.class_names[c]}" for s, part in parts for c in part.classes(split)]
    else:
        names = [spec.class_names[c] for c in spec.classes(split)]
    if getattr(shape, "rotations", False):
        names = [f"{n}, {90 * r}°" if r else n for r in range(N_ROTATIONS) for n in names]
    shared = {n for n, count in collections.Counter(names).items() if count > 1}
    return [f"{n} (class {i})" if n in shared else n for i, n in enumerate(names)]
