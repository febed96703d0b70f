# SPDX-License-Identifier: Apache-2.0
"""Random and fixed changes of images: flip, shifted crop, colour jitter; quarter turns.

All randomness is stateless: the same key gives the same changes. Every image of a task is changed
independently of the others.
"""

from __future__ import annotations

import tensorflow as tf

from tf_lwdgh.data.images import LUMA, ImageConfig

_PHILOX = "philox"
_FLIP, _CROP, _JITTER = 0, 1, 2  # the independent random streams


def rotate(images: tf.Tensor, quarter_turns: tf.Tensor) -> tf.Tensor:
    """Turns images anticlockwise by multiples of 90 degrees, as np.rot90 does.

    Args:
      images: [M, S, S, C] of any dtype.
      quarter_turns: [M] integers in [0, 4).

    Returns:
      [M, S, S, C].
    """
    turns = quarter_turns[:, None, None, None]
    images = tf.where(turns % 2 == 1, tf.transpose(images, [0, 2, 1, 3]), images)
    images = tf.where((turns == 1) | (turns == 2), tf.reverse(images, [1]), images)
    return tf.where((turns == 2) | (turns == 3), tf.reverse(images, [2]), images)


def augment(images: tf.Tensor, config: ImageConfig, key: tf.Tensor) -> tf.Tensor:
    """Applies the augmentations that the settings switch on: crop, flip, then colours.

    Args:
      images: [M, S, S, C] float32 in [0, 1].
      config: flip, crop_padding and color_jitter.
      key: [2] int64, the seed.

    Returns:
      [M, S, S, C] float32 in [0, 1].
    """
    count = tf.shape(images)[0]
    if config.crop_padding:
        offsets = tf.random.stateless_uniform(
            tf.stack([count, 2]),
            _fold(key, _CROP),
            0,
            2 * config.crop_padding + 1,
            dtype=tf.int32,
            alg=_PHILOX,
        )
        images = crop(images, config.crop_padding, offsets)
    if config.flip:
        images = flip(images, _uniform(key, _FLIP, tf.stack([count])) < 0.5)
    if config.color_jitter:
        uniform = _uniform(key, _JITTER, tf.stack([count, 3]))
        images = jitter_colors(images, 1.0 + config.color_jitter * (2.0 * uniform - 1.0))
    return images


def flip(images: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
    """Mirrors those of the images [M, S, S, C] left to right for which mirrored [M] is true."""
    forwards = tf.range(images.shape[2])
    columns = tf.where(mirrored[:, None], forwards[::-1], forwards)
    return tf.gather(
        images, columns, axis=2, batch_dims=1
    )  # 2 times faster than tf.where on pixels


def crop(images: tf.Tensor, padding: int, offsets: tf.Tensor) -> tf.Tensor:
    """Pads by black pixels on all sides and cuts each image out again at its own place.

    Args:
      images: [M, S, S, C] in [0, 1].
      padding: pixels on each side.
      offsets: [M, 2] int32 in [0, 2 * padding]: the first row and column kept.

    Returns:
      [M, S, S, C].
    """
    edge = [padding, padding]
    padded = tf.pad(images, [[0, 0], edge, edge, [0, 0]])
    places = offsets[:, :, None] + tf.range(images.shape[1])  # [M, 2, S]
    rows = tf.gather(padded, places[:, 0], axis=1, batch_dims=1)
    return tf.gather(rows, places[:, 1], axis=2, batch_dims=1)


def jitter_colors(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Scales brightness, then contrast, then saturation, clipping to [0, 1] after each.

    Brightness scales the pixels, contrast their distance from the image's mean luma, saturation
    their distance from their own luma (grey images have none).

    Args:
      images: [M, S, S, C] float32 in [0, 1].
      factors: [M, 3] float32: brightness, contrast, saturation; 1 changes nothing.

    Returns:
      [M, S, S, C] float32 in [0, 1].
    """
    brightness, contrast, saturation = (factors[:, i, None, None, None] for i in range(3))
    channels = images.shape[-1]
    luma = tf.constant([1.0] if channels == 1 else LUMA)
    images = tf.clip_by_value(images * brightness, 0.0, 1.0)
    mean = tf.reduce_sum(tf.reduce_mean(images, axis=[1, 2], keepdims=True) * luma, -1, True)
    images = tf.clip_by_value(images * contrast + (1.0 - contrast) * mean, 0.0, 1.0)
    if channels == 1:
        return images
    to_luma = tf.tile(
        luma[:, None], [1, channels]
    )  # pixels [.., C] @ [C, C] -> their luma, C times
    mixing = saturation[:, 0] * tf.eye(channels) + (1.0 - saturation[:, 0]) * to_luma
    pixels = tf.matmul(
        tf.reshape(images, [-1, images.shape[1] * images.shape[2], channels]), mixing
    )
    pixels = tf.ensure_shape(tf.reshape(pixels, tf.shape(images)), images.shape)
    return tf.clip_by_value(pixels, 0.0, 1.0)


def _uniform(key: tf.Tensor, stream: int, shape: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_uniform(shape, _fold(key, stream), alg=_PHILOX)


def _fold(key: tf.Tensor, stream: int) -> tf.Tensor:
    return tf.random.fold_in(key, tf.constant(stream, tf.int64), alg=_PHILOX)
