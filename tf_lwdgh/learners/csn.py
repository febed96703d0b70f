# SPDX-License-Identifier: Apache-2.0
"""Conditionally shifted neurons (Munkhdalai et al. 2018): adaCNN and adaResNet.

A unit's activation is ρ(a) + ρ(β), its shift β read from a memory of the support set: β = Σ_i α_i V_i with
α = softmax(cos(k, k_i)) of keys, V_i = v(I_i), and I_i what the support image's loss says of the unit: its
gradient ∂L_i/∂a, or by direct feedback ρ'(a) (p − y). The logits are a + β.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.embedding_learner import EmbeddingLearner
from tf_lwdgh.learners.log_and_sign import log_and_sign
from tf_lwdgh.networks.encoders import key_network
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Meta, Published, Tensors

INFORMATION = ("gradient", "feedback")
_LOGITS = "logits"
_P = 7.0  # of log_and_sign


class Memory(NamedTuple):
    """A task as learned."""

    keys: tf.Tensor  # [S, D_k]
    values: dict[str, tf.Tensor]  # a layer's name -> [S, *shape of what it shifts]
    state: Tensors  # BatchNorm's statistics for the queries; empty: those of the meta-parameters


@config.configurable
@dataclasses.dataclass(frozen=True)
class CSN(EmbeddingLearner):
    """The learner. Its network must have HookedRelu layers; tasks have at most as many ways as its head.

    Attributes:
      layers: names of the layers that are shifted, with * for any letters; None: all but the first. The
        logits always are.
      information: 'gradient', or 'feedback' for direct feedback.
      hidden: units of the two hidden layers of v.
      key_filters: of each convolution of the network that makes keys.
      key_blocks: of that network, each a convolution, BatchNorm, ReLU and pooling.
    """

    layers: tuple[str, ...] | None = None
    information: str = "feedback"
    hidden: int = 20
    key_filters: int = 32
    key_blocks: int = 4

    reference: ClassVar[str] = "Munkhdalai et al.: Rapid Adaptation with Conditionally Shifted Neurons, ICML 2018"
    equation: ClassVar[str] = "h = ρ(a) + ρ(β), β = Σ_i softmax_i(cos(k, k_i)) v(I_i)"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, adaResNet, feedback", "56.88 ± 0.62", "LEO's table"),
        Published("mini-ImageNet 5-way 5-shot, adaResNet, feedback", "71.94 ± 0.57", "LEO's table"),
        Published("mini-ImageNet 5-way 1-shot, adaResNet, gradient", "57.10 ± 0.70", "LEO's table"),
        Published("mini-ImageNet 5-way 5-shot, adaResNet, gradient", "70.04 ± 0.63", "LEO's table"),
    )
    traps: ClassVar[str] = (
        "No code of the authors was found. Our choices: a v for each layer, keys by cosine, the "
        "information a constant to the outer gradient, gradients given by logarithm and sign. Keys of a "
        "network without BatchNorm are so alike that training stays at chance."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        known = f"must be one of {', '.join(INFORMATION)}"
        self.require("information", self.information in INFORMATION, known)
        for name in ("hidden", "key_filters", "key_blocks"):
            self.require(name, getattr(self, name) >= 1, "must be at least 1")

    @property
    def any_way(self) -> bool:
        return False

    def trained(self, model: FunctionalModel) -> list[bool]:
        """All variables: the head makes the logits."""
        return [True] * len(model.variables)

    def check(self, model: FunctionalModel, steps: int | None = None) -> None:
        idle = [p for p in self.layers or () if not fnmatch.filter(model.hooked, p)]
        if idle or not self.shifted(model):
            raise ValueError(
                "CSN.layers must name layers of the network that can be shifted, and some there must "
                f"be: @adacnn and @snail_resnet have them. {model.keras_model.name} has "
                f"{', '.join(model.hooked) or 'none'}. Received: CSN.layers = {self.layers!r}."
            )

    def shifted(self, model: FunctionalModel) -> list[str]:
        """The layers whose units are shifted."""
        if self.layers is None:
            return list(model.hooked)[1:]
        return [n for n in model.hooked if any(fnmatch.fnmatch(n, p) for p in self.layers)]

    def parts(self, model: FunctionalModel) -> Mapping[str, keras.Model]:
        dtype = model.variables[0].dtype
        inputs = 2 if self.information == "gradient" else model.n_way
        found = {"key": key_network(model.image_shape, self.key_filters, self.key_blocks, dtype)}
        for name in (*self.shifted(model), _LOGITS):
            x = told = keras.Input([inputs], dtype=dtype)
            for k in (1, 2):
                x = keras.layers.Dense(self.hidden, "relu", name=f"dense{k}", dtype=dtype)(x)
            x = keras.layers.Dense(1, name="value", dtype=dtype)(x)
            found[f"value_{name}"] = keras.Model(told, x)
        return found

    def adapt(self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor) -> Memory:
        model, names = context.model, self.shifted(context.model)
        nudges: dict[str, tf.Tensor] = {}
        inside: dict[str, tf.Tensor] = {}
        with tf.GradientTape() as tape:

            def hook(name: str, a: tf.Tensor) -> tf.Tensor:
                if name in names:
                    nudges[name] = tf.zeros_like(a)
                    tape.watch(nudges[name])
                    inside[name] = a = a + nudges[name]
                return model.hooked[name].activation(a)

            features, kept = self.embed_support(context, meta, images, hook)
            logits = model.head(meta.network, features)
            wanted = tf.one_hot(labels, model.n_way, dtype=logits.dtype)
            # The sum: each image's loss is its own, and the tape gives every image's gradient.
            losses = tf.nn.softmax_cross_entropy_with_logits(wanted, logits)
        errors = tf.stop_gradient(tf.nn.softmax(logits) - wanted)
        if self.information == "gradient":
            told = {n: log_and_sign(g, _P) for n, g in tape.gradient(losses, nudges).items()}
            told[_LOGITS] = log_and_sign(errors, _P)
        else:
            told = {n: _feedback(model.hooked[n].slope, a, errors) for n, a in inside.items()}
            told[_LOGITS] = errors[:, :, None] * errors[:, None]
        values = {n: self._values(context, meta, n, tf.stop_gradient(x)) for n, x in told.items()}
        batch = self.support_takes_batch(context)
        keys, state = self._keys(context, meta, kept or meta.state, images, batch)
        return Memory(keys, values, self.kept(state))

    def predict(self, context: Context, meta: Meta, adapted: Memory, images: tf.Tensor) -> tuple[tf.Tensor, Tensors]:
        model = context.model
        batch = self.queries_take_batch(context)
        keys, state = self._keys(context, meta, adapted.state or meta.state, images, batch)
        attention = tf.nn.softmax(tf.matmul(keys, adapted.keys, transpose_b=True))

        def shift(name: str) -> tf.Tensor:
            return tf.tensordot(attention, adapted.values[name], 1)

        def hook(name: str, a: tf.Tensor) -> tf.Tensor:
            rho = model.hooked[name].activation
            return rho(a) + rho(shift(name)) if name in adapted.values else rho(a)

        features, state = self.embed_queries(context, meta, state, images, hook)
        logits = model.head(meta.network, features) + shift(_LOGITS)
        return logits[:, : context.ways], state

    @staticmethod
    def _keys(
        context: Context, meta: Meta, state: Tensors, images: tf.Tensor, batch: bool
    ) -> tuple[tf.Tensor, Tensors]:
        """Keys [B, D_k] of length 1, and the statistics."""
        keys, state = context.model.parts["key"](meta.own, state, images, training=batch)
        return tf.math.l2_normalize(keys, -1), state

    @staticmethod
    def _values(context: Context, meta: Meta, name: str, told: tf.Tensor) -> tf.Tensor:
        """What a layer's v makes of all its units: [..., I] -> [...]."""
        part = context.model.parts[f"value_{name}"]
        rows = tf.reshape(told, [-1, told.shape[-1]])
        values, _ = part(meta.own, meta.state, rows, training=False)
        return tf.reshape(values, tf.shape(told)[:-1])


def _feedback(slope: float, a: tf.Tensor, errors: tf.Tensor) -> tf.Tensor:
    """ρ'(a) (p − y), N values a unit: [S, ...], [S, N] -> [S, ..., N]."""
    slopes = tf.where(a > 0, tf.ones_like(a), tf.cast(slope, a.dtype))
    wide = [tf.shape(errors)[0], *[1] * (a.shape.rank - 1), errors.shape[-1]]
    return slopes[..., None] * tf.reshape(errors, wide)
