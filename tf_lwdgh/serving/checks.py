# SPDX-License-Identifier: Apache-2.0
"""What a served model asks of its inputs, as assertions in its graph that say what is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


class Checks:
    """Assertions in a graph, one after the other, so that the first that fails is the one told.

    Attributes:
      passed: what must have run before the inputs count as checked, for tf.control_dependencies.
    """

    def __init__(self) -> None:
        self.passed: list[tf.Operation] = []

    def require(self, holds: tf.Tensor, rule: str, received: tf.Tensor) -> None:
        """Adds an assertion.

        Args:
          holds: scalar bool.
          rule: what must hold, in words.
          received: what came instead; of a long one its ends are shown.
        """
        with tf.control_dependencies(self.passed):
            shown = tf.identity(received)
            text = tf.strings.format(f"{rule}. Received: {{}}.", shown, summarize=10)
            check = tf.debugging.Assert(tf.identity(holds), [text])
        if check is not None:  # eager execution has already checked
            self.passed = [check]

    def images(self, name: str, images: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
        """Images must be some, of a size, and with values that their dtype may have.

        Args:
          name: what they are called.
          images: uint8 in 0..255, float in [0, 1], or encoded images as strings; of any rank.
          size: height, width and channels.

        Returns:
          The images once they are checked, [B, H, W, C], of strings [B].
        """
        images = self.shaped(name, images, [None] if images.dtype == tf.string else [None, *size])
        count = tf.shape(images)[0]
        self.require(count > 0, f"{name}: there must be at least one image", count)
        if images.dtype.is_floating:
            self._float_values(name, images)
        elif images.dtype == tf.uint8:
            self._uint8_values(name, images)
        return self.guarded(images)

    def _uint8_values(self, name: str, images: tf.Tensor) -> None:
        # NumPy's float images in [0, 1] come in silently cut down to 0 and 1. One black image may be
        # meant; a support set that is black as a whole teaches nothing.
        largest = tf.cast(tf.reduce_max(images), tf.int32)
        self.require(
            largest > 1 if name.startswith("support") else largest != 1,
            f"{name}: uint8 images must lie in 0..255, with some pixel above 1; pass float "
            "images in [0, 1] to the function whose name ends in _float",
            largest,
        )

    def _float_values(self, name: str, images: tf.Tensor) -> None:
        not_finite = tf.reduce_sum(tf.cast(~tf.math.is_finite(images), tf.int32))
        finite = f"{name}: every value must be finite, no NaN or infinity"
        self.require(not_finite == 0, finite, not_finite)
        extremes = tf.stack([tf.reduce_min(images), tf.reduce_max(images)])
        self.require(
            (extremes[0] >= 0) & (extremes[1] <= 1),
            f"{name}: float images must lie in [0, 1]; pass those in 0..255 as uint8 to the function without _float",
            extremes,
        )

    def labels(self, labels: tf.Tensor, n_images: tf.Tensor, most_ways: int | None) -> tf.Tensor:
        """Support labels must be 0, 1, ..., way - 1, each with an example.

        Args:
          labels: float, of any rank.
          n_images: scalar int32, the number of support images.
          most_ways: that the learner takes; None: any number.

        Returns:
          The labels once they are checked, [n_images] int32.
        """
        labels = self.shaped("support_labels", labels, [None])
        counts = tf.stack([n_images, tf.shape(labels)[0]])
        lengths = "support_images and support_labels must be of one length"
        self.require(counts[0] == counts[1], lengths, counts)
        whole = tf.reduce_all(labels == tf.round(labels))  # of NaN it does not hold
        self.require(whole, "support_labels must be whole numbers, no fractions or NaN", labels)
        start = "support_labels must be 0, 1, ..., way - 1"
        self.require(tf.reduce_min(labels) >= 0, start, labels)
        # Of a label this large some label before it has no example; int32 does not hold every float.
        largest = tf.maximum(n_images, most_ways or 0)
        known = tf.cast(tf.minimum(labels, tf.cast(largest, labels.dtype)), tf.int32)
        n_way = tf.reduce_max(known) + 1
        if most_ways is not None:
            rule = f"support_labels: the model's head has {most_ways} ways, 0..{most_ways - 1}"
            self.require(n_way <= most_ways, rule, labels)
        present, _ = tf.unique(known)
        self.require(
            tf.size(present) == n_way,
            "support_labels: every label of 0, 1, ..., largest must have an example",
            labels,
        )
        return self.guarded(known)

    def shaped(self, name: str, tensor: tf.Tensor, sizes: Sequence[int | None]) -> tf.Tensor:
        """A tensor that must have a shape, once that is checked: with as many axes as that has."""
        self.shape(name, tensor, sizes, tf.constant(0))
        return self.guarded(tensor, sizes)

    def guarded(self, tensor: tf.Tensor, shape: Sequence[int | None] | None = None) -> tf.Tensor:
        """A tensor that is there only once every check so far has passed.

        Args:
          tensor: the tensor.
          shape: that it has then. By tf.ensure_shape, TensorFlow's own words might come before the
            checks'.
        """
        with tf.control_dependencies(self.passed):
            tensor = tf.identity(tensor)
        if shape is not None:
            tensor.set_shape(shape)
        return tensor

    def shape(self, name: str, tensor: tf.Tensor, sizes: Sequence[int | str | None], n_way: tf.Tensor) -> None:
        """A tensor of unknown rank must have a shape.

        Args:
          name: what it is called.
          tensor: the tensor.
          sizes: the shape; None: any size; a word: the task's ways.
          n_way: scalar int32, the ways.
        """
        said = [-1 if s is None else n_way if isinstance(s, str) else s for s in sizes]
        wanted = tf.stack(said) if said else tf.zeros([0], tf.int32)
        shape = tf.shape(tensor)
        # As long as what is wanted, whatever the rank, so that the comparison itself can't fail.
        known = tf.concat([shape, tf.fill([len(sizes)], -1)], 0)[: len(sizes)]
        same = tf.reduce_all((known == wanted) | (wanted == -1))
        listed = ", ".join("any" if s is None else str(s) for s in sizes)
        rule = f"{name} must have shape [{listed}]"
        self.require((tf.size(shape) == len(sizes)) & same, rule, shape)
