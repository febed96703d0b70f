# SPDX-License-Identifier: Apache-2.0
"""The networks that metric learners were published with, as backbones: images [B, H, W, C] -> logits [B, N].

Their features are what counts; the head is there since every backbone has one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from tf_lwdgh import config
from tf_lwdgh.networks.backbones import NO_MEMORY, check_sizes, check_widths, full_dtype, with_head
from tf_lwdgh.networks.layers.batch_norm import BatchNormalization
from tf_lwdgh.networks.layers.dropout import Dropout
from tf_lwdgh.networks.layers.hooked_relu import HookedRelu
from tf_lwdgh.networks.layers.residual_layers import NormLeakyRelu


def check_image_size(name: str, image_size: int, least: int) -> None:
    """Raises ValueError where images are too small for a network."""
    if image_size < least:
        raise ValueError(
            f"{name} needs images of at least {least} × {least} pixels. "
            f"Received: image_size={image_size} (ImageConfig.image_size = …)."
        )


def check_dropout(name: str, *rates: float) -> None:
    """Raises ValueError where a share to be dropped is none."""
    if not all(0 <= rate < 1 for rate in rates):
        raise ValueError(f"{name}.dropout must be in [0, 1). Received: {', '.join(map(str, rates))}.")


def relation_conv(x, filters: int, name: str, *, padding: str, pool: bool, epsilon: float):
    """3×3 convolution, BatchNorm, ReLU and, if wanted, 2×2 max-pooling, as Relation Networks start them."""
    spread = math.sqrt(2 / (9 * filters))
    normal = keras.initializers.RandomNormal(stddev=spread)
    x = keras.layers.Conv2D(filters, 3, padding=padding, kernel_initializer=normal, name=f"{name}_conv", dtype=x.dtype)(
        x
    )
    x = NormLeakyRelu(momentum=NO_MEMORY, epsilon=epsilon, name=f"{name}_norm", dtype=x.dtype)(x)
    x = keras.layers.ReLU(name=f"{name}_relu", dtype=x.dtype)(x)
    return keras.layers.MaxPooling2D(name=f"{name}_pool", dtype=x.dtype)(x) if pool else x


@config.configurable
def relation_encoder(
    *,
    image_size: int = 84,
    channels: int = 3,
    n_way: int = 5,
    filters: int = 64,
    epsilon: float = 1e-5,
    dtype: str = "float32",
) -> keras.Model:
    """The embedding of Relation Networks (Sung et al. 2018): a map of 19×19 places at 84×84, 5×5 at 28×28.

    4 × [3×3 convolution, BatchNorm, ReLU]; the first two unpadded with 2×2 max-pooling, the others padded
    without.

    Args:
      image_size: height and width in pixels, at least 10.
      channels: of the images.
      n_way: width of the head, which Relation Networks don't use.
      filters: of every convolution.
      epsilon: BatchNorm's.
      dtype: 'float32', or 'float64' for checks.

    Raises:
      ValueError: the image is too small for the poolings.
    """
    check_image_size("relation_encoder", image_size, 10)
    check_widths("relation_encoder", filters=filters)
    dtype = full_dtype(dtype)
    images = x = keras.Input((image_size, image_size, channels), dtype=dtype, name="images")
    for i in range(1, 5):
        early = i <= 2
        padding = "valid" if early else "same"
        x = relation_conv(x, filters, f"block{i}", padding=padding, pool=early, epsilon=epsilon)
    features = keras.layers.Flatten(name="features", dtype=dtype)(x)
    return with_head(images, features, n_way, False, dtype, "relation_encoder")


@config.configurable
def snail_resnet(
    *,
    image_size: int = 84,
    channels: int = 3,
    n_way: int = 5,
    widths: tuple[int, ...] = (64, 96, 128, 256),
    n_features: int = 384,
    dropout: float = 0.1,
    epsilon: float = 1e-5,
    dtype: str = "float32",
) -> keras.Model:
    """The residual network of SNAIL (Mishra et al. 2018), also adaResNet's.

    A block of each width: 3 × [3×3 convolution, BatchNorm, LeakyReLU 0.1] beside a 1×1 convolution, their
    sum max-pooled by 2×2, then dropout; at the end a 1×1 convolution to 2,048, the mean over places, ReLU,
    dropout and a dense layer.

    Args:
      image_size: height and width in pixels, at least 2**len(widths).
      channels: of the images.
      n_way: width of the head, which SNAIL doesn't use.
      widths: filters of the blocks.
      n_features: of an image.
      dropout: the share that is dropped; public code keeps a tenth, where the paper's 0.9 is more likely
        what is kept.
      epsilon: BatchNorm's.
      dtype: 'float32', or 'float64' for checks.

    Raises:
      ValueError: the image is too small for the poolings.
    """
    check_sizes("snail_resnet", image_size, channels, n_way, len(widths), widths=widths, n_features=n_features)
    check_dropout("snail_resnet", dropout)
    dtype = full_dtype(dtype)

    def conv(x, filters: int, size: int, name: str):
        layer = keras.layers.Conv2D(filters, size, padding="same", name=name, dtype=dtype)
        return layer(x)

    images = x = keras.Input((image_size, image_size, channels), dtype=dtype, name="images")
    for i, filters in enumerate(widths, 1):
        shortcut = conv(x, filters, 1, f"block{i}_shortcut")
        for j in (1, 2, 3):
            x = conv(x, filters, 3, f"block{i}_conv{j}")
            x = NormLeakyRelu(momentum=NO_MEMORY, epsilon=epsilon, name=f"block{i}_norm{j}", dtype=dtype)(x)
            x = HookedRelu(0.1, name=f"block{i}_relu{j}", dtype=dtype)(x)
        x = keras.layers.Add(name=f"block{i}_sum", dtype=dtype)([x, shortcut])
        x = keras.layers.MaxPooling2D(name=f"block{i}_pool", dtype=dtype)(x)
        x = Dropout(dropout, name=f"block{i}_dropout", dtype=dtype)(x)
    x = keras.layers.GlobalAveragePooling2D(name="mean", dtype=dtype)(conv(x, 2048, 1, "wide"))
    x = keras.layers.ReLU(name="relu", dtype=dtype)(x)
    x = Dropout(dropout, name="dropout", dtype=dtype)(x)
    features = keras.layers.Dense(n_features, name="features", dtype=dtype)(x)
    return with_head(images, features, n_way, False, dtype, "snail_resnet")


@config.configurable
def adacnn(
    *,
    image_size: int = 84,
    channels: int = 3,
    n_way: int = 5,
    filters: int = 32,
    blocks: int = 5,
    epsilon: float = 1e-5,
    dtype: str = "float32",
) -> keras.Model:
    """The network of adaCNN (Munkhdalai et al. 2018): blocks of 3×3 convolution, BatchNorm, ReLU, 2×2 max-pool.

    As Convnet4, with ReLUs that a learner may shift. The paper gives 32 filters in one place and 64 in another.

    Args:
      image_size: height and width in pixels, at least 2**blocks.
      channels: of the images.
      n_way: width of the head.
      filters: of every convolution.
      blocks: how many.
      epsilon: BatchNorm's.
      dtype: 'float32', or 'float64' for checks.

    Raises:
      ValueError: the image is too small for the poolings.
    """
    check_sizes("adacnn", image_size, channels, n_way, blocks, filters=filters)
    dtype = full_dtype(dtype)
    images = x = keras.Input((image_size, image_size, channels), dtype=dtype, name="images")
    for i in range(1, blocks + 1):
        conv = keras.layers.Conv2D(filters, 3, padding="same", name=f"conv{i}", dtype=dtype)
        x = NormLeakyRelu(momentum=NO_MEMORY, epsilon=epsilon, name=f"norm{i}", dtype=dtype)(conv(x))
        x = HookedRelu(name=f"relu{i}", dtype=dtype)(x)
        x = keras.layers.MaxPooling2D(name=f"pool{i}", dtype=dtype)(x)
    features = keras.layers.Flatten(name="features", dtype=dtype)(x)
    return with_head(images, features, n_way, False, dtype, "adacnn")


def key_network(shape: Sequence[int], filters: int, blocks: int, dtype: str = "float32") -> keras.Model:
    """What makes the keys of conditionally shifted neurons: blocks like adaCNN's, of images [B, *shape] of any size."""
    images = x = keras.Input(shape, dtype=dtype)
    for i in range(1, blocks + 1):
        conv = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{i}", dtype=dtype)
        x = NormLeakyRelu(momentum=NO_MEMORY, name=f"norm{i}", dtype=dtype)(conv(x))
        x = keras.layers.ReLU(name=f"relu{i}", dtype=dtype)(x)
        x = keras.layers.MaxPooling2D(padding="same", name=f"pool{i}", dtype=dtype)(x)
    return keras.Model(images, keras.layers.Flatten(name="key", dtype=dtype)(x))


@config.configurable
def metanet_encoder(
    *,
    image_size: int = 84,
    channels: int = 3,
    n_way: int = 5,
    filters: int = 32,
    epsilon: float = 1e-5,
    dtype: str = "float32",
) -> keras.Model:
    """The part of MetaNet's networks without fast weights: 11×11 places at 84×84, 4×4 at 28×28.

    3 × [3×3 convolution without bias, BatchNorm, ReLU, 2×2 max-pool that keeps the last row and column].

    Args:
      image_size: height and width in pixels.
      channels: of the images.
      n_way: width of the head, which MetaNet doesn't use.
      filters: of every convolution.
      epsilon: BatchNorm's.
      dtype: 'float32', or 'float64' for checks.

    Raises:
      ValueError: the filters are none, or more than 8,192.
    """
    check_widths("metanet_encoder", filters=filters)
    dtype = full_dtype(dtype)
    images = x = keras.Input((image_size, image_size, channels), dtype=dtype, name="images")
    for i in (1, 2, 3):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{i}", dtype=dtype)(x)
        x = NormLeakyRelu(momentum=NO_MEMORY, epsilon=epsilon, name=f"norm{i}", dtype=dtype)(x)
        x = keras.layers.ReLU(name=f"relu{i}", dtype=dtype)(x)
        x = keras.layers.MaxPooling2D(padding="same", name=f"pool{i}", dtype=dtype)(x)
    features = keras.layers.Flatten(name="features", dtype=dtype)(x)
    return with_head(images, features, n_way, False, dtype, "metanet_encoder")


@config.configurable
def gnn_encoder(
    *,
    image_size: int = 84,
    channels: int = 3,
    n_way: int = 5,
    n_features: int = 128,
    dropout: tuple[float, float] = (0.4, 0.5),
    epsilon: float = 1e-5,
    dtype: str = "float32",
) -> keras.Model:
    """The embedding of the GNN (Garcia & Bruna 2018) on mini-ImageNet; 1,283,200 weights at 84×84.

    3×3 convolutions of 64, 96 (unpadded), 128 and 256 filters, each without bias and with BatchNorm, 2×2
    max-pooling and LeakyReLU 0.2; dropout of whole maps after the third and the fourth; then a dense layer
    with BatchNorm.

    Args:
      image_size: height and width in pixels, at least 20.
      channels: of the images.
      n_way: width of the head, which the GNN doesn't use.
      n_features: of an image.
      dropout: the shares after the third and the fourth convolution.
      epsilon: BatchNorm's.
      dtype: 'float32', or 'float64' for checks.

    Raises:
      ValueError: the image is too small for the poolings.
    """
    check_image_size("gnn_encoder", image_size, 20)
    check_widths("gnn_encoder", n_features=n_features)
    check_dropout("gnn_encoder", *dropout)
    dtype = full_dtype(dtype)
    images = x = keras.Input((image_size, image_size, channels), dtype=dtype, name="images")
    for i, (filters, rate) in enumerate(zip((64, 96, 128, 256), (0.0, 0.0, *dropout)), 1):
        padding = "valid" if i == 2 else "same"
        x = keras.layers.Conv2D(filters, 3, padding=padding, use_bias=False, name=f"conv{i}", dtype=dtype)(x)
        x = NormLeakyRelu(momentum=NO_MEMORY, epsilon=epsilon, name=f"norm{i}", dtype=dtype)(x)
        x = keras.layers.MaxPooling2D(name=f"pool{i}", dtype=dtype)(x)
        x = keras.layers.LeakyReLU(0.2, name=f"relu{i}", dtype=dtype)(x)
        if rate:
            x = Dropout(rate, maps=True, name=f"dropout{i}", dtype=dtype)(x)
    x = keras.layers.Flatten(name="flat", dtype=dtype)(x)
    x = keras.layers.Dense(n_features, name="dense", dtype=dtype)(x)
    features = BatchNormalization(NO_MEMORY, epsilon, name="features", dtype=dtype)(x)
    return with_head(images, features, n_way, False, dtype, "gnn_encoder")
