# SPDX-License-Identifier: Apache-2.0
"""The meta-learner LSTM (Ravi & Larochelle 2017): an LSTM whose cell state is the network's parameters.

Each parameter is a coordinate; all share the LSTM's weights, and each has its own state. With ∇ and L
the support set's gradient and loss, both constants to the outer gradient, and
  pre(x) = (ln|x|/10, sign x) where |x| ≥ e⁻¹⁰, else (−1, e¹⁰ x),
an inner step is
  h_t  = LSTM(pre(L), pre(∇)),
  f̂_t = w_F·[h_t, c_{t−1}, f̂_{t−1}] + b_F,   î_t = w_I·[h_t, c_{t−1}, î_{t−1}] + b_I,
  c_t  = σ(f̂_t) c_{t−1} − σ(î_t) ∇,
from f̂_0 = î_0 = 0 and the initialisation c_0, which is learned as MAML's is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.base import OwnParameter
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.gradient_learner import GradientLearner
from tf_lwdgh.learners.inner_loop import Seen, Update, adapt
from tf_lwdgh.learners.log_and_sign import log_and_sign
from tf_lwdgh.networks.functional import FunctionalModel, Prepared
from tf_lwdgh.types import Meta, Published, Tensors, stream_key

_P = 10.0  # of the preprocessing
_INPUTS = 4  # of the first cell: the loss and the gradient, two numbers each
# Uniform bounds at the start: the step is near gradient descent of rate 0.011 with a little shrinking.
_WEIGHTS, _FORGET, _INPUT = (-0.01, 0.01), (4.0, 5.0), (-5.0, -4.0)


class Weights(NamedTuple):
    """The LSTM's, in the order of `own`; H units."""

    kernel: tf.Tensor  # [4 + H, 4H]: of input and hidden state, to input, forget, output gate, candidate
    bias: tf.Tensor  # [4H]
    forget_kernel: tf.Tensor  # [H + 2]
    forget_bias: tf.Tensor  # scalar
    input_kernel: tf.Tensor  # [H + 2]
    input_bias: tf.Tensor  # scalar


NAMES = tuple(f"lstm/{field}" for field in Weights._fields)


@config.configurable
@dataclasses.dataclass(frozen=True)
class MetaLearnerLSTM(GradientLearner):
    """The learner. It owns the LSTM's weights, 'lstm/…', 2,046 with 20 units.

    Every inner step is of the whole support set: the authors' 12 passes in batches of 5 at 1 shot,
    and 8 in batches of 25 at 5 shots, are 12 and 8 steps at 5-way. InnerLoop.inner_lr says which
    variables move, those with a rate above 0, and not how far; the outer gradient is of first order
    whatever InnerLoop.second_order says. The authors train one task a meta-step with Adam at 0.001
    and the gradient's norm clipped at 0.25, for 75,000 meta-steps at 1 shot, 50,000 at 5 shots.

    Attributes:
      units: H of the first cell, at least 1.
      per_image: whether the mean cross-entropy's gradient is divided by the number of support images
        once more, as in the authors' code.
      seed: of the weights at the start: uniform within ±0.01, b_F in (4, 5), b_I in (−5, −4).
    """

    units: int = 20
    per_image: bool = True
    seed: int = 0

    reference: ClassVar[str] = "Ravi, Larochelle: Optimization as a Model for Few-Shot Learning, ICLR 2017"
    equation: ClassVar[str] = "c_t = σ(f̂_t) c_{t−1} − σ(î_t) ∇L_S(c_{t−1}), f̂ and î by an LSTM"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "43.44 ± 0.77", "the paper"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4", "60.60 ± 0.71", "the paper"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4", "57.8–58.1", "markdtw's code"),
    )
    traps: ClassVar[str] = (
        "The authors train queries by their own batch's statistics and test by running averages of "
        "the support set's, restarted for every task, in which the newest batch weighs 0.9 (1 shot) "
        "or 0.95 (5 shots). Here one setting serves both: 'transductive' is their training, "
        "'inductive' comes near their test. Their BatchNorm's epsilon is 0.001 and not 0.00001. Users "
        "report some 5 points less than the paper from the authors' code at 5-shot. The state of a "
        "task is 2·H + 2 numbers a parameter, and every step's is kept for the outer gradient: "
        "InnerLoop.memory = 'recompute' keeps it to one step's."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("units", self.units >= 1, "must be at least 1")
        first_order = dataclasses.replace(self.inner_loop, second_order=False)
        object.__setattr__(self, "inner_loop", first_order)

    def own(self, model: FunctionalModel) -> Sequence[OwnParameter]:
        units, dtype = self.units, model.values()[0].dtype
        shapes = Weights([_INPUTS + units, 4 * units], [4 * units], [units + 2], [], [units + 2], [])
        bounds = Weights(*[_WEIGHTS] * len(NAMES))._replace(forget_bias=_FORGET, input_bias=_INPUT)
        return [
            OwnParameter(
                name,
                tf.random.stateless_uniform(
                    shape, stream_key(self.seed, "MetaLearnerLSTM", name), *ends, dtype, alg="philox"
                ),
            )
            for name, shape, ends in zip(NAMES, shapes, bounds)
        ]

    def trajectory(self, context: Context, meta: Meta, support: Prepared, labels: tf.Tensor) -> list[Tensors]:
        """The parameters before the first step and after each."""
        moving = [i for i, rate in enumerate(self.rates(context.model)) if rate]
        start = self.start(context, meta, support, labels)
        weights = [meta.own[name] for name in NAMES]
        count = tf.cast(tf.size(labels) if self.per_image else 1, start[0].dtype)
        return adapt(
            self.support_loss(context, meta, support, labels),
            start,
            settings=self.inner_loop,
            moving=moving,
            update=lstm_update(count),
            inputs=lambda step: weights,
            slots=self._no_state([start[i] for i in moving]),
            steps=context.steps,
            differentiable=context.training,
            sees=True,
        )

    def _no_state(self, params: Tensors) -> Tensors:
        """Hidden and cell state [P, H], f̂ and î [P], of P coordinates, before the first step."""
        none = tf.zeros_like(_flat(params))
        wide = tf.tile(none[:, None], [1, self.units])
        return [wide, wide, none, none]


def lstm_update(count: tf.Tensor) -> Update:
    """What a step of the meta-learner LSTM subtracts from the parameters, and its new state.

    Args:
      count: scalar, what gradients are divided by.
    """

    def update(velocities: Tensors, weights: Tensors, slots: Tensors, seen: Seen) -> tuple[Tensors, Tensors]:
        w = Weights(*weights)
        hidden, cell, forget, insert = slots
        gradient, c = _flat(velocities) / count, _flat(seen.params)
        loss = log_and_sign(tf.stop_gradient(seen.loss)[None], _P)
        loss = tf.tile(loss, [tf.size(gradient), 1])
        told = tf.concat([loss, log_and_sign(gradient, _P), hidden], 1)
        i, f, o, candidate = tf.split(tf.matmul(told, w.kernel) + w.bias, 4, axis=1)
        cell = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(candidate)
        hidden = tf.sigmoid(o) * tf.tanh(cell)
        forget = _gate(hidden, c, forget, w.forget_kernel) + w.forget_bias
        insert = _gate(hidden, c, insert, w.input_kernel) + w.input_bias
        change = tf.sigmoid(-forget) * c + tf.sigmoid(insert) * gradient
        return _like(change, velocities), [hidden, cell, forget, insert]

    return update


def _gate(hidden: tf.Tensor, c: tf.Tensor, before: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """w·[h, c, the gate before] of each coordinate."""
    return tf.linalg.matvec(hidden, kernel[:-2]) + kernel[-2] * c + kernel[-1] * before


def _flat(tensors: Tensors) -> tf.Tensor:
    return tf.concat([tf.reshape(x, [-1]) for x in tensors], 0)


def _like(flat: tf.Tensor, tensors: Tensors) -> Tensors:
    """A flat tensor cut into the shapes of some."""
    sizes = [x.shape.num_elements() or tf.size(x) for x in tensors]
    shapes = [x.shape if x.shape.is_fully_defined() else tf.shape(x) for x in tensors]
    parts = tf.split(flat, sizes, num=len(tensors))
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes)]
