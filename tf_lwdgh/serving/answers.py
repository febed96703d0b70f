# SPDX-License-Identifier: Apache-2.0
"""Answers of a learned classifier to encoded images: asked for in calls of bounded memory, written as CSV."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_lwdgh.serving.loaded import Loaded

AT_ONCE = 16  # images of a call, decoded together


class Answer(NamedTuple):
    """What a model says of one image.

    Attributes:
      name: the image's.
      probabilities: [N] of the classes, in their order.
    """

    name: str
    probabilities: np.ndarray

    @property
    def label(self) -> int:
        """The most probable class."""
        return int(np.argmax(self.probabilities))


def learn(model: Loaded, images: Sequence[Sequence[bytes]]) -> dict[str, np.ndarray]:
    """The classifier of a support set.

    Args:
      model: the model.
      images: encoded, of each class.

    Raises:
      ValueError: the model can't learn them; the message says why.
    """
    labels = [label for label, of_class in enumerate(images) for _ in of_class]
    return model.adapt(list(itertools.chain.from_iterable(images)), labels)


def ask(model: Loaded, classifier: Mapping[str, Any], images: Iterable[tuple[str, bytes]]) -> Iterator[Answer]:
    """Answer after answer, of images with their names.

    Where answers depend on the other queries of a call, all images are in one call; else the images may be
    any number, of which few are in memory at once.

    Raises:
      ValueError: the classifier is not one of this model, or there are more images than a call may have.
    """
    together = model.metadata["predictions_depend_on_the_other_queries"]
    images = iter(images)
    while chunk := list(itertools.islice(images, None if together else AT_ONCE)):
        names, encoded = zip(*chunk, strict=True)
        found = model.predict(classifier, encoded)["probabilities"]
        yield from map(Answer, names, found)


def as_csv(answers: Iterable[Answer], class_names: Sequence[str]) -> str:
    """A row an image: its name, the answer, that one's probability, and the probability of each class."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", "answer", "probability", *class_names])
    for answer in answers:
        shown = [f"{p:.6f}" for p in answer.probabilities]
        rows.writerow([answer.name, class_names[answer.label], shown[answer.label], *shown])
    return text.getvalue()
