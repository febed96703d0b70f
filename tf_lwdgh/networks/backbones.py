# SPDX-License-Identifier: Apache-2.0
"""The paper's backbones as Keras models, images [B, H, W, C] -> logits [B, N]; the last layer is 'head'.

Convnet4: Vinyals et al. 2016, 4 × [3×3 convolution, BatchNorm, ReLU, 2×2 max-pool].
Resnet12: the residual network of the few-shot literature, 4 blocks of 3 convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tf_lwdgh import config
from tf_lwdgh.networks.layers.conv_block import ConvBlock
from tf_lwdgh.networks.layers.convolution import Convolution
from tf_lwdgh.networks.layers.residual_layers import AddLeakyPool, NormLeakyRelu

HEAD = "head"
# The layers keep the last batch's statistics; averaging over tasks and steps is the meta-step's work,
# since a layer sees one task at a time.
NO_MEMORY = 0.0
_SLOPE = 0.1  # of Resnet12's LeakyReLU
_WIDEST = 8192  # filters or features of a layer; what is larger would take the machine's memory


def check_widths(name: str, **widths: int | Sequence[int]) -> None:
    """Raises ValueError where a width, or one of several, is below 1 or wider than any network's."""
    for argument, given in widths.items():
        several = given if isinstance(given, Sequence) else [given]
        if not several or min(several) < 1 or max(several) > _WIDEST:
            raise ValueError(f"{name}.{argument} must be from 1 to {_WIDEST}. Received: {given}.")


def check_sizes(
    name: str, image_size: int, channels: int, n_way: int, blocks: int, **widths: int | Sequence[int]
) -> None:
    """Raises ValueError where a network of so many blocks, each halving the image, can't be made."""
    check_widths(name, **widths)
    for argument, value in (("channels", channels), ("n_way", n_way), ("blocks", blocks)):
        if value < 1:
            raise ValueError(f"{name}: {argument} must be at least 1. Received: {value}.")
    if image_size >> blocks < 1:
        smallest = 2**blocks if blocks < 64 else f"2**{blocks}"
        raise ValueError(
            f"{name}: {blocks} poolings need images of at least {smallest} × {smallest} pixels. "
            f"Received: image_size={image_size} (ImageConfig.image_size = …)."
        )


def full_dtype(dtype: str) -> str:
    """The dtype of everything but the convolutions' products."""
    return keras.DTypePolicy(dtype).variable_dtype


def _products(dtype: str) -> str:
    """The dtype of the convolutions' products."""
    return keras.DTypePolicy(dtype).compute_dtype


def with_head(images, features, n_way: int, zero_head: bool, dtype: str, name: str) -> keras.Model:
    """The model from images to logits, given its input and its features [B, D]."""
    initializer = "zeros" if zero_head else "glorot_uniform"
    head = keras.layers.Dense(n_way, kernel_initializer=initializer, name=HEAD, dtype=full_dtype(dtype))
    return keras.Model(images, head(features), name=name)


@config.configurable
def convnet4(
    *,
    image_size: int = 84,
    channels: int = 3,
    n_way: int = 5,
    filters: int = 32,
    blocks: int = 4,
    epsilon: float = 1e-5,
    fused: bool = True,
    last_relu: bool = True,
    zero_head: bool = False,
    dtype: str = "float32",
) -> keras.Model:
    """Convnet4; 32,901 parameters at 84×84×3, 5-way, 32 filters (64 filters: the wide variant).

    Args:
      image_size: height and width in pixels, at least 2**blocks.
      channels: of the images.
      n_way: width of the head.
      filters: of every convolution.
      blocks: convolution blocks, each halving height and width.
      epsilon: BatchNorm's.
      fused: use the hand-derived block (False: plain differentiation, slower).
      last_relu: whether the last block has its ReLU, without which features may be negative.
      zero_head: start the head at zero.
      dtype: a Keras dtype policy: 'float32'; 'mixed_bfloat16' or 'mixed_float16', which lower the
        convolutions' products and nothing else; 'float64' for checks.

    Returns:
      A Keras model.

    Raises:
      ValueError: a size is below 1 or a width above 8,192, or the image is too small for the poolings.
    """
    check_sizes("convnet4", image_size, channels, n_way, blocks, filters=filters)
    images = x = keras.Input((image_size, image_size, channels), dtype=full_dtype(dtype), name="images")
    for i in range(1, blocks + 1):
        block = ConvBlock(
            filters, suffix=str(i), epsilon=epsilon, fused=fused, on_images=i == 1,
            relu=last_relu or i < blocks,
            product_dtype=_products(dtype), name=f"block{i}", dtype=full_dtype(dtype),
        )  # fmt: skip
        x = block(x)
    features = keras.layers.Flatten(name="features", dtype=full_dtype(dtype))(x)
    return with_head(images, features, n_way, zero_head, dtype, "convnet4")


def _conv_norm(x, filters: int, size: int, name: str, slope: float, dtype: str, norm: dict):
    x = Convolution(
        filters, size, _products(dtype), use_bias=False, name=f"{name}_conv", dtype=full_dtype(dtype),
        kernel_initializer="he_normal",
    )(x)  # fmt: skip
    return NormLeakyRelu(slope, momentum=NO_MEMORY, name=f"{name}_norm", **norm)(x)


def _residual_block(x, filters: int, name: str, dtype: str, norm: dict):
    shortcut = _conv_norm(x, filters, 1, f"{name}_shortcut", 1.0, dtype, norm)
    x = _conv_norm(x, filters, 3, f"{name}_1", _SLOPE, dtype, norm)
    x = _conv_norm(x, filters, 3, f"{name}_2", _SLOPE, dtype, norm)
    x = _conv_norm(x, filters, 3, f"{name}_3", 1.0, dtype, norm)
    settings = {"fused": norm["fused"], "dtype": norm["dtype"]}
    return AddLeakyPool(_SLOPE, name=f"{name}_end", **settings)([x, shortcut])


@config.configurable
def resnet12(
    *,
    image_size: int = 84,
    channels: int = 3,
    n_way: int = 5,
    widths: Sequence[int] = (64, 128, 256, 512),
    epsilon: float = 1e-5,
    fused: bool = True,
    zero_head: bool = False,
    dtype: str = "float32",
) -> keras.Model:
    """Resnet12, about 8.0 M parameters; widths (64, 160, 320, 640) are the wide variant.

    Each block is 3 × [3×3 convolution without bias, BatchNorm, LeakyReLU 0.1], a shortcut of 1×1
    convolution and BatchNorm added before the last activation, and 2×2 max-pooling; then global average
    pooling and a linear head.

    Args:
      image_size: height and width in pixels, at least 2**len(widths).
      channels: of the images.
      n_way: width of the head.
      widths: filters of each block.
      epsilon: BatchNorm's.
      fused: use the hand-derived blocks (False: plain differentiation, slower).
      zero_head: start the head at zero.
      dtype: a Keras dtype policy: 'float32'; 'mixed_bfloat16' or 'mixed_float16', which lower the
        convolutions' products and nothing else; 'float64' for checks.

    Returns:
      A Keras model.

    Raises:
      ValueError: a size is below 1 or a width above 8,192, or the image is too small for the poolings.
    """
    check_sizes("resnet12", image_size, channels, n_way, len(widths), widths=widths)
    images = x = keras.Input((image_size, image_size, channels), dtype=full_dtype(dtype), name="images")
    norm = {"epsilon": epsilon, "fused": fused, "dtype": full_dtype(dtype)}
    for i, filters in enumerate(widths, 1):
        x = _residual_block(x, filters, f"block{i}", dtype, norm)
    features = keras.layers.GlobalAveragePooling2D(name="features", dtype=full_dtype(dtype))(x)
    return with_head(images, features, n_way, zero_head, dtype, "resnet12")
