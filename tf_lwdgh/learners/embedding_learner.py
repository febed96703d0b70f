# SPDX-License-Identifier: Apache-2.0
"""What the learners share that embed images once and compare: no inner loop, any number of ways."""

from __future__ import annotations

import dataclasses
import zlib

import tensorflow as tf

from tf_lwdgh.learners.base import Learner
from tf_lwdgh.learners.context import Context
from tf_lwdgh.networks.functional import FunctionalModel, Hook
from tf_lwdgh.types import Meta, Tensors


@dataclasses.dataclass(frozen=True)
class EmbeddingLearner(Learner):
    """Embeds images by the network without its head, which is neither used nor trained."""

    @property
    def any_way(self) -> bool:
        return True

    def trained(self, model: FunctionalModel) -> list[bool]:
        return [not head for head in model.is_head]

    def embed_support(
        self, context: Context, meta: Meta, images: tf.Tensor, hook: Hook | None = None
    ) -> tuple[tf.Tensor, Tensors]:
        """Features [B, D] of a support set, and the statistics to be kept for its queries, see `kept`.

        Args:
          context: how the learner is asked.
          meta: the meta-parameters.
          images: [B, H, W, C].
          hook: see FunctionalModel.features.
        """
        features, state = context.model.features(
            meta.network, meta.state, images, training=self.support_takes_batch(context),
            noise=noise(context, "support"), hook=hook,
        )  # fmt: skip
        return features, self.kept(state)

    def embed_queries(
        self, context: Context, meta: Meta, kept: Tensors, images: tf.Tensor, hook: Hook | None = None
    ) -> tuple[tf.Tensor, Tensors]:
        """Features [B, D] of queries by the statistics that were kept, and their own statistics."""
        return context.model.features(
            meta.network, kept or meta.state, images, training=self.queries_take_batch(context),
            noise=noise(context, "query"), hook=hook,
        )  # fmt: skip

    def kept(self, state: Tensors) -> Tensors:
        """What of a support set's statistics is kept for its queries: with 'inductive' all, else nothing."""
        return list(state) if self.batch_norm == "inductive" else []


def noise(context: Context, of: str) -> tf.Tensor | None:
    """What dropout draws by for some images of a task: a key in training, else nothing."""
    if not context.training:
        return None
    return tf.random.fold_in(context.task_key, zlib.crc32(of.encode()), alg="philox")
