# SPDX-License-Identifier: Apache-2.0
"""From stored bytes to the network's input: decode, resize, convert, normalise.

Pixels are uint8 in storage and float32 in [0, 1] up to the normalisation, which comes last.
S is ImageConfig.image_size, C is ImageConfig.channels.
"""

from __future__ import annotations

import dataclasses
import numbers

import tensorflow as tf

from tf_lwdgh import config as gin_config

NORMALISATIONS = ("unit", "signed", "standard")
RESIZES = ("area", "bilinear", "bicubic", "lanczos3", "nearest")
LARGEST = 4096  # pixels; a task of such images fills 10 GB
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode L


@gin_config.configurable
@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """What is done to an image on its way to the network.

    Attributes:
      image_size: height and width S of the network's input, at most 4096; other sizes are resized to
        it, without keeping the aspect ratio.
      channels: C, 1 (grey) or 3 (RGB); images are converted.
      normalisation: 'unit' for values in [0, 1], 'signed' for [-1, 1], 'standard' for
        (x - mean) / std with x in [0, 1].
      mean: C values, for 'standard' only.
      std: C positive values, for 'standard' only.
      invert: black becomes white (usual with Omniglot: white strokes on black).
      resize: 'area', 'bilinear', 'bicubic', 'lanczos3' (these three antialiased) or 'nearest'.
      flip: augmentation: mirrors half of the images left to right.
      crop_padding: augmentation: pads by so many black pixels, then crops S x S at random.
      color_jitter: augmentation: brightness, contrast and saturation are each scaled by a factor in
        [1 - color_jitter, 1 + color_jitter]. In [0, 1).

    Raises:
      ValueError: a value breaks its rule; the message names the gin binding.
    """

    image_size: int = 84
    channels: int = 3
    normalisation: str = "unit"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    invert: bool = False
    resize: str = "area"
    flip: bool = False
    crop_padding: int = 0
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        whole = _is_int(self.image_size, 1) and self.image_size <= LARGEST
        self._require("image_size", whole, f"must be an integer from 1 to {LARGEST}")
        self._require("channels", self.channels in (1, 3), "must be 1 (grey) or 3 (RGB)")
        self._require(
            "normalisation", self.normalisation in NORMALISATIONS, _one_of(NORMALISATIONS)
        )
        self._require("resize", self.resize in RESIZES, _one_of(RESIZES))
        for name in ("invert", "flip"):
            self._require(name, isinstance(getattr(self, name), bool), "must be True or False")
        self._require("crop_padding", _is_int(self.crop_padding, 0), "must be an integer >= 0")
        jitter = isinstance(self.color_jitter, numbers.Real) and 0 <= self.color_jitter < 1
        self._require("color_jitter", jitter, "must be a number in [0, 1)")
        for name in ("mean", "std"):
            self._check_moments(name)

    def _check_moments(self, name: str) -> None:
        values = getattr(self, name)
        if self.normalisation != "standard":
            rule = f"belongs to normalisation 'standard' only, not to {self.normalisation!r}"
            self._require(name, values is None, rule)
            return
        rule = f"must hold {self.channels} numbers (one a channel, pixels in [0, 1])"
        fits = isinstance(values, (tuple, list)) and len(values) == self.channels
        fits = fits and all(isinstance(v, numbers.Real) for v in values)
        self._require(name, fits, rule + " with normalisation 'standard'")
        if name == "std":
            self._require(name, all(v > 0 for v in values), "must be positive")
        object.__setattr__(
            self, name, tuple(float(v) for v in values)
        )  # a list from gin hashes not

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            value = getattr(self, name)
            raise ValueError(
                f"ImageConfig.{name} {rule}. Received: ImageConfig.{name} = {value!r}."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, S, C)."""
        return (self.image_size, self.image_size, self.channels)

    @property
    def augments(self) -> bool:
        """Whether any augmentation is switched on."""
        return self.flip or self.crop_padding > 0 or self.color_jitter > 0


def decode(encoded: tf.Tensor, config: ImageConfig, stored_size: int | None = None) -> tf.Tensor:
    """Decodes PNG or JPEG images, grey or RGB, to the configured size and channels.

    Args:
      encoded: [M] string.
      config: gives S, C and the resize method.
      stored_size: the height and width of all stored images where it is known; where it equals S
        nothing is resized.

    Returns:
      [M, S, S, C] uint8.

    Raises:
      tf.errors.InvalidArgumentError: when it runs, on bytes that are no such image, or one that is
        not of stored_size.
    """

    @tf.autograph.experimental.do_not_convert
    def one(item: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(item, channels=3, expand_animations=False)
        if stored_size == config.image_size:
            image = tf.ensure_shape(image, [stored_size, stored_size, 3])
        else:
            image = _resize(tf.ensure_shape(image, [None, None, 3]), config)
        return image if config.channels == 3 else _grey(image)

    signature = tf.TensorSpec(config.shape, tf.uint8)
    return tf.map_fn(one, encoded, fn_output_signature=signature)


def preprocess(images: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """Turns pixels into the network's input; only graph operations, for training and serving alike.

    Args:
      images: [..., S, S, C], uint8 in 0..255 or floating in [0, 1], not yet inverted.
      config: the image settings; augmentation is not part of this.

    Returns:
      [..., S, S, C] float32, inverted and normalised as configured.

    Raises:
      ValueError: wrong dtype, height, width or channels. Where those are unknown until the graph
        runs it is a tf.errors.InvalidArgumentError with the same text.
    """
    return normalise(to_unit(images, config), config)


def to_unit(images: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """The first half of `preprocess`: float32 in [0, 1], inverted if so configured."""
    images = _checked(tf.convert_to_tensor(images), config)
    unit = tf.cast(images, tf.float32)
    if images.dtype == tf.uint8:
        unit = unit * (1.0 / 255.0)
    return 1.0 - unit if config.invert else unit


def normalise(images: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """The second half of `preprocess`: float32 in [0, 1] to the configured range."""
    if config.normalisation == "signed":
        return images * 2.0 - 1.0
    if config.normalisation == "standard":
        return (images - tf.constant(config.mean)) / tf.constant(config.std)
    return images


def _checked(images: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """Refuses what the settings do not fit: at once where shapes are known, else in the graph."""
    if images.dtype != tf.uint8 and not images.dtype.is_floating:
        raise ValueError(
            "images must be uint8 in 0..255 or floating in [0, 1]. "
            f"Received: dtype {images.dtype.name}."
        )
    rule = (
        f"images must be [..., {config.image_size}, {config.image_size}, {config.channels}]: bind "
        f"ImageConfig.image_size (= {config.image_size}) and ImageConfig.channels "
        f"(= {config.channels}) to the images' size, or resize the images. Received: shape "
    )
    if images.shape.rank is None or not images.shape[-3:].is_fully_defined():
        if images.shape.rank is None or images.shape[-3:].is_compatible_with(config.shape):
            actual = tf.shape(images)
            fits = tf.reduce_all(tf.equal(actual[-3:], config.shape))
            with tf.control_dependencies([tf.debugging.Assert(fits, [rule, actual])]):
                images = tf.identity(images)
            if images.shape.rank is not None:
                images = tf.ensure_shape(images, images.shape[:-3] + list(config.shape))
            return images
    if images.shape.rank < 3 or tuple(images.shape[-3:]) != config.shape:
        raise ValueError(f"{rule}{images.shape}.")
    return images


def _resize(image: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """[h, w, 3] uint8 to [S, S, 3] uint8, rounded to the nearest value."""
    size = [config.image_size, config.image_size]
    antialias = config.resize in ("bilinear", "bicubic", "lanczos3")
    resized = tf.image.resize(image, size, method=config.resize, antialias=antialias)
    return tf.saturate_cast(tf.round(tf.cast(resized, tf.float32)), tf.uint8)


def _grey(image: tf.Tensor) -> tf.Tensor:
    """[h, w, 3] uint8 to its luma [h, w, 1] uint8; exact where the three channels are equal."""
    luma = tf.reduce_sum(tf.cast(image, tf.float32) * tf.constant(LUMA), axis=-1, keepdims=True)
    return tf.saturate_cast(tf.round(luma), tf.uint8)


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _one_of(names: tuple[str, ...]) -> str:
    return "must be one of " + ", ".join(repr(name) for name in names)
