"""Explore-exploit: probabilities against the formula, and draws that depend on (seed, step) alone."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh.aggregators.schedules import ExploreExploit

EPOCHS = 30


def probabilities(schedule):
    return [float(schedule.probability(tf.constant(e), EPOCHS)) for e in range(EPOCHS)]


def wave(e, turn, low=0.1, high=0.9):
    return low + 0.5 * (high - low) * (1 + math.cos(math.pi * e / turn))


@pytest.mark.parametrize(
    "mode, expected",
    [
        ("cosine", lambda e: wave(e, 10)),
        ("cosine_held", lambda e: wave(min(e, 10), 10)),
        ("fixed", lambda e: 0.9 if e < 10 else 0.1),
        ("off", lambda e: 0.0),
    ],
)
def test_probability_follows_the_formula(mode, expected):
    schedule = ExploreExploit(mode=mode, p_max=0.9, p_min=0.1, transition=1 / 3)
    np.testing.assert_allclose(
        probabilities(schedule), [expected(e) for e in range(EPOCHS)], atol=1e-6
    )


def test_cosine_reaches_its_minimum_at_the_transition_and_turns_back():
    p = probabilities(ExploreExploit(transition=1 / 3))
    assert p[0] == 1 and p[10] == pytest.approx(0, abs=1e-7) and p[20] == pytest.approx(1, abs=1e-6)


def draws(seed, probability=0.5, n=400):
    schedule = ExploreExploit()
    steps = tf.range(n, dtype=tf.int64)
    return tf.map_fn(
        lambda s: schedule.draw(s, seed, tf.constant(probability)), steps, fn_output_signature=tf.bool
    ).numpy()


def test_draws_are_a_function_of_seed_and_step():
    np.testing.assert_array_equal(draws(1), draws(1))
    assert (draws(1) != draws(2)).mean() > 0.3
    assert not np.array_equal(draws(1)[1:], draws(2)[:-1])


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.7, 1.0])
def test_draws_have_the_probability(probability):
    share = draws(5, probability, 1000).mean()
    assert abs(share - probability) <= 4 * math.sqrt(probability * (1 - probability) / 1000)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"mode": "linear"}, "mode must be one of cosine, cosine_held, fixed, off. Received: 'linear'"),
        ({"p_max": 1.5}, "0 <= p_min <= p_max <= 1 must hold. Received: p_min=0.0, p_max=1.5"),
        ({"p_min": 0.8, "p_max": 0.5}, "0 <= p_min <= p_max"),
        ({"transition": 0.0}, r"transition is a fraction .* in \(0, 1\]. Received: 0.0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ExploreExploit(**settings)
