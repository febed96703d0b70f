# SPDX-License-Identifier: Apache-2.0
"""MetaNet (Munkhdalai & Yu 2017): slow weights that training learns, fast weights made of a task's gradients.

Two networks of one form: b, which answers, and u, which makes keys. (i) u's fast weights come from
gradients of an embedding loss on the support set, by an LSTM d for each weight. (ii) Every support image i
has fast weights W*_i = m(∇L_i) of b, by a small network m for each weight, and a key r_i. (iii) A query is
answered by b with Σ a_i W*_i, a = softmax(cos(r, r_i)). A layer with both kinds of weights gives
ReLU(W h) + ReLU(W* h); the logits are W h + W* h.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.base import OwnParameter
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.embedding_learner import EmbeddingLearner
from tf_lwdgh.learners.log_and_sign import log_and_sign
from tf_lwdgh.learners.shuffles import permutation
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Meta, Published, Tensors

_CONVOLUTIONS = ("conv4", "conv5")
_LAYERS = (*_CONVOLUTIONS, "dense1", "dense2")  # those with fast weights, in their order
_OF_KEYS = _LAYERS[:-1]  # of them those that u has
_P = 7.0  # of log_and_sign
_UNITS = 20  # of m and d

Weights = dict[str, tf.Tensor]  # a layer's name -> its kernel, or one an image


class Fast(NamedTuple):
    """A task as learned."""

    codes: tf.Tensor  # [S, hidden]: the support images' keys, of length 1
    weights: Weights  # [S, *shape]: b's fast weights
    key_weights: Weights  # [*shape]: u's fast weights
    state: Tensors  # BatchNorm's statistics for the queries; empty: those of the meta-parameters


@config.configurable
@dataclasses.dataclass(frozen=True)
class MetaNet(EmbeddingLearner):
    """The learner, on metanet_encoder; tasks have at most as many ways as its head.

    Attributes:
      filters: of the two convolutions with fast weights.
      hidden: units of the dense layer with fast weights, and the keys' width.
    """

    filters: int = 32
    hidden: int = 288

    reference: ClassVar[str] = "Munkhdalai, Yu: Meta Networks, ICML 2017"
    equation: ClassVar[str] = "W*_i = m(∇_W L_i); a query by W and Σ_i softmax_i(cos(r, r_i)) W*_i"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, its own network", "49.21 ± 0.96", "the paper"),
    )
    traps: ClassVar[str] = (
        "m starts with a last layer >= 0, which is our choice: fast weights below 0 would leave all of "
        "their ReLUs dead. The authors take the sum over queries, here it is the mean; and both losses are the "
        "cross-entropy at any shots, where the paper takes a contrastive one beyond 1 shot. Memory "
        "grows with support images times fast weights, 104,256 at 84×84 and 10 ways."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("filters", "hidden"):
            self.require(name, getattr(self, name) >= 1, "must be at least 1")

    @property
    def any_way(self) -> bool:
        return False

    def check(self, model: FunctionalModel, steps: int | None = None) -> None:
        if model.map_shape is None:
            raise ValueError(
                "MetaNet needs a network whose features are a map laid out flat, such as "
                f"@metanet_encoder. Received: {model.keras_model.name}."
            )

    def shapes(self, model: FunctionalModel) -> dict[str, tuple[int, ...]]:
        """The kernels' shapes of the layers with fast weights."""
        height, width, channels = model.map_shape
        places = math.ceil(height / 4) * math.ceil(width / 4)
        return {
            "conv4": (3, 3, channels, self.filters),
            "conv5": (3, 3, self.filters, self.filters),
            "dense1": (places * self.filters, self.hidden),
            "dense2": (self.hidden, model.n_way),
        }

    def own(self, model: FunctionalModel) -> list[OwnParameter]:
        dtype = model.variables[0].dtype

        def kernel(network: str, layer: str, shape: tuple[int, ...]) -> OwnParameter:
            # An initializer each: one draws the same for every kernel of a shape.
            start = keras.initializers.GlorotUniform()(shape, dtype)
            # u's logits count in the gradients that d is told alone, which are constants.
            trained = (network, layer) != ("keys", "dense2")
            return OwnParameter(f"{network}/{layer}/kernel", start, trained=trained)

        shapes = self.shapes(model).items()
        return [kernel(network, *layer) for network in ("base", "keys") for layer in shapes]

    def parts(self, model: FunctionalModel) -> Mapping[str, keras.Model]:
        dtype = model.variables[0].dtype
        found = {"encoder": model.another()}
        for kind in ("conv", "dense"):
            x = told = keras.Input([2], dtype=dtype)
            for k in (1, 2):
                x = keras.layers.Dense(_UNITS, "relu", name=f"dense{k}", dtype=dtype)(x)
            # Most gradients are tiny, so that fast weights are much alike at the start; were they below
            # 0, no fast layer would ever pass its ReLU.
            upwards = keras.initializers.RandomUniform(0.0, 0.004)
            x = keras.layers.Dense(1, kernel_initializer=upwards, name="weight", dtype=dtype)(x)
            found[f"fast_{kind}"] = keras.Model(told, x)
            told = keras.Input([None, 2], dtype=dtype)
            x = keras.layers.LSTM(_UNITS, name="lstm", dtype=dtype)(told)
            x = keras.layers.Dense(1, name="weight", dtype=dtype)(x)
            found[f"fast_keys_{kind}"] = keras.Model(told, x)
        return found

    def adapt(self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor) -> Fast:
        batch = self.support_takes_batch(context)
        for_base, state = self._maps(context, meta, meta.state, images, batch)
        for_keys, state = self._maps_for_keys(context, meta, state, images, batch)
        key_weights = self._key_weights(context, meta, for_keys, labels)
        codes, _ = _forward(_slow(meta, "keys"), key_weights, for_keys)
        gradients = self._gradients(context, _slow(meta, "base"), for_base, labels)
        weights = {name: self._made(context, meta, "fast", name, log_and_sign(g, _P)) for name, g in gradients.items()}
        return Fast(tf.math.l2_normalize(codes, -1), weights, key_weights, self.kept(state))

    def predict(self, context: Context, meta: Meta, adapted: Fast, images: tf.Tensor) -> tuple[tf.Tensor, Tensors]:
        batch, state = self.queries_take_batch(context), adapted.state or meta.state
        for_base, state = self._maps(context, meta, state, images, batch)
        for_keys, state = self._maps_for_keys(context, meta, state, images, batch)
        codes, _ = _forward(_slow(meta, "keys"), adapted.key_weights, for_keys)
        cosines = tf.matmul(tf.math.l2_normalize(codes, -1), adapted.codes, transpose_b=True)
        attention = tf.nn.softmax(cosines)
        fast = {name: tf.tensordot(attention, w, 1) for name, w in adapted.weights.items()}
        _, logits = _forward(_slow(meta, "base"), fast, for_base)
        return logits[:, : context.ways], state

    @staticmethod
    def _maps(context: Context, meta: Meta, state: Tensors, images: tf.Tensor, batch: bool):
        features, state = context.model.features(meta.network, state, images, training=batch)
        return context.model.as_maps(features), state

    @staticmethod
    def _maps_for_keys(context: Context, meta: Meta, state: Tensors, images: tf.Tensor, batch: bool):
        encoder = context.model.parts["encoder"]
        features, state = encoder(meta.own, state, images, training=batch)
        return context.model.as_maps(features), state

    def _key_weights(self, context: Context, meta: Meta, maps: tf.Tensor, labels: tf.Tensor) -> Weights:
        """u's fast weights, from the gradients of a tenth of the support set, at least one image."""
        count = tf.shape(labels)[0]
        some = permutation(count, context.task_key)[: tf.maximum(count // 10, 1)]
        slow = _slow(meta, "keys")
        gradients = self._gradients(context, slow, tf.gather(maps, some), tf.gather(labels, some), _OF_KEYS)
        return {
            name: self._made(context, meta, "fast_keys", name, log_and_sign(g, _P)) for name, g in gradients.items()
        }

    @staticmethod
    def _gradients(context: Context, slow: Weights, maps: tf.Tensor, labels: tf.Tensor, layers=_LAYERS) -> Weights:
        """Each image's own gradient, [B, *shape], of its cross-entropy; constants."""
        count = tf.shape(maps)[0]
        own = {n: tf.repeat(tf.stop_gradient(slow[n])[None], count, 0) for n in layers}
        fixed = {n: tf.stop_gradient(w) for n, w in slow.items()}
        with tf.GradientTape() as tape:
            tape.watch(own)
            _, logits = _forward({**fixed, **own}, {}, tf.stop_gradient(maps))
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits[:, : context.ways])
        return tf.nest.map_structure(tf.stop_gradient, tape.gradient(losses, own))

    @staticmethod
    def _made(context: Context, meta: Meta, made: str, layer: str, told: tf.Tensor) -> tf.Tensor:
        """Fast weights of a layer: by m [B, *shape, 2] -> [B, *shape], by d -> [*shape]."""
        kind = "conv" if layer in _CONVOLUTIONS else "dense"
        part, shape = context.model.parts[f"{made}_{kind}"], tf.shape(told)
        if made == "fast":
            rows, wanted = tf.reshape(told, [-1, 2]), shape[:-1]
        else:
            rows = tf.transpose(tf.reshape(told, [shape[0], -1, 2]), [1, 0, 2])
            wanted = shape[1:-1]
        weights, _ = part(meta.own, meta.state, rows, training=False)
        return tf.ensure_shape(tf.reshape(weights, wanted), told.shape[(made != "fast") : -1])


def _slow(meta: Meta, network: str) -> Weights:
    return {layer: meta.own[f"{network}/{layer}/kernel"] for layer in _LAYERS}


def _forward(slow: Weights, fast: Weights, maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A network from maps [B, H, W, C] on: the dense layer before its ReLU, and the logits.

    Kernels may have a leading axis B, one an image.
    """

    def both(apply, layer: str, h: tf.Tensor) -> list[tf.Tensor]:
        return [apply(h, w[layer]) for w in (slow, fast) if layer in w]

    h = maps
    for layer in _CONVOLUTIONS:
        h = tf.add_n([tf.nn.relu(y) for y in both(_convolve, layer, h)])
        h = tf.nn.max_pool2d(h, 2, 2, "SAME")
    h = tf.reshape(h, [tf.shape(h)[0], math.prod(h.shape[1:])])
    codes = both(_multiply, "dense1", h)
    h = tf.add_n([tf.nn.relu(y) for y in codes])
    return tf.add_n(codes), tf.add_n(both(_multiply, "dense2", h))


def _convolve(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    if kernel.shape.rank == 4:
        return tf.nn.conv2d(x, kernel, 1, "SAME")
    size, one = [1, 3, 3, 1], [1, 1, 1, 1]
    patches = tf.image.extract_patches(x, size, one, one, "SAME")
    rows = tf.reshape(kernel, [tf.shape(kernel)[0], -1, kernel.shape[-1]])
    return tf.einsum("bhwp,bpf->bhwf", patches, rows)


def _multiply(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    if kernel.shape.rank == 2:
        return tf.matmul(x, kernel)
    return tf.einsum("bi,bij->bj", x, kernel)
