# SPDX-License-Identifier: Apache-2.0
"""The learning-rate schedules against their formulas, and the optimizers by name."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from tf_lwdgh import config
from tf_lwdgh.outer import optimizers
from tf_lwdgh.outer.optimizers import LearningRate


def _rates(settings: LearningRate, total: int) -> list[float]:
    schedule = settings.schedule(total)
    return [float(schedule(np.int64(step))) for step in range(total)]


def test_a_constant_rate_is_a_number():
    assert LearningRate(rate=0.5).schedule(100) == 0.5


def test_cosine_goes_from_the_rate_to_the_floor():
    expected = [0.2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * s / 20))) for s in range(20)]
    np.testing.assert_allclose(_rates(LearningRate(0.2, "cosine", floor=0.1), 20), expected, rtol=1e-5)


def test_linear_goes_from_the_rate_to_the_floor_after_the_warm_up():
    expected = [0.2 * (1 - 0.9 * s / 20) for s in range(20)]
    np.testing.assert_allclose(_rates(LearningRate(0.2, "linear", floor=0.1), 20), expected, rtol=1e-5)
    rates = _rates(LearningRate(1.0, "linear", warmup=0.4), 10)
    expected = [0.25, 0.5, 0.75, 1.0, *(1 - (s - 4) / 6 for s in range(4, 10))]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_steps_multiply_at_the_milestones():
    settings = LearningRate(1.0, "step", milestones=(0.5, 0.8), factor=0.1)
    np.testing.assert_allclose(_rates(settings, 10), [1] * 5 + [0.1] * 3 + [0.01] * 2, rtol=1e-6)


def test_warm_up_rises_linearly_and_cosine_starts_after_it():
    rates = _rates(LearningRate(1.0, "cosine", warmup=0.4), 10)
    np.testing.assert_allclose(rates[:4], [0.25, 0.5, 0.75, 1.0], rtol=1e-5)
    expected = [0.5 * (1 + math.cos(math.pi * (s - 4) / 6)) for s in range(4, 10)]
    np.testing.assert_allclose(rates[4:], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "field, value",
    [
        ("rate", 0.0),
        ("decay", "exponential"),
        ("floor", 2.0),
        ("milestones", (0.5, 0.2)),
        ("factor", 0.0),
        ("warmup", 1.0),
    ],
)
def test_a_wrong_setting_names_its_binding(field, value):
    with pytest.raises(ValueError, match=f"Received: LearningRate.{field} = "):
        LearningRate(**{field: value})


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_every_optimizer_is_built_with_the_schedule(name):
    optimizer = optimizers.build(optimizers.OPTIMIZERS[name], LearningRate(0.25), 10)
    assert isinstance(optimizer, getattr(keras.optimizers, name))
    assert float(optimizer.learning_rate) == 0.25


def test_what_makes_no_optimizer_is_refused():
    with pytest.raises(ValueError, match="must make a Keras optimizer"):
        optimizers.build(lambda learning_rate: learning_rate, LearningRate(), 10)


def test_gin_sets_an_optimizers_arguments_but_not_its_rate_or_clipping():
    config.parse([], ["Adam.beta_1 = 0.5"])
    assert optimizers.build(optimizers.OPTIMIZERS["Adam"], LearningRate(), 10).beta_1 == 0.5
    with pytest.raises(ValueError, match="Bind LearningRate.rate instead"):
        config.parse([], ["Adam.learning_rate = 0.5"])
    with pytest.raises(ValueError, match="Bind OuterLoop.clip_value"):
        config.parse([], ["SGD.clipnorm = 0.5"])
