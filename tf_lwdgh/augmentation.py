"""Random and fixed changes of images: flip, shifted crop, colour jitter; quarter turns.

All randomness is stateless: the same key gives the same changes. Every image of a task is changed
independently of the others.
"""

from __future__ import annotations

import tensorflow as tf

from tf_lwdgh.images import ImageConfig

_PHILOX = "philox"
_FLIP, _CROP, _JITTER = 0, 1, 2
_LUMA = (0.299, 0.587, 0.114)


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
    """Applies the augmentations that the settings switch on, in the order flip, crop, colours.

    Args:
      images: [M, S, S, C] float32 in [0, 1].
      config: flip, crop_padding and color_jitter.
      key: [2] int64, the seed.

    Returns:
      [M, S, S, C] float32 in [0, 1].
    """
    if config.flip:
        mirrored = _uniform(images, key, _FLIP, 1)[:, :, None, None] < 0.5
        images = tf.where(mirrored, tf.reverse(images, [2]), images)
    if config.crop_padding:
        images = _shifted(images, config.crop_padding, _fold(key, _CROP))
    if config.color_jitter:
        factors = 1.0 + config.color_jitter * (2.0 * _uniform(images, key, _JITTER, 3) - 1.0)
        images = jitter_colors(images, factors)
    return images


def jitter_colors(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Scales brightness, then contrast, then saturation, clipping to [0, 1] after each.

    Brightness scales the pixels, contrast their distance from the image's mean luma, saturation
    their distance from their own luma (grey images have none).

    Args:
      images: [M, H, W, C] float32 in [0, 1].
      factors: [M, 3] float32: brightness, contrast, saturation; 1 changes nothing.
    """
    brightness, contrast, saturation = (factors[:, i, None, None, None] for i in range(3))
    images = tf.clip_by_value(images * brightness, 0.0, 1.0)
    mean = tf.reduce_mean(_luma(images), axis=[1, 2, 3], keepdims=True)
    images = tf.clip_by_value(mean + contrast * (images - mean), 0.0, 1.0)
    if images.shape[-1] == 1:
        return images
    luma = _luma(images)
    return tf.clip_by_value(luma + saturation * (images - luma), 0.0, 1.0)


def _shifted(images: tf.Tensor, padding: int, key: tf.Tensor) -> tf.Tensor:
    """Pads by black pixels and crops each image at its own random place."""
    size, count = images.shape[1], tf.shape(images)[0]
    offsets = tf.random.stateless_uniform(
        tf.stack([count, 2]), key, 0, 2 * padding + 1, dtype=tf.int32, alg=_PHILOX
    )
    edge = [padding, padding]
    padded = tf.pad(images, [[0, 0], edge, edge, [0, 0]])
    places = offsets[:, :, None] + tf.range(size)  # [M, 2, S]
    rows = tf.gather(padded, places[:, 0], axis=1, batch_dims=1)
    cropped = tf.gather(rows, places[:, 1], axis=2, batch_dims=1)
    return tf.ensure_shape(cropped, images.shape)


def _luma(images: tf.Tensor) -> tf.Tensor:
    if images.shape[-1] == 1:
        return images
    return tf.reduce_sum(images * tf.constant(_LUMA), axis=-1, keepdims=True)


def _uniform(images: tf.Tensor, key: tf.Tensor, stream: int, count: int) -> tf.Tensor:
    shape = tf.stack([tf.shape(images)[0], count])
    return tf.random.stateless_uniform(shape, _fold(key, stream), alg=_PHILOX)


def _fold(key: tf.Tensor, stream: int) -> tf.Tensor:
    return tf.random.fold_in(key, tf.constant(stream, tf.int64), alg=_PHILOX)
