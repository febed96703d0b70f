# SPDX-License-Identifier: Apache-2.0
"""Convnet4's block as a Keras layer: 3×3 convolution, BatchNorm, ReLU, 2×2 max-pooling."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_lwdgh.networks.kernels import fused_block, image_block
from tf_lwdgh.networks.kernels.convolution import convolve
from tf_lwdgh.networks.kernels.image_block import Patches
from tf_lwdgh.networks.kernels.plain import plain_only
from tf_lwdgh.networks.layers.batch_norm import BatchNormalization
from tf_lwdgh.networks.layers.convolution import Convolution


@keras.saving.register_keras_serializable("tf_lwdgh")
class ConvBlock(keras.layers.Layer):
    """3×3 convolution, BatchNorm, ReLU and 2×2 max-pooling: [B, H, W, C] -> [B, H//2, W//2, F].

    With `training=True` and `fused`, the hand-derived blocks run. They leave out the convolution's bias,
    which batch statistics cancel: its gradient is exactly 0, and the moving mean counts it in.

    Attributes:
      conv: the convolution.
      norm: the BatchNorm.

    Args:
      filters: F.
      suffix: of the inner layers' names, 'conv<suffix>' and 'norm<suffix>'.
      epsilon: BatchNorm's.
      fused: use the hand-derived blocks with training=True; False differentiates the plain operations.
      relu: without it, which the hand-derived blocks can't leave out, plain operations run.
      on_images: the input is images, which no gradient is asked of: the fused block then gives none,
        and computes what depends on them alone once (`patches`).
      product_dtype: of the convolution's products; None: the layer's own.
    """

    def __init__(
        self,
        filters: int,
        suffix: str = "",
        epsilon: float = 1e-5,
        fused: bool = True,
        relu: bool = True,
        on_images: bool = False,
        product_dtype: str | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.suffix, self.epsilon = filters, suffix, epsilon
        self.fused, self.relu = fused, relu
        self.on_images, self.product_dtype = on_images, product_dtype
        inner = {"dtype": self.dtype_policy}
        self.conv = Convolution(filters, 3, product_dtype, name=f"conv{suffix}", **inner)
        # It keeps the last batch's statistics; averaging over tasks and steps is the meta-step's work.
        self.norm = BatchNormalization(momentum=0.0, epsilon=epsilon, name=f"norm{suffix}", **inner)

    @property
    def sublayers(self) -> tuple[keras.layers.Layer, ...]:
        """The layers that hold the variables, in the variables' order."""
        return self.conv, self.norm

    @property
    def idle_variables(self) -> tuple[keras.Variable, ...]:
        """Those that batch statistics cancel: the convolution's bias."""
        return (self.conv.bias,)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.conv.build(input_shape)
        self.norm.build((*input_shape[:-1], self.filters))
        self.built = True

    def patches(self, images: tf.Tensor) -> Patches | None:
        """What the block needs of some images beside themselves; None where it needs nothing."""
        if self._fused and self.on_images:
            return image_block.patch_moments(images)
        return None

    @property
    def _fused(self) -> bool:
        return self.fused and self.relu and not plain_only()

    def call(self, x: tf.Tensor, training: bool = False, patches: Patches | None = None) -> tf.Tensor:
        if not (training and self._fused):
            y = self.norm(self.conv(x), training=training)
            y = tf.nn.max_pool2d(y, 2, 2, "VALID")
            return tf.nn.relu(y) if self.relu else y
        weights = (self.conv.kernel, self.conv.bias, self.norm.gamma, self.norm.beta)
        kernel, bias, gamma, beta = map(tf.convert_to_tensor, weights)
        if self.on_images:
            patches = self.patches(x) if patches is None else patches
            pooled, mean, variance = image_block.conv_norm_relu_pool(
                x, patches, kernel, gamma, beta, epsilon=self.epsilon, dtype=self.product_dtype
            )
        else:
            z = convolve(x, kernel, self.product_dtype)
            pooled, mean, variance = fused_block.bn_relu_pool(z, gamma, beta, epsilon=self.epsilon)
        self.norm.keep(mean + bias, variance)
        return pooled

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        halve = lambda size: None if size is None else size // 2  # noqa: E731
        return (batch, halve(height), halve(width), self.filters)

    def get_config(self) -> dict:
        own = ("filters", "suffix", "epsilon", "fused", "relu", "on_images", "product_dtype")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
