# SPDX-License-Identifier: Apache-2.0
"""Networks of a learner's own: their variables are trained, averaged, kept and told from the backbone's."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.learners import tiny_tasks
from tests.toy_learners import Compared
from tf_lwdgh.aggregators import ALL as AGGREGATORS
from tf_lwdgh.networks.parts import Part
from tf_lwdgh.runs.checkpoints import CheckpointFolder, meta_variables

BATCH = tiny_tasks.episodes()
NAMES = [f"compare/{v}" for v in (
    "hidden/kernel", "hidden/bias", "norm/gamma", "norm/beta", "score/kernel", "score/bias",
)]  # fmt: skip


def test_a_part_s_variables_are_meta_parameters_and_units_by_layer():
    params = tiny_tasks.parameters(Compared())
    assert list(params.own) == NAMES
    assert params.names[-6:] == NAMES
    units = params.units("layer")
    assert {"compare/hidden", "compare/norm", "compare/score"} <= set(units)
    # BatchNorm cancels the bias before it.
    assert [params.names[i] for i in units["compare/hidden"]] == ["compare/hidden/kernel"]


def test_the_outer_gradient_reaches_a_part():
    params = tiny_tasks.parameters(Compared())
    tiny_tasks.assert_gradient_is_the_slope(params, BATCH)


@pytest.mark.parametrize("batch_norm", ["transductive", "inductive", "global"])
def test_the_statistics_of_a_part_follow_the_learner_s_batch_norm(batch_norm):
    params = tiny_tasks.parameters(Compared(batch_norm=batch_norm))
    meta, one = tiny_tasks.perturbed(params), tiny_tasks.task(BATCH)
    told, learner = tiny_tasks.context(params, training=False), params.learner
    adapted = learner.adapt(told, meta, one.support_images, one.support_labels)

    def first(queries) -> np.ndarray:
        return learner.predict(told, meta, adapted, queries)[0][0].numpy()

    alone, together = first(one.query_images[:1]), first(one.query_images)
    same = np.allclose(alone, together, rtol=1e-9)
    assert same == (batch_norm != "transductive")


def test_a_part_s_averages_move_with_training_and_are_kept(tmp_path):
    learner = Compared(batch_norm="global")
    step = tiny_tasks.meta_step(learner, aggregator=AGGREGATORS["LWDGH"]())
    averages = step.parameters.model.parts["compare"].state_variables
    before = [v.numpy().copy() for v in averages]
    tiny_tasks.losses_while_training(step, BATCH, 2)
    assert all(np.abs(b - v.numpy()).max() > 1e-4 for b, v in zip(before, averages))

    folder = CheckpointFolder(tmp_path)
    folder.save(2, meta_variables(step.parameters), {})
    again = tiny_tasks.parameters(learner)
    folder.load(folder.newest(), meta_variables(again))
    for saved, loaded in zip(averages, again.model.parts["compare"].state_variables):
        np.testing.assert_array_equal(saved.numpy(), loaded.numpy())
    for name in NAMES:
        np.testing.assert_array_equal(step.parameters.own[name], again.own[name])


def test_a_part_replaces_its_own_averages_in_the_state_and_no_others():
    params = tiny_tasks.parameters(Compared())
    meta, part = params.values(), params.model.parts["compare"]
    rows = tf.random.stateless_normal([6, params.model.n_features], [1, 2], dtype=tf.float64)
    _, state = part(meta.own, meta.state, rows, training=True)
    assert len(state) == len(meta.state)
    for old, new in zip(meta.state[:-2], state[:-2]):
        np.testing.assert_array_equal(old, new)
    hidden = rows @ meta.own["compare/hidden/kernel"] + meta.own["compare/hidden/bias"]
    np.testing.assert_allclose(state[-2], tf.reduce_mean(hidden, 0), rtol=1e-12)


def test_the_seeds_of_a_recurrent_layer_are_no_averages():
    rows = keras.Input([None, 3], dtype="float64")
    network = keras.Model(rows, keras.layers.LSTM(2, dtype="float64")(rows))
    assert network.non_trainable_variables
    part = Part("mine", network, 0)
    assert not part.state_variables
    own = dict(zip(part.names, map(tf.convert_to_tensor, part.variables)))
    x = tf.random.stateless_normal([4, 5, 3], [1, 2], dtype=tf.float64)
    found, state = part(own, [], x, training=True)
    np.testing.assert_allclose(found, network(x), rtol=1e-12)
    assert state == []


def test_keras_s_own_batch_norm_is_refused():
    rows = keras.Input([3])
    network = keras.Model(rows, keras.layers.BatchNormalization()(rows))
    with pytest.raises(ValueError, match="The part 'mine' can't hold Keras's own BatchNorm"):
        Part("mine", network, 0)
