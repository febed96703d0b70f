# SPDX-License-Identifier: Apache-2.0
"""Recon (Shi et al. 2023) read for meta-learning: the inner loop moves only chosen layers.

Recon counts in joint training how often two tasks' gradients of a layer have a cosine below −0.1 or
so, and gives each task its own copy of the layers that lead. Few-shot tasks have no names, so a
layer that is a task's own is one that the inner loop moves; all others are shared, and the outer
loop trains them all. That reading is ours. `tools/rank_layers.py` ranks the layers of a finished
run; the control draws as many at random.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from tf_lwdgh import config
from tf_lwdgh.learners.gradient_learner import GradientLearner
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import stream_key

CONTROLS = ("ranked", "random")


@config.configurable
@dataclasses.dataclass(frozen=True)
class Recon(GradientLearner):
    """The learner. All layers are MAML; the head alone is ANIL's result, all but the head BOIL's.

    Attributes:
      control: 'ranked': the layers listed; or 'random': some drawn by `seed`.
      layers: with 'ranked', the layers' names, the one with the most conflicts first.
      n_layers: how many layers move: with 'ranked' the first of the list, None for all of it; with
        'random' how many are drawn of those that InnerLoop.inner_lr can move.
      seed: of 'random'.
    """

    control: str = "ranked"
    layers: tuple[str, ...] = ()
    n_layers: int | None = None
    seed: int = 0

    reference: ClassVar[str] = (
        "Shi, Ren, Zhang, Pan: Recon: Reducing Conflicting Gradients from the Root for Multi-Task Learning, ICLR 2023"
    )
    equation: ClassVar[str] = "θ_{s+1} = θ_s − α∇_u L_S(θ_s), u the K layers with most conflicts"
    traps: ClassVar[str] = (
        "A reading of a method for a fixed set of tasks, with no published figure. Recon takes a "
        "layer's weight and bias as one vector; rank with Mean.unit = 'layer' to do the same. It "
        "ranks over the first quarter of training, with cosines below −0.1 (0 counts harmless "
        "conflicts), and its random, first or last layers do worse than the ranked: compare with "
        "control = 'random'."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("control", self.control in CONTROLS, f"must be one of {', '.join(CONTROLS)}")
        listed = isinstance(self.layers, (tuple, list))
        listed = listed and all(isinstance(name, str) for name in self.layers)
        self.require("layers", listed, "must be a tuple of names, such as ('conv4', 'head')")
        self.require("layers", len(set(self.layers)) == len(self.layers), "names a layer twice")
        count = self.n_layers
        self.require("n_layers", count is None or count >= 1, "must be at least 1, or None for all")
        if self.control == "random":
            self.require("n_layers", count is not None, "must be set where layers are drawn")
            self.require("layers", not self.layers, "goes with Recon.control = 'ranked' alone")
        else:
            self.require("layers", bool(self.layers), "must be listed: see tools/rank_layers.py")
            few = count is None or count <= len(self.layers)
            self.require("n_layers", few, f"must be at most the {len(self.layers)} layers listed")

    def rates(self, model: FunctionalModel) -> list[float]:
        """The inner loop's for the chosen layers; 0 for the others."""
        rates = super().rates(model)
        chosen = set(self.chosen(model))
        return [rate if name in chosen else 0.0 for name, rate in zip(model.layer_names, rates)]

    def chosen(self, model: FunctionalModel) -> tuple[str, ...]:
        """The layers that the inner loop moves.

        Raises:
          ValueError: a layer listed isn't there or can't move, or there are too few to draw from.
        """
        movable = self.movable(model)
        if self.control == "ranked":
            for name in self.layers:
                if name not in movable:
                    raise ValueError(f"Recon.layers: {_why_not(name, model, movable)}")
            return tuple(self.layers[: self.n_layers])
        if self.n_layers > len(movable):
            raise ValueError(
                f"Recon.n_layers must be at most the {len(movable)} layers that the inner loop can "
                f"move: {', '.join(movable)}. Received: Recon.n_layers = {self.n_layers}."
            )
        # By digests, which are the same under every version of every library.
        drawn = sorted(movable, key=lambda name: stream_key(self.seed, "Recon", name))
        return tuple(sorted(drawn[: self.n_layers], key=movable.index))

    def movable(self, model: FunctionalModel) -> list[str]:
        """The layers with a variable that InnerLoop.inner_lr can move, in the network's order."""
        pairs = zip(model.layer_names, super().rates(model))
        return list(dict.fromkeys(name for name, rate in pairs if rate))


def _why_not(name: str, model: FunctionalModel, movable: list[str]) -> str:
    if name not in model.layer_names:
        known = ", ".join(dict.fromkeys(model.layer_names))
        return f"the network has no layer {name!r}. Its layers are {known}."
    return (
        f"the inner loop doesn't move {name!r}: its rate is 0 (InnerLoop.inner_lr), or it is a "
        "BatchNorm and InnerLoop.adapt_batch_norm = False. "
        f"Layers that move: {', '.join(movable)}."
    )
