# SPDX-License-Identifier: Apache-2.0
"""Every learner as a SavedModel: it answers there as it does here, in one call or kept."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.serving.exports import close
from tf_lwdgh import learners
from tf_lwdgh.data.images import ImageConfig, preprocess
from tf_lwdgh.learners import Learner
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks import backbones, encoders
from tf_lwdgh.serving import functions
from tf_lwdgh.serving.module import ServingModule

SIZE, N_WAY, STEPS = 8, 4, 2
IMAGES = ImageConfig(image_size=SIZE, normalisation="signed")
NETWORKS = {"CSN": (encoders.adacnn, 2), "RelationNetwork": (backbones.convnet4, 1)}
REQUIRED = {  # settings that have no default of use
    "Recon": {"layers": ("conv2", "head")},
    "DynamicNet": {"n_classes": 6},
}


def make(name: str) -> Learner:
    """A learner with few inner steps, where it has any, else as it comes."""
    cls, settings = learners.ALL[name], dict(REQUIRED.get(name, {}))
    if "inner_loop" in {f.name for f in dataclasses.fields(cls)}:
        settings["inner_loop"] = InnerLoop(steps=STEPS, inner_lr=0.1)
    return cls(**settings)


def nudge(variables) -> None:
    """Moves values off those that they start with, so that none can be left out unnoticed."""
    for i, variable in enumerate(variables):
        noise = tf.random.stateless_uniform(variable.shape, [i, 1], 0.8, 1.2, variable.dtype)
        variable.assign(variable * noise + tf.cast(0.01, variable.dtype) * noise)


class Case:
    """One learner, in this process and as a SavedModel, served inductively."""

    def __init__(self, name: str, folder: str) -> None:
        backbone, blocks = NETWORKS.get(name, (backbones.convnet4, 2))
        model = backbone(image_size=SIZE, channels=3, n_way=N_WAY, filters=3, blocks=blocks)
        self.parameters = MetaParameters(model, make(name))
        nudge(self.parameters.variables_trained)
        self.learner = dataclasses.replace(self.parameters.learner, batch_norm="inductive")
        module = ServingModule(self.parameters, IMAGES, batch_norm="inductive")
        tf.saved_model.save(module, folder)  # the signatures would take as long again
        self.loaded = tf.saved_model.load(folder)
        images = tf.TensorSpec([None, SIZE, SIZE, 3])
        labels, n_way = tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32)
        signature = [images, labels, images, n_way]
        self._answer = tf.function(self._logits, input_signature=signature, autograph=False)

    def _logits(self, support, labels, query, n_way):
        meta, context = self.parameters.values(), Context(self.parameters.model, n_way=n_way)
        adapted = self.learner.adapt(context, meta, support, labels)
        return self.learner.predict(context, meta, adapted, query)[0]

    def here(self, support: np.ndarray, labels: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Probabilities by the learner's own methods."""
        support, query = (preprocess(tf.constant(x), IMAGES) for x in (support, query))
        n_way = tf.constant(max(labels) + 1, tf.int32)
        logits = self._answer(support, tf.constant(labels, tf.int32), query, n_way)
        return tf.nn.softmax(logits).numpy()


def tasks(any_way: bool) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Support images and labels and queries: of as many ways as the head, of fewer, and of more."""
    random = np.random.default_rng(0)
    sizes = [(N_WAY, 2, 5), (N_WAY - 1, 3, 1)] + [(N_WAY + 2, 1, 7)] * any_way

    def images(count: int) -> np.ndarray:
        return random.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)

    found = []
    for n_way, k_shot, n_query in sizes:
        labels = random.permutation(np.repeat(np.arange(n_way), k_shot)).astype(np.int32)
        found.append((images(n_way * k_shot), labels, images(n_query)))
    return found


# One of each kind of classifier that is learned: a network, rates, means, items, a solver, a mixture.
QUICK = (
    "MAML", "MetaSGD", "ProtoMAML", "MAMLPlusPlus", "MetaLearnerLSTM", "PrototypicalNetwork", "MatchingNetwork",
    "RelationNetwork", "SNAIL", "CSN", "MetaNet", "LogisticRegression", "Reconciling",
)  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in learners.ALL])
def test_a_learner_is_served_as_it_is(name, tmp_path, monkeypatch):
    monkeypatch.setattr(functions, "IMAGES", {"": tf.uint8})  # how others come is no matter of the learner's
    case = Case(name, str(tmp_path / "model"))
    model, kept = case.loaded, tmp_path / "kept.npz"
    for support, labels, query in tasks(case.learner.any_way):
        whole = model.adapt_and_predict(support, labels, query)["probabilities"].numpy()
        assert whole.shape == (len(query), max(labels) + 1)
        close(whole, case.here(support, labels, query))
        classifier = model.adapt(support, labels)
        assert all(name.isidentifier() for name in classifier)  # so that signatures can take them
        np.savez(kept, **classifier)
        later = model.predict(dict(np.load(kept)), query)["probabilities"].numpy()
        assert later.tobytes() == whole.tobytes()
    if not case.learner.any_way:
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"head has {N_WAY} ways"):
            model.adapt(support[:1], np.int32([N_WAY]))
    depends = case.learner.depends_on_queries
    support, labels, query = tasks(any_way=False)[0]
    together = model.adapt_and_predict(support, labels, query)["probabilities"].numpy()
    alone = model.adapt_and_predict(support, labels, query[:1])["probabilities"].numpy()
    assert depends or np.abs(alone - together[:1]).max() < 1e-5
