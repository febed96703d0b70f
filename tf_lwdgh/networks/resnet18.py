# SPDX-License-Identifier: Apache-2.0
"""ResNet-18 as a backbone: images [B, H, W, C] -> logits [B, N] (He et al. 2016, basic blocks).

Chen et al. 2019 compare few-shot methods on it, with images of 224 × 224.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tf_lwdgh import config
from tf_lwdgh.networks.backbones import NO_MEMORY, check_widths, full_dtype, with_head
from tf_lwdgh.networks.encoders import check_image_size
from tf_lwdgh.networks.layers.residual_layers import NormLeakyRelu

STEMS = ("imagenet", "small")


@config.configurable
def resnet18(
    *,
    image_size: int = 224,
    channels: int = 3,
    n_way: int = 5,
    widths: Sequence[int] = (64, 128, 256, 512),
    stem: str = "imagenet",
    epsilon: float = 1e-5,
    zero_head: bool = False,
    dtype: str = "float32",
) -> keras.Model:
    """ResNet-18; 11,176,512 parameters before the head.

    A stage of each width: two blocks of 2 × [3×3 convolution without bias, BatchNorm], added to their input
    before the last ReLU; from the second stage on the first convolution has stride 2, and a 1×1 convolution
    with BatchNorm brings the input to its size. Then the mean over places and a linear head.

    Args:
      image_size: height and width in pixels.
      channels: of the images.
      n_way: width of the head.
      widths: filters of the stages.
      stem: 'imagenet', a 7×7 convolution of stride 2 and 3×3 max-pooling of stride 2; 'small', a 3×3
        convolution of stride 1, for images below about 100 pixels, which the other would shrink to nothing.
      epsilon: BatchNorm's.
      zero_head: start the head at zero.
      dtype: 'float32', or 'float64' for checks.

    Returns:
      A Keras model.

    Raises:
      ValueError: the stem is unknown, a size is below 1, or the image is too small for the strides.
    """
    if stem not in STEMS:
        raise ValueError(f"resnet18.stem must be one of {', '.join(STEMS)}. Received: stem={stem!r}.")
    check_widths("resnet18", widths=widths)
    for argument, value in (("channels", channels), ("n_way", n_way)):
        if value < 1:
            raise ValueError(f"resnet18: {argument} must be at least 1. Received: {value}.")
    halvings = len(widths) - 1 + (2 if stem == "imagenet" else 0)
    check_image_size("resnet18", image_size, 2**halvings)
    dtype = full_dtype(dtype)
    images = keras.Input((image_size, image_size, channels), dtype=dtype, name="images")
    size, stride = (7, 2) if stem == "imagenet" else (3, 1)
    x = _relu(_conv_norm(images, widths[0], size, stride, "stem", epsilon), "stem")
    if stem == "imagenet":
        x = _padded(x, 1, "stem_pool")
        x = keras.layers.MaxPooling2D(3, 2, name="stem_pool", dtype=dtype)(x)
    for i, filters in enumerate(widths, 1):
        for j in (1, 2):
            x = _block(x, filters, 2 if i > 1 and j == 1 else 1, f"stage{i}_block{j}", epsilon)
    features = keras.layers.GlobalAveragePooling2D(name="features", dtype=dtype)(x)
    return with_head(images, features, n_way, zero_head, dtype, "resnet18")


def _block(x, filters: int, stride: int, name: str, epsilon: float):
    shortcut = x
    if stride != 1 or x.shape[-1] != filters:
        shortcut = _conv_norm(x, filters, 1, stride, f"{name}_shortcut", epsilon)
    y = _relu(_conv_norm(x, filters, 3, stride, f"{name}_1", epsilon), f"{name}_1")
    y = _conv_norm(y, filters, 3, 1, f"{name}_2", epsilon)
    y = keras.layers.Add(name=f"{name}_sum", dtype=x.dtype)([y, shortcut])
    return _relu(y, name)


def _conv_norm(x, filters: int, size: int, stride: int, name: str, epsilon: float):
    # Padded alike on both sides, as the published weights were trained: SAME would pad one side at stride 2.
    conv = keras.layers.Conv2D(
        filters, size, stride, use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv", dtype=x.dtype
    )
    x = conv(_padded(x, size // 2, name))
    return NormLeakyRelu(momentum=NO_MEMORY, epsilon=epsilon, name=f"{name}_norm", dtype=x.dtype)(x)


def _padded(x, width: int, name: str):
    return keras.layers.ZeroPadding2D(width, name=f"{name}_pad", dtype=x.dtype)(x) if width else x


def _relu(x, name: str):
    return keras.layers.ReLU(name=f"{name}_relu", dtype=x.dtype)(x)
