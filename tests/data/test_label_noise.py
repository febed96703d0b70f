# SPDX-License-Identifier: Apache-2.0
"""Wrong labels: how many, that they are wrong, and that nothing else changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tests import records
from tf_lwdgh import config as gin_config
from tf_lwdgh.data import pipeline
from tf_lwdgh.data.episodes import EpisodeConfig
from tf_lwdgh.data.image_source import ImageSource
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.data.label_noise import LabelNoise

EPISODE = EpisodeConfig(n_way=4, k_shot=2, n_query=2)
IMAGE = ImageConfig(image_size=8, channels=3, flip=True)
RIGHT = np.repeat(np.arange(4), 2)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise") / "tiny"
    return ImageSource(folder, records.write_records(folder), "train", IMAGE)


def batches(source, noise=None, **settings):
    settings = {"meta_batch_size": 5, "seed": 3, "end_step": 6, "augment": True, **settings}
    return list(pipeline.meta_batches(source, EPISODE, label_noise=noise, **settings))


def labels(found):
    return np.concatenate([b.support_labels.numpy() for b in found])


@pytest.fixture(scope="module")
def clean(source):
    return batches(source)


def many(noise, n_tasks, n_way=5, k_shot=4):
    """Labels [n_tasks, N*K] of as many keys."""
    right = tf.repeat(tf.range(n_way), k_shot)
    keys = tf.stack([tf.range(n_tasks, dtype=tf.int64)] * 2, axis=1)

    @tf.autograph.experimental.do_not_convert
    def one(key):
        return noise.apply(right, n_way, key)

    @tf.function(autograph=False)
    def all_tasks():
        return tf.map_fn(one, keys, tf.int32)

    return all_tasks().numpy(), right.numpy()


@pytest.mark.parametrize(
    ("share", "n_labels", "count"),
    [(0, 5, 0), (0.2, 5, 1), (0.3, 5, 2), (0.29, 5, 1), (0.1, 25, 3), (0.145, 100, 15), (1, 7, 7)],
)
def test_the_count_is_the_nearest_number_and_halves_go_up(share, n_labels, count):
    assert LabelNoise(share).count(n_labels) == count


def test_a_share_that_makes_no_label_wrong_is_refused():
    with pytest.raises(ValueError, match=r"at least 0.1 with 5 .*LabelNoise.share_of_labels = 0.09"):
        LabelNoise(0.09).count(5)
    assert LabelNoise(0.09, share_of_tasks=0).count(5) == 0


def test_exactly_the_share_is_wrong_anywhere_and_by_any_other_label():
    found, right = many(LabelNoise(0.3), 1500)
    wrong = found != right
    assert (wrong.sum(axis=1) == 6).all() and found.min() == 0 and found.max() == 4
    expected = 1500 * 0.3
    assert (np.abs(wrong.sum(axis=0) - expected) < 4.5 * math.sqrt(expected * 0.7)).all()
    shifts = np.bincount(((found - right) % 5)[wrong], minlength=5)[1:]
    assert (np.abs(shifts - 9000 / 4) < 4.5 * math.sqrt(9000 * 0.25 * 0.75)).all()


def test_the_share_of_tasks_is_a_probability_and_corrupted_tasks_have_the_exact_count():
    found, right = many(LabelNoise(0.25, share_of_tasks=0.4), 1500)
    counts = (found != right).sum(axis=1)
    assert set(counts) == {0, 5}
    assert abs((counts > 0).sum() - 600) < 4.5 * math.sqrt(1500 * 0.4 * 0.6)


def test_with_two_ways_all_labels_can_be_the_other_ones():
    found, right = many(LabelNoise(1.0), 3, n_way=2)
    assert (found == 1 - right).all()


def test_nothing_but_support_labels_of_training_changes(source, clean):
    noisy = batches(source, LabelNoise(0.5))
    wrong = labels(noisy) != RIGHT
    assert wrong.shape == (30, 8) and (wrong.sum(axis=1) == 4).all()
    assert (labels(clean) == RIGHT).all()
    for a, b in zip(noisy, clean, strict=True):
        assert a.support_labels.dtype == tf.int32 and a.support_labels.shape == (5, 8)
        np.testing.assert_array_equal(a.query_labels, b.query_labels)
        np.testing.assert_array_equal(a.support_images, b.support_images)
        np.testing.assert_array_equal(a.query_images, b.query_images)
    tasks = labels(noisy)
    assert len(np.unique(tasks, axis=0)) > 25  # every task has its own


def test_a_restart_gives_the_same_wrong_labels_and_another_seed_gives_others(source):
    noise = LabelNoise(0.5, share_of_tasks=0.5)
    whole = labels(batches(source, noise))
    np.testing.assert_array_equal(labels(batches(source, noise, start_step=4)), whole[20:])
    assert (labels(batches(source, noise, seed=4)) != whole).any()


@pytest.mark.parametrize("noise", [LabelNoise(), LabelNoise(0.5, share_of_tasks=0.0)])
def test_off_is_as_without(source, clean, noise):
    for a, b in zip(batches(source, noise), clean, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", ["share_of_labels", "share_of_tasks"])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, "all", True, None])
def test_wrong_settings_name_the_binding(name, value):
    with pytest.raises(ValueError, match=rf"LabelNoise\.{name} must be a number from 0 to 1\."):
        LabelNoise(**{name: value})


def test_gin_binds_the_settings():
    gin_config.parse([], ["LabelNoise.share_of_labels = 0.2"])
    assert LabelNoise() == LabelNoise(0.2, 1.0) and LabelNoise().on
