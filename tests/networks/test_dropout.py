# SPDX-License-Identifier: Apache-2.0
"""Dropout: off without a key, a pure function of the key with one, and right in the mean."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh.networks.layers.dropout import Dropout, dropping

KEY = tf.constant([3, 4], tf.int64)


def dropped(layer: Dropout, x: tf.Tensor, key: tf.Tensor | None) -> np.ndarray:
    with dropping(key):
        return layer(x).numpy()


def test_without_a_key_all_stays():
    x, layer = tf.ones([4, 5]), Dropout(0.5, name="a")
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(dropped(layer, x, None), x)


def test_the_key_and_the_layer_s_name_decide():
    x, layer = tf.ones([200, 5]), Dropout(0.5, name="a")
    once = dropped(layer, x, KEY)
    np.testing.assert_array_equal(once, dropped(layer, x, KEY))
    np.testing.assert_array_equal(once, dropped(Dropout(0.5, name="a"), x, KEY))
    assert (once != dropped(layer, x, KEY + 1)).any()
    assert (once != dropped(Dropout(0.5, name="b"), x, KEY)).any()


@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_units_are_zero_at_the_rate_and_scaled_else(rate):
    found = dropped(Dropout(rate), tf.fill([20_000], 2.0), KEY)
    np.testing.assert_allclose(np.unique(found), [0, 2 / (1 - rate)], rtol=1e-6)
    assert abs((found == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / 20_000)


def test_whole_maps_are_dropped():
    found = dropped(Dropout(0.5, maps=True), tf.ones([50, 3, 3, 8]), KEY)
    by_map = found.reshape(50, 9, 8)
    assert (by_map == by_map[:, :1]).all() and 0 < (by_map == 0).mean() < 1


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_that_leaves_nothing_is_refused(rate):
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\)"):
        Dropout(rate)
