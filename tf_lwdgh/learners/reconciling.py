# SPDX-License-Identifier: Apache-2.0
"""A mixture of initialisations (Jerfel et al. 2019, 'Reconciling'): each task learns from all, by how well they fit.

From every initialisation θ^l the inner loop gives φ^l. With CE the cross-entropy of a support image,
  ρ_l = −Σ_{x∈S} CE(x; φ^l),   γ = softmax(ρ/τ)                                          (E-step)
are the shares of the task, constants to the outer gradient, which is that of Σ_l γ_l L_Q(φ^l) (M-step).
Queries are answered by the mixture Σ_l γ_l p(y | x; φ^l).

The infinite mixture adds ln n_l to ρ_l, n_l the sum of γ_l over all tasks so far, and a candidate drawn
from a Gaussian fitted to the θ^l, whose ρ gets ln ζ: if a meta-step's tasks give it a share above ε, it
becomes an initialisation. Here there are L slots, the open ones first; the next holds the candidate.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.base import OwnParameter
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.gradient_learner import AdaptedNetwork, GradientLearner
from tf_lwdgh.learners.inner_loop import traced_once
from tf_lwdgh.learners.losses import cross_entropy
from tf_lwdgh.networks.functional import FunctionalModel, Prepared
from tf_lwdgh.types import Episode, Meta, Published, TaskResult, Tensors, stream_key

OPEN, WAIT, COUNTS = "mixture/open", "mixture/wait", "mixture/counts"


class Mixture(NamedTuple):
    """What each initialisation has learned of a task."""

    networks: list[AdaptedNetwork]  # L
    shares: tf.Tensor  # [L]: γ, 0 for slots that are not open


class _Shares(NamedTuple):
    """Of a task."""

    open: tf.Tensor  # [L]: γ among the open slots
    candidate: tf.Tensor  # scalar: what the candidate would have


@config.configurable
@dataclasses.dataclass(frozen=True)
class Reconciling(GradientLearner):
    """The learner. It owns 'init2/<variable>' to 'init<L>/<variable>' beside the network, which is θ^1;
    L times MAML's time and weights.

    Of the paper no code is public, and its text was not to be had: the equations are a digest, and
    L, τ, ζ, ε, the pause after a growth and how the initialisations start are our choices.

    Attributes:
      initialisations: L >= 1: how many; with `growing`, how many at most.
      temperature: τ > 0.
      init_spread: how far θ^2 … θ^L start from the network: the standard deviation of the noise on a
        variable, in the variable's own; >= 0. A variable that starts constant starts alike in all.
        With 0 all shares stay equal.
      growing: whether the mixture is the infinite one: it starts with the network alone.
      concentration: ζ > 0 of the growing mixture.
      threshold: ε in (0, 1): the share that opens the candidate's slot, the mean over a meta-step's
        tasks.
      pause: meta-steps after a growth, and from the start, before the next; >= 0.
      seed: of the initialisations at the start.
    """

    initialisations: int = 3
    temperature: float = 1.0
    init_spread: float = 0.5
    growing: bool = False
    concentration: float = 1.0
    threshold: float = 0.2
    pause: int = 200
    seed: int = 0

    reference: ClassVar[str] = (
        "Jerfel, Grant, Griffiths, Heller: Reconciling Meta-Learning and Continual Learning with "
        "Online Mixtures of Tasks, NeurIPS 2019"
    )
    equation: ClassVar[str] = "γ = softmax(−Σ_S CE(φ^l)/τ); ∂ Σ_l γ_l L_Q(φ^l)/∂θ^l, γ constant"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "49.60 ± 1.50", "secondary tables"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4", "64.60 ± 0.92", "secondary tables"),
    )
    traps: ClassVar[str] = (
        "Equal initialisations get equal shares and equal gradients, for ever. The candidate's share "
        "decides whether it joins, and nothing else: no task is trained on it in the same meta-step. "
        "It is drawn anew after every meta-step, with a standard deviation of at least init_spread "
        "times the variable's own, since one initialisation has no spread. A growing mixture adapts "
        "all L slots from the start, open or not. The counts n_l grow without bound, so that an "
        "early initialisation outweighs a late one ever more. With batch_norm = 'global' one "
        "average serves all initialisations."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("initialisations", self.initialisations >= 1, "must be at least 1")
        for name in ("temperature", "concentration"):
            self.require(name, 0 < getattr(self, name) < math.inf, "must be > 0, finite")
        self.require("init_spread", 0 <= self.init_spread < math.inf, "must be >= 0, finite")
        self.require("threshold", 0 < self.threshold < 1, "must be in (0, 1)")
        self.require("pause", self.pause >= 0, "must be at least 0")

    # What it owns.

    def own(self, model: FunctionalModel) -> Sequence[OwnParameter]:
        """θ^2 … θ^L, and of a growing mixture n_l, how many slots are open, and the pause left."""
        key = stream_key(self.seed, "Reconciling")
        own = [
            OwnParameter(
                _name(slot, model.names[i]),
                self._near(model.values()[i], tf.random.fold_in(key, slot, alg="philox"), i),
                harmonized=not model.is_idle[i],
            )
            for slot in range(1, self.initialisations)
            for i in self._several(model)
        ]
        if not self.growing:
            return own
        dtype = model.values()[0].dtype
        counts = tf.one_hot(0, self.initialisations, dtype=dtype)
        kept = {OPEN: tf.ones([], dtype), WAIT: tf.cast(self.pause, dtype), COUNTS: counts}
        return own + [OwnParameter(name, value, trained=False) for name, value in kept.items()]

    def _several(self, model: FunctionalModel) -> list[int]:
        """The positions of the variables of which every initialisation has its own."""
        return [i for i, trained in enumerate(self.trained(model)) if trained]

    def _near(self, mean: tf.Tensor, key: tf.Tensor, i: int, spread: tf.Tensor | None = None) -> tf.Tensor:
        """A variable drawn around a mean, by a spread of each coordinate, at least that of the settings."""
        key = tf.random.fold_in(key, i, alg="philox")
        noise = tf.random.stateless_normal(mean.shape, key, dtype=mean.dtype, alg="philox")
        least = self.init_spread * tf.math.reduce_std(mean)
        return mean + noise * (least if spread is None else tf.maximum(spread, least))

    def _network(self, context: Context, meta: Meta, slot: int) -> Tensors:
        """θ^l; l counts from 1, slots from 0."""
        network = list(meta.network)
        for i in self._several(context.model) if slot else ():
            network[i] = meta.own[_name(slot, context.model.names[i])]
        return network

    # What it does with a task.

    def adapt(self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor) -> Mixture:
        networks, fits = self._learned(context, meta, images, labels)
        return Mixture(networks, self._shares(meta, fits).open)

    def predict(self, context: Context, meta: Meta, adapted: Mixture, images: tf.Tensor) -> tuple[tf.Tensor, Tensors]:
        """Logits ln Σ_l γ_l p(y | x; φ^l), and the initialisations' statistics by their shares."""
        each, state = self._answers(context, meta, adapted, images)
        return self._mixed(each, adapted.shares), state

    def objective(self, context: Context, meta: Meta, episode: Episode) -> TaskResult:
        """Σ_l γ_l L_Q(φ^l); the result's loss and logits are the mixture's."""
        labels = episode.query_labels
        networks, fits = self._learned(context, meta, episode.support_images, episode.support_labels)
        shares = self._shares(meta, fits)
        adapted = Mixture(networks, shares.open)
        each, state = self._answers(context, meta, adapted, episode.query_images)
        losses = tf.stack([cross_entropy(logits, labels) for logits in each])
        logits = self._mixed(each, shares.open)
        told = list(shares) if self.growing else []
        objective = tf.reduce_sum(shares.open * losses)
        return TaskResult(objective, cross_entropy(logits, labels), logits, state, told)

    def _learned(
        self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[list[AdaptedNetwork], tf.Tensor]:
        """What each initialisation has learned, and −Σ CE of the support set by it, [L]."""
        support = context.model.prepare(images)

        def one(network: Tensors) -> tuple[AdaptedNetwork, tf.Tensor]:
            at = meta._replace(network=network)
            params = self.trajectory(context, at, support, labels)[-1]
            logits, _ = self.apply_to_support(context, at, params, support)
            fit = -tf.cast(tf.size(labels), logits.dtype) * cross_entropy(logits, labels)
            return self.adapted(context, at, params, support), tf.stop_gradient(fit)

        learn = traced_once(one)
        slots = range(self.initialisations)
        found = [learn(self._network(context, meta, slot)) for slot in slots]
        return [adapted for adapted, _ in found], tf.stack([fit for _, fit in found])

    def _shares(self, meta: Meta, fits: tf.Tensor) -> _Shares:
        """γ of each slot, and of the candidate where there is one; no gradient goes through them."""
        fits = tf.stop_gradient(fits)
        if not self.growing:
            shares = tf.nn.softmax(fits / self.temperature)
            return _Shares(shares, tf.zeros([], fits.dtype))
        slot = tf.range(self.initialisations, dtype=fits.dtype)
        n_open = tf.round(meta.own[OPEN])
        known = tf.math.log(tf.maximum(meta.own[COUNTS], tf.keras.backend.epsilon()))
        none = tf.constant(-math.inf, fits.dtype)
        scores = tf.where(slot < n_open, fits + known, none)
        candidates = tf.where(slot == n_open, fits + math.log(self.concentration), none)
        both = tf.nn.softmax(tf.concat([scores, candidates], 0) / self.temperature)
        candidate = tf.reduce_sum(both[self.initialisations :])
        return _Shares(tf.nn.softmax(scores / self.temperature), candidate)

    def _answers(self, context: Context, meta: Meta, adapted: Mixture, images: tf.Tensor) -> tuple[Tensors, Tensors]:
        """Each initialisation's logits, and their statistics, weighted by the shares."""
        queries: Prepared = context.model.prepare(images)
        found = [super(Reconciling, self).predict(context, meta, n, queries) for n in adapted.networks]
        states = zip(*(state for _, state in found))
        mean = [tf.tensordot(adapted.shares, tf.stack(each), 1) for each in states]
        return [logits for logits, _ in found], mean

    @staticmethod
    def _mixed(each: Tensors, shares: tf.Tensor) -> tf.Tensor:
        log_p = tf.nn.log_softmax(tf.stack(each))  # [L, B, N]
        return tf.reduce_logsumexp(tf.math.log(shares)[:, None, None] + log_p, 0)

    # How it grows.

    def tells(self, model: FunctionalModel) -> Sequence[tf.TensorSpec]:
        dtype = model.variables[0].dtype
        told = [tf.TensorSpec([self.initialisations], dtype), tf.TensorSpec([], dtype)]
        return told if self.growing else []

    def after_step(self, context: Context, meta: Meta, told: Tensors) -> Mapping[str, tf.Tensor]:
        """Counts the tasks' shares, opens the candidate's slot where it is due, draws the next one."""
        if not self.growing:
            return {}
        shares, candidate = told
        slot = tf.range(self.initialisations, dtype=shares.dtype)
        n_open, wait = tf.round(meta.own[OPEN]), tf.round(meta.own[WAIT])
        wanted = candidate > self.threshold * tf.reduce_sum(shares)
        grows = wanted & (wait <= 0) & (n_open < self.initialisations)
        shares += tf.where(grows & (slot == n_open), candidate, 0)
        n_open += tf.cast(grows, n_open.dtype)
        wait = tf.where(grows, tf.cast(self.pause, wait.dtype), tf.maximum(wait - 1, 0))
        kept = {OPEN: n_open, WAIT: wait, COUNTS: meta.own[COUNTS] + shares}
        return kept | self._candidate(context, meta, n_open)

    def _candidate(self, context: Context, meta: Meta, n_open: tf.Tensor) -> dict[str, tf.Tensor]:
        """All slots but the first, that after the open ones drawn from the Gaussian fitted to these."""
        key, slots = context.clock.key("Reconciling"), range(self.initialisations)
        weights = tf.cast(tf.range(self.initialisations, dtype=n_open.dtype) < n_open, n_open.dtype)
        networks, new = [self._network(context, meta, slot) for slot in slots], {}
        for i in self._several(context.model):
            each = tf.stack([network[i] for network in networks])
            mean = tf.tensordot(weights, each, 1) / n_open
            variance = tf.tensordot(weights, tf.square(each - mean), 1) / n_open
            drawn = self._near(mean, key, i, tf.sqrt(variance))
            for slot in slots[1:]:
                is_next = tf.cast(slot, n_open.dtype) == n_open
                new[_name(slot, context.model.names[i])] = tf.where(is_next, drawn, each[slot])
        return new


def _name(slot: int, variable: str) -> str:
    return f"init{slot + 1}/{variable}"
