"""MAML (Finn et al. 2017): an initialisation from which a few gradient steps learn a task.

The outer loss of a task is L_Q(θ'), θ' the parameters after the inner loop on the support set.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.base import cross_entropy
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.learners.inner_loop import InnerLoop, adapt
from tf_lwdgh.types import Episode, TaskResult, Tensors

BATCH_NORM = ("transductive", "inductive", "global")
HEADS = ("learned", "zero")


@config.configurable
@dataclasses.dataclass(frozen=True)
class MAML:
    """The learner.

    Attributes:
      inner_loop: steps, rates and order of the inner loop.
      batch_norm: which statistics BatchNorm uses.
        'transductive': always those of the batch at hand, so a query's prediction depends on the
          other queries.
        'inductive': the support set's; for the queries, those of the support set under the adapted
          parameters.
        'global': the batch's in training, and averages over all training tasks afterwards.
      head: 'learned' by the outer loop, or 'zero' at the start of every task; with 'zero' the number of
        ways may differ between training and test.
    """

    inner_loop: InnerLoop = dataclasses.field(default_factory=InnerLoop)
    batch_norm: str = "transductive"
    head: str = "learned"

    def __post_init__(self) -> None:
        for name, known in (("batch_norm", BATCH_NORM), ("head", HEADS)):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(
                    f"MAML.{name} must be one of {', '.join(known)}. Received: {value!r}."
                )

    def trained(self, model: FunctionalModel) -> list[bool]:
        """All variables; without the head's where the head starts every task at zero."""
        return [not (head and self.head == "zero") for head in model.is_head]

    def task(
        self,
        model: FunctionalModel,
        params: Tensors,
        state: Tensors,
        episode: Episode,
        *,
        n_way: int | tf.Tensor | None = None,
    ) -> TaskResult:
        """The query loss of one training task, differentiable in `params`.

        Args:
          model: the model's functional view.
          params: one tensor a variable.
          state: BatchNorm's averages.
          episode: one task.
          n_way: the task's ways; needed where it is not the model's.

        Returns:
          Loss, logits and the batch statistics that 'global' averages (the query set's).
        """
        support = model.prepare(episode.support_images)
        labels = episode.support_labels
        adapted = self._adapt(model, params, state, support, labels, n_way, None, training=True)
        logits, state = self._query(
            model, adapted, state, support, episode.query_images, training=True
        )
        return TaskResult(cross_entropy(logits, episode.query_labels), logits, state)

    def adapt_and_predict(
        self,
        model: FunctionalModel,
        params: Tensors,
        state: Tensors,
        support_images: tf.Tensor,
        support_labels: tf.Tensor,
        query_images: tf.Tensor,
        *,
        n_way: int | tf.Tensor | None = None,
        steps: int | None = None,
    ) -> tf.Tensor:
        """The query set's logits after adapting to the support set; not differentiable.

        Args:
          model: the model's functional view.
          params: one tensor a variable.
          state: BatchNorm's averages.
          support_images: [N*K, H, W, C].
          support_labels: [N*K] integers in [0, N).
          query_images: [B, H, W, C].
          n_way: N, where it is not the model's (needs head='zero').
          steps: inner steps, where they are not the training's.

        Returns:
          [B, N].
        """
        support = model.prepare(support_images)
        adapted = self._adapt(
            model, params, state, support, support_labels, n_way, steps, training=False
        )
        return self._query(model, adapted, state, support, query_images, training=False)[0]

    def _adapt(
        self, model, params, state, images, labels, n_way, steps, *, training: bool
    ) -> Tensors:
        batch_statistics = training or self.batch_norm != "global"

        def support_loss(at: Tensors) -> tf.Tensor:
            logits, _ = model.apply(at, state, images, training=batch_statistics)
            return cross_entropy(logits, labels)

        return adapt(
            support_loss,
            self._start(model, params, n_way),
            settings=self.inner_loop,
            rates=self.inner_loop.rates(model.names, model.is_batch_norm),
            steps=steps,
            differentiable=training,
        )

    def _start(self, model: FunctionalModel, params: Tensors, n_way) -> Tensors:
        if self.head == "learned":
            return list(params)
        n_way = model.n_way if n_way is None else n_way
        kernel, bias = params[-2:]
        zeros = [tf.zeros([kernel.shape[0], n_way], kernel.dtype), tf.zeros([n_way], bias.dtype)]
        return [*params[:-2], *zeros]

    def _query(self, model, adapted, state, support_images, query_images, *, training: bool):
        if self.batch_norm == "inductive":
            _, state = model.apply(adapted, state, support_images, training=True)
            return model.apply(adapted, state, query_images, training=False)
        batch_statistics = training or self.batch_norm == "transductive"
        return model.apply(adapted, state, query_images, training=batch_statistics)
