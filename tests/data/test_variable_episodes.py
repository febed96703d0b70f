# SPDX-License-Identifier: Apache-2.0
"""Tasks of varying ways and shots: the rule in NumPy, published statistics, groups of classes, lists, pixels."""

from __future__ import annotations

import functools
import gzip
import json
import math

import numpy as np
import pytest
import tensorflow as tf

from tests import records
from tests.data.test_episodes import chi_square_z
from tf_lwdgh.data import episodes, pipeline, random_streams, store, task_lists, variable_episodes
from tf_lwdgh.data.class_groups import groups
from tf_lwdgh.data.image_source import ImageSource
from tf_lwdgh.data.images import ImageConfig, normalise, to_unit
from tf_lwdgh.data.label_noise import LabelNoise
from tf_lwdgh.data.mixtures import Mixture
from tf_lwdgh.data.task_lists import TaskList
from tf_lwdgh.data.variable_episodes import VariableEpisodes, VariableIndices

CUB_TEST = (
    48, 59, 58, 59, 59, 60, 60, 59, 60, 60, 60, 60, 60, 50, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 59,
    59, 60, 60, 60,
)  # fmt: skip
OMNIGLOT_TEST = (20, 26, 26, 26, 26, 26, 45, 45, 41, 26, 47, 40, 30, 45, 46, 28, 23, 25, 42, 26)


def spec(name, test, superclasses=(), nodes=(), train=()):
    """A data set of a training and a test split, given by their classes' numbers of images."""
    counts = {"train": len(train), "val": 0, "test": len(test)}
    n = len(train) + len(test)
    names = tuple(f"s{i}" for i in range(max(superclasses, default=-1) + 1))
    images = (*train, *test)
    return store.DatasetSpec(name, counts, images, ("c",) * n, superclasses, names, nodes)


def tasks(described, count, config=VariableEpisodes(), split="test", seed=0, step=0):
    @tf.autograph.experimental.do_not_convert
    def one(task):
        return variable_episodes.sample(described, split, config, seed=seed, step=step, task=task)

    dataset = tf.data.Dataset.range(count).map(one)
    return [VariableIndices(*task) for task in dataset.as_numpy_iterator()]


MIXED_SIZES = spec("sizes", (6, 9, 14, 30, 61, 200, 1300, 340_029), train=(20,) * 3)


@pytest.mark.parametrize(
    "config",
    [
        VariableEpisodes(),
        VariableEpisodes(2, 4, 7, 40, 11, -3.0, 2.0),
        VariableEpisodes(2, 8, max_support_set_size=12, min_log_weight=0.0, max_log_weight=0.0),
    ],
)
def test_shapes_follow_the_published_rule_in_numpy(config):
    key = random_streams.split_key(4, "test")

    def numbers(task, stream, n):
        key_of_task = random_streams.task_key(key, 6, task, stream)
        return random_streams.uniform(key_of_task, [n]).numpy()

    for number, task in enumerate(tasks(MIXED_SIZES, 30, config, seed=4, step=6)):
        first, beta = numbers(number, random_streams.SHAPE, 2)
        most = min(config.max_ways_upper_bound, 8)
        ways = config.min_ways + math.floor(first * (most - config.min_ways + 1))
        images = np.array(MIXED_SIZES.images_per_class)[task.class_ids]
        query = min(config.max_num_query, min(n // 2 for n in images))
        rest = images - query
        contributions = [
            math.floor(beta * min(config.max_support_size_contrib_per_class, r)) + 1 for r in rest
        ]
        total = min(config.max_support_set_size, sum(contributions))
        logs = numbers(number, random_streams.WEIGHTS, ways)
        logs = config.min_log_weight + (config.max_log_weight - config.min_log_weight) * logs
        weights = images * np.exp(logs)
        wanted = 1 + np.floor((total - ways) * weights / weights.sum())
        assert (len(task.class_ids), task.n_query) == (ways, query)
        np.testing.assert_array_equal(task.support_sizes, np.minimum(wanted, rest))


def test_images_are_within_each_class_and_none_comes_twice():
    for task in tasks(MIXED_SIZES, 40, VariableEpisodes(max_support_size_contrib_per_class=400)):
        sizes = np.array(MIXED_SIZES.images_per_class)[task.class_ids]
        support, query = np.split(task.image_indices, [task.support_sizes.sum()])
        parts = np.split(support, np.cumsum(task.support_sizes)[:-1])
        for size, count, first, second in zip(
            sizes, task.support_sizes, parts, query.reshape(-1, task.n_query), strict=True
        ):
            both = np.concatenate([first, second])
            assert len(set(both)) == len(both) == count + task.n_query
            assert both.min() >= 0 and both.max() < size
        assert len(set(task.class_ids)) == len(task.class_ids)
        assert set(task.class_ids) <= set(MIXED_SIZES.classes("test"))


def test_few_numbers_are_drawn_uniformly_and_in_uniform_order():
    sizes, counts = tf.constant([7, 3, 300_000]), tf.constant([4, 3, 1])

    @tf.function(autograph=False)
    def one(i):
        key = tf.stack([i, tf.constant(5, tf.int64)])
        return random_streams.draw_few(key, key + 1, sizes, counts)

    found = np.stack([one(tf.constant(i, tf.int64)).numpy() for i in range(2100)])
    assert found.shape == (2100, 3, 4) and (found[:, 1, 3:] == -1).all() and (found[:, 2, 1:] == -1).all()
    for position in range(4):
        assert abs(chi_square_z(np.bincount(found[:, 0, position], minlength=7))) < 4.5
    pairs = np.zeros((7, 7))
    np.add.at(pairs, (found[:, 0, 0], found[:, 0, 3]), 1)
    assert abs(chi_square_z(pairs[~np.eye(7, dtype=bool)])) < 4.5
    orders = np.unique(found[:, 1, :3], axis=0, return_counts=True)[1]
    assert len(orders) == 6 and abs(chi_square_z(orders)) < 4.5
    assert abs(found[:, 2, 0].mean() / 300_000 - 0.5) < 4.5 / math.sqrt(12 * 2100)


# Means over 10,000 tasks of what Meta-Dataset's own sampler draws on its own descriptions of the sets:
# ways, support images, support images a class; and their standard errors.
PUBLISHED = {
    "aircraft": (spec("aircraft", (100,) * 15), (9.968, 342.328, 36.104), (0.032, 1.617, 0.182)),
    "cu_birds": (spec("cu_birds", CUB_TEST), (17.418, 312.064, 19.408), (0.075, 1.659, 0.103)),
    "dtd": (spec("dtd", (120,) * 7), (6.004, 278.608, 46.540), (0.008, 1.549, 0.254)),
    "omniglot": (
        spec("omniglot", (20,) * 659, tuple(np.repeat(np.arange(20), OMNIGLOT_TEST).tolist())),
        (19.053, 92.178, 4.846), (0.100, 0.717, 0.025),
    ),
}  # fmt: skip


@functools.cache
def published_tasks(name):
    return tasks(PUBLISHED[name][0], 350, seed=12)


@pytest.mark.parametrize("name", PUBLISHED)
def test_ways_and_shots_are_those_of_the_published_sampler(name):
    _, means, errors = PUBLISHED[name]
    drawn = published_tasks(name)
    rows = [(len(t.class_ids), t.support_sizes.sum(), t.support_sizes.mean()) for t in drawn]
    assert all(t.n_query == 10 for t in drawn)
    ours = np.array(rows, np.float64)
    width = np.hypot(ours.std(axis=0, ddof=1) / math.sqrt(len(ours)), errors)
    assert (np.abs(ours.mean(axis=0) - means) < 4.5 * width).all()


def test_ways_are_uniform_up_to_the_number_of_classes():
    counts = np.bincount([len(t.class_ids) for t in published_tasks("aircraft")])
    assert not counts[:5].any() and len(counts) == 16 and abs(chi_square_z(counts[5:])) < 4.5


def test_a_task_is_a_function_of_seed_split_step_and_task():
    def drawn(**place):
        few = VariableEpisodes(2, 3)
        return [[v.tolist() for v in t] for t in tasks(MIXED_SIZES, 4, few, **place)]

    same = [drawn(seed=1, step=2), drawn(seed=1, step=2)]
    assert same[0] == same[1] and len({str(task) for task in same[0]}) == 4
    others = [drawn(seed=1, step=3), drawn(seed=2, step=2), drawn(seed=1, step=2, split="train")]
    shapes = [[[len(task[0]), task[3]] for task in o] for o in (same[0], *others)]
    assert len({str(s) for s in shapes}) == 4


def test_classes_are_of_one_superclass_each_equally_often():
    described = spec("alphabets", (20,) * 21, (0,) * 5 + (1,) * 6 + (2,) * 10)
    drawn = tasks(described, 200)
    sets = [{described.superclasses[c] for c in t.class_ids} for t in drawn]
    assert all(len(s) == 1 for s in sets)
    assert abs(chi_square_z(np.bincount([min(s) for s in sets]))) < 4.5
    ways = {i: {len(t.class_ids) for t, s in zip(drawn, sets) if i in s} for i in range(3)}
    assert ways == {0: {5}, 1: {5, 6}, 2: set(range(5, 11))}
    loose = tasks(described, 20, VariableEpisodes(hierarchy=False))
    assert any(len({described.superclasses[c] for c in t.class_ids}) > 1 for t in loose)


def test_all_classes_below_a_node_make_a_task_and_nodes_of_too_few_or_many_make_none():
    nodes = ((0, 1, 2, 3, 4, 5, 6), (0, 1, 2, 3, 4), (5, 6), tuple(range(450)), tuple(range(400, 500)))
    described = spec("graph", (20,) * 500, nodes=nodes)
    found = groups(described, "test", VariableEpisodes())
    assert [(g.members, g.fewest, g.most) for g in found[:2]] == [(nodes[0], 7, 7), (nodes[1], 5, 5)]
    assert (found[2].members, found[2].fewest, found[2].most) == (nodes[4], 50, 50) and len(found) == 3
    drawn = [sorted(t.class_ids) for t in tasks(described, 60)]
    assert all(t in ([*nodes[0]], [*nodes[1]]) or len(t) == 50 and set(t) < set(nodes[4]) for t in drawn)
    assert abs(chi_square_z(np.unique([len(t) for t in drawn], return_counts=True)[1])) < 4.5


def test_a_mixture_draws_the_set_by_its_share_then_a_group_of_it():
    parts = (PUBLISHED["dtd"][0], spec("b", (20,) * 12, (0,) * 6 + (1,) * 6, train=()))
    mixture = Mixture(("a", "b"), parts, (3, 1))
    drawn = tasks(mixture, 240)
    firsts = np.array([t.class_ids.min() // 7 for t in drawn])
    assert abs((firsts == 0).sum() - 180) < 4.5 * math.sqrt(45)
    of_b = [set(t.class_ids) for t in drawn if t.class_ids.min() >= 7]
    assert all(s <= set(range(7, 13)) or s <= set(range(13, 19)) for s in of_b)


def test_classes_with_too_few_images_are_left_out():
    described = spec("few", (1, 1, 4, 9, 9, 9, 9))
    assert {c for t in tasks(described, 30) for c in t.class_ids} == set(range(2, 7))
    nine = VariableEpisodes(min_ways=2, min_examples_in_class=9)
    assert groups(described, "test", nine)[0].members == (3, 4, 5, 6)


@pytest.mark.parametrize(
    ("described", "config", "text"),
    [
        (spec("d", (9,) * 4), VariableEpisodes(), "at most the number of classes.*'test'.*'d' has 4.*= 5"),
        (spec("d", (1, *(9,) * 4)), VariableEpisodes(), "min_examples_in_class = 2 images.*has 4"),
        (spec("d", (9,) * 9, (0,) * 6 + (1,) * 3), VariableEpisodes(), "hierarchy must be False.*'s1' has 3"),
        (spec("d", (9,) * 9, nodes=((0, 1),)), VariableEpisodes(), "below a node.*there is none"),
    ],
)
def test_a_split_that_cannot_fill_the_tasks_is_refused(described, config, text):
    with pytest.raises(ValueError, match=text):
        episodes.check(described, "test", config)
    with pytest.raises(ValueError, match=text):
        episodes.check(Mixture(("a", "b"), (spec("a", (9,) * 9), described), (1, 1)), "test", config)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("min_ways", 1, "at least 2"), ("min_ways", 5.0, "an integer"), ("max_ways_upper_bound", 4, "least 5"),
        ("max_num_query", 0, "at least 1"), ("max_support_set_size", 49, "at least 50"),
        ("max_support_size_contrib_per_class", True, "an integer"), ("min_examples_in_class", 1, "at least 2"),
        ("min_log_weight", -math.inf, "finite"), ("max_log_weight", -1.0, "at least min_log_weight, -0.69"),
        ("hierarchy", 1, "True or False"),
    ],
)  # fmt: skip
def test_settings_are_checked(name, value, rule):
    with pytest.raises(ValueError, match=f"VariableEpisodes.{name} must be .*{rule}.*Received: .*{name}"):
        VariableEpisodes(**{name: value})


IMAGE = ImageConfig(image_size=8, channels=3)
SHAPE = VariableEpisodes(2, 4, max_num_query=3, max_support_set_size=9)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("varying")
    return ImageSource(folder, records.write_records(folder), "test", IMAGE)


@pytest.fixture(scope="module")
def listed(source):
    return task_lists.draw(source.spec, "test", SHAPE, seed=3, n_tasks=7)


def dense(batches):
    """Every task of ragged batches, as arrays."""
    return [[v.numpy() for v in task] for batch in batches for task in zip(*batch, strict=True)]


def test_a_listed_and_a_sampled_task_hold_the_images_that_were_drawn(source, listed, tmp_path):
    listed.write(tmp_path / "tasks.json.gz")
    read = task_lists.read(tmp_path / "tasks.json.gz")
    assert read.sha256 == listed.sha256 and len(read) == 7 and read.config == SHAPE
    read.check(source.spec, "test", SHAPE)
    from_list = dense(pipeline.listed_tasks(source, read, batch_size=3))
    sampled = dense(pipeline.evaluation_tasks(source, SHAPE, seed=3, n_tasks=7, batch_size=2))
    parts = (listed.class_ids, listed.support_sizes, listed.n_query, listed.image_indices)
    made = map(VariableIndices, *parts)
    for ours, theirs, drawn in zip(from_list, sampled, made, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
        labels = np.arange(len(drawn.class_ids))
        np.testing.assert_array_equal(ours[1], np.repeat(labels, drawn.support_sizes))
        np.testing.assert_array_equal(ours[3], np.repeat(labels, drawn.n_query))
        of_image = drawn.class_ids[np.concatenate([ours[1], ours[3]])]
        pixels = [
            records.class_pixels(c, source.spec.images_per_class[c], (8, 8, 3))[i]
            for c, i in zip(of_image, drawn.image_indices, strict=True)
        ]
        expected = normalise(to_unit(tf.constant(np.stack(pixels)), IMAGE), IMAGE)
        np.testing.assert_array_equal(np.concatenate([ours[0], ours[2]]), expected)


def test_training_goes_on_with_exactly_the_tasks_it_would_have_seen(source):
    def batches(start):
        settings = {"meta_batch_size": 2, "seed": 5, "start_step": start, "end_step": 4}
        return dense(pipeline.meta_batches(source, SHAPE, augment=True, **settings))

    whole, rest = batches(0), batches(2)
    assert len(whole) == 8 and len({task[0].shape for task in whole}) > 2
    for a, b in zip(whole[4:], rest, strict=True):
        assert all((x == y).all() for x, y in zip(a, b, strict=True))
    with pytest.raises(ValueError, match="share_of_labels must be 0 for tasks of varying shape"):
        pipeline.meta_batches(source, SHAPE, meta_batch_size=2, seed=0, label_noise=LabelNoise(0.5))


@pytest.mark.parametrize(
    ("part", "change", "text"),
    [
        ("class_ids", lambda v: [0, *v[1:]], "classes of split 'test'"),
        ("class_ids", lambda v: [v[0]] * len(v), "no class twice"),
        ("image_indices", lambda v: [99, *v[1:]], "image numbers below"),
        ("image_indices", lambda v: [v[-1]] * len(v), "no image twice"),
        ("image_indices", lambda v: v[1:], "as many images"),
        ("support_sizes", lambda v: [v[0] + v[1], 0, *v[2:]], "images of every class"),
    ],
)
def test_a_list_that_cannot_be_of_the_data_set_is_refused(source, listed, part, change, text):
    content = listed._lists()
    content[part][1] = change(content[part][1])
    head = (listed.dataset, listed.fingerprint, listed.split, listed.config, listed.seed)
    with pytest.raises(ValueError, match=text):
        type(listed)(*head, **content).check(source.spec, "test")


def test_a_damaged_list_and_one_of_another_kind_are_refused(source, listed, tmp_path):
    path = tmp_path / "tasks.json.gz"
    listed.write(path)
    with pytest.raises(ValueError, match="kind: the list has 'VariableEpisodes'"):
        listed.check(source.spec, "test", episodes.EpisodeConfig(3, 1, 2))
    with pytest.raises(ValueError, match="VariableEpisodes.min_ways: the list has 2. Received: 3"):
        listed.check(source.spec, "test", VariableEpisodes(3, 4, 3, 9))
    with pytest.raises(ValueError, match="must have format 'tf_lwdgh tasks 1'"):
        TaskList.read(path)
    content = json.loads(gzip.decompress(path.read_bytes()))
    content["n_query"][0] += 1
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    with pytest.raises(ValueError, match="was changed or damaged"):
        task_lists.read(path)
