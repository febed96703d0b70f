# SPDX-License-Identifier: Apache-2.0
"""The run's clock: epochs, and streams of random keys that a restart does not change."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh.types import Clock, stream_key


def clock(step, seed=0):
    return Clock(tf.convert_to_tensor(step), steps_per_epoch=10, epochs=3, seed=seed)


@pytest.mark.parametrize("step, epoch", [(0, 0), (9, 0), (10, 1), (29, 2)])
def test_the_epoch_is_counted_from_0(step, epoch):
    assert int(clock(step).epoch) == epoch
    assert clock(step).step.dtype == clock(step).epoch.dtype == tf.int64


def test_a_key_is_a_pure_function_of_seed_stream_and_step():
    asked = list(itertools.product((0, 1, 2), ("task", "explore"), (0, 1, 4, 5)))
    keys = [tuple(clock(step, seed).key(stream).numpy()) for seed, stream, step in asked]
    again = [tuple(clock(step, seed).key(stream).numpy()) for seed, stream, step in asked]
    assert keys == again
    assert len(set(keys)) == len(asked)  # and seed 1, step 5 is not seed 2, step 4


def test_a_key_is_the_same_within_a_graph_traced_once():
    traces = []

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)
    def key(step):
        traces.append(step)
        return clock(step).key("task")

    for step in (0, 7, 2**40):
        found = key(tf.constant(step, tf.int64))
        np.testing.assert_array_equal(found, clock(tf.constant(step, tf.int64)).key("task"))
        assert found.shape == (2,) and found.dtype == tf.int64
    assert len(traces) == 1


def test_draws_of_successive_steps_and_of_two_streams_look_independent():
    def draws(stream):
        return np.array([
            tf.random.stateless_uniform([], clock(s).key(stream), alg="philox") for s in range(400)
        ])  # fmt: skip

    a, b = draws("a"), draws("b")
    for x, y in ((a, b), (a[1:], a[:-1]), (a[1:], b[:-1])):
        assert abs(np.corrcoef(x, y)[0, 1]) < 4 / np.sqrt(len(x))
    assert abs(a.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 400)


def test_a_stream_key_depends_on_every_part_and_on_where_it_ends():
    keys = [stream_key(*p) for p in ((1, 5), (2, 4), (15,), ("1", 5), ("a", "bc"), ("ab", "c"))]
    assert len(set(keys)) == len(keys)
    assert all(-(2**31) <= word < 2**31 for key in keys for word in key)
