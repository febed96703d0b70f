# SPDX-License-Identifier: Apache-2.0
"""Mixtures of data sets: shares, tasks of one set each, pixels as of each set alone."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import tensorflow as tf

from tests import records
from tests.data.test_episodes import chi_square_z, draw, make_spec
from tf_lwdgh import config as gin_config
from tf_lwdgh.data import episodes, pipeline, store
from tf_lwdgh.data.dataset_config import DatasetConfig
from tf_lwdgh.data.episodes import EpisodeConfig
from tf_lwdgh.data.image_source import STORAGES, ImageSource
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.data.mixed_source import MixedSource, open_source
from tf_lwdgh.data.mixtures import Mixture
from tf_lwdgh.data.pipeline import PipelineConfig
from tf_lwdgh.data.task_lists import TaskList

EPISODE = EpisodeConfig(n_way=3, k_shot=1, n_query=3)
IMAGE = ImageConfig(image_size=8, channels=3)


def spec(name: str, train: int, val: int, test: int, images: int = 10) -> store.DatasetSpec:
    n = train + val + test
    counts = {"train": train, "val": val, "test": test}
    return store.DatasetSpec(name, counts, tuple(range(images, images + n)), ("c",) * n)


MIXTURE = Mixture(
    ("a", "b", "c"), (spec("a", 4, 3, 5), spec("b", 9, 4, 3), spec("c", 3, 5, 7)), (1, 2, 5)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sets of other sizes and channels: 'colour' 8×8×3, 'grey' 6×6×1."""
    path = tmp_path_factory.mktemp("mixtures")
    records.write_records(path / "colour", (8, 8, 3), "colour")
    grey = {
        s: [(f"{s}{i}", list(p[..., 0])) for i, p in enumerate(records.all_pixels(s, (6, 6, 1)))]
        for s in records.SIZES
    }
    store.write_dataset(path / "grey", "grey", grey, image_size=6)
    return path


CONFIG = DatasetConfig(("colour", "grey"), (3, 1))


def mixed_source(folder, split="train", storage="encoded"):
    return open_source(folder, CONFIG.names, CONFIG.open(folder), split, IMAGE, storage)


def batches(source, **settings):
    settings = {"meta_batch_size": 4, "seed": 5, "end_step": 4, **settings}
    return list(pipeline.meta_batches(source, EPISODE, **settings))


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def sets_of(mixture, split, class_ids):
    """The sets [n] of tasks [n, N], counted out class by class."""
    owners = [i for i, part in enumerate(mixture.specs) for _ in part.classes(split)]
    found = np.array(owners)[class_ids - mixture.classes(split).start]
    assert (found == found[:, :1]).all()
    return found[:, 0]


def test_classes_are_numbered_split_by_split_and_set_by_set():
    assert [MIXTURE.classes(s) for s in store.SPLITS] == [range(16), range(16, 28), range(28, 43)]
    assert MIXTURE.parts("val") == [range(16, 19), range(19, 23), range(23, 28)]
    a, b, c = MIXTURE.specs
    assert MIXTURE.images_per_class[19:23] == b.images_per_class[9:13]
    assert MIXTURE.images_per_class[40:] == c.images_per_class[12:]
    assert MIXTURE.name == "a+b+c" and MIXTURE.shares == (0.125, 0.25, 0.625)


@pytest.mark.parametrize("split", store.SPLITS)
def test_every_task_is_of_one_set_and_the_sets_come_up_by_their_shares(split):
    classes, _, images = draw(MIXTURE, split, EPISODE, 3, 50, 40)
    sets = sets_of(MIXTURE, split, classes)
    np.testing.assert_array_equal(MIXTURE.dataset_of_tasks(classes, split), sets)
    for i, share in enumerate(MIXTURE.shares):
        bound = 4.5 * math.sqrt(2000 * share * (1 - share))
        assert abs((sets == i).sum() - 2000 * share) < bound
        of_set = classes[sets == i]
        counts = np.bincount(of_set.ravel() - MIXTURE.parts(split)[i].start)
        assert len(counts) == len(MIXTURE.parts(split)[i]) and abs(chi_square_z(counts)) < 4.5
    assert all(len(set(row)) == 3 for row in classes)
    assert (images < np.array(MIXTURE.images_per_class)[classes][..., None]).all()
    assert (images == np.array(MIXTURE.images_per_class)[classes][..., None] - 1).any()
    pairs = ((sets[1:] == 2) & (sets[:-1] == 2)).mean()  # neighbours are independent
    p = 0.625
    assert abs(pairs - p**2) < 4.5 * math.sqrt((p**2 + 2 * p**3 - 3 * p**4) / 1999)


def test_the_set_is_a_function_of_seed_split_step_and_task():
    def sets(seed, split):
        return sets_of(MIXTURE, split, draw(MIXTURE, split, EPISODE, seed, 8, 4)[0]).tolist()

    assert sets(1, "train") == sets(1, "train")
    assert len({tuple(sets(*place)) for place in [(1, "train"), (2, "train"), (1, "val")]}) == 3


def test_rotations_turn_classes_within_the_set():
    config = EpisodeConfig(n_way=12, k_shot=1, n_query=1, rotations=True)
    classes, rotations, _ = draw(MIXTURE, "train", config, 0, 10, 5)
    sets = sets_of(MIXTURE, "train", classes)
    assert (rotations.max(axis=1) > 0).all()
    pairs = np.sort(classes * 4 + rotations, axis=1)
    assert (np.diff(pairs) > 0).all()
    assert (pairs[sets == 2] == np.arange(13 * 4, 16 * 4)).all()  # all that the smallest set has


@pytest.mark.parametrize(
    ("rotations", "digest"),
    [
        (False, "7b05370e7abdeab98169fe9d1dd4b233714895b4a08d4686cb85371ee84465bd"),
        (True, "3a798256a19beb1c1eec3b0090afa353cc9c80a092c3ee764841c812ad38ed96"),
    ],
)
def test_the_tasks_of_a_single_set_are_what_they_were_before_there_were_mixtures(rotations, digest):
    found = hashlib.sha256()
    for split in store.SPLITS:
        for array in draw(make_spec(), split, EpisodeConfig(3, 1, 3, rotations), 7, 20, 4):
            found.update(array.astype("<i4").tobytes())
    assert found.hexdigest() == digest


def test_one_name_is_that_data_set_alone(folder):
    alone = DatasetConfig("colour")
    assert DatasetConfig(("colour",), (3,)).open(folder) == alone.open(folder)
    source = open_source(folder, alone.names, alone.open(folder), "train", IMAGE, "encoded")
    assert type(source) is ImageSource


def test_pixels_are_those_of_each_set_alone(folder):
    source = mixed_source(folder, "test")
    alone = {n: ImageSource(folder / n, part, "test", IMAGE) for n, part in zip(CONFIG.names, source.spec.specs)}
    assert len(source) == sum(map(len, alone.values()))
    seen = set()
    for step, batch in enumerate(batches(source)):
        for task in range(4):
            place = {"seed": 5, "step": step, "task": task}
            indices = episodes.sample(source.spec, "test", EPISODE, **place)
            which = sets_of(source.spec, "test", indices.class_ids.numpy()[None])[0]
            name, part = CONFIG.names[which], source.spec.specs[which]
            shift = part.classes("test").start - source.spec.parts("test")[which].start
            theirs = indices._replace(class_ids=indices.class_ids + shift)
            expected = pipeline.build_episode(alone[name], EPISODE, theirs)
            # Classes are numbered set by set.
            before = sum(len(s.classes("test")) for s in source.spec.specs[:which])
            expected = expected._replace(class_ids=expected.class_ids + before)
            for ours, other in zip(batch, expected, strict=True):
                np.testing.assert_array_equal(ours[task], other)
            seen.add(name)
    assert seen == set(CONFIG.names)


def test_grey_images_get_three_equal_channels(folder):
    source = mixed_source(folder)
    rows = tf.range(len(source) - 5, len(source), dtype=tf.int64)
    pixels = source.gather(rows).numpy()
    assert pixels.shape == (5, 8, 8, 3)
    assert (pixels == pixels[..., :1]).all() and pixels.std() > 0


def test_storages_threads_and_restarts_change_nothing(folder):
    whole = batches(mixed_source(folder))
    for storage in STORAGES:
        source = mixed_source(folder, storage=storage)
        settings = PipelineConfig(storage=storage, threads=3, parallel_tasks=2)
        assert_same(batches(source, pipeline_config=settings), whole)
        assert_same(batches(source, start_step=2), whole[2:])


def test_images_are_not_written_into_the_graph(folder):
    for storage in STORAGES:
        source = mixed_source(folder, storage=storage)
        rows = tf.TensorSpec([6], tf.int64)
        graph = tf.function(source.gather).get_concrete_function(rows).graph
        assert len(graph.captures) == 2 * (storage != "disk")


def test_memory_is_that_of_all_sets(folder):
    source = mixed_source(folder, storage="decoded")
    assert isinstance(source, MixedSource)
    assert source.memory_bytes == len(source) * 8 * 8 * 3


def test_a_task_list_knows_the_set_of_each_task(folder, tmp_path):
    source = mixed_source(folder, "test")
    tasks = TaskList.draw(source.spec, "test", EPISODE, seed=2, n_tasks=9)
    tasks.write(tmp_path / "tasks.json")
    read = TaskList.read(tmp_path / "tasks.json")
    assert (read.dataset, read.fingerprint) == ("colour+grey", source.spec.fingerprint)
    names = [CONFIG.names[i] for i in sets_of(source.spec, "test", tasks.class_ids)]
    assert read.datasets(source.spec) == names and set(names) == set(CONFIG.names)
    sampled = pipeline.evaluation_tasks(source, EPISODE, seed=2, n_tasks=9, batch_size=4)
    assert_same(list(pipeline.listed_tasks(source, read, batch_size=4)), list(sampled))


def test_a_list_with_a_task_of_two_sets_is_refused(folder):
    mixture = CONFIG.open(folder)
    tasks = TaskList.draw(mixture, "test", EPISODE, seed=2, n_tasks=2)
    first, second = (part[0] for part in mixture.parts("test"))
    tasks.class_ids[1] = (first, second, second + 1)
    tasks.image_indices[1] = np.arange(4)
    with pytest.raises(ValueError, match="hold classes of one data set. Received: task 1"):
        tasks.check(mixture, "test")


def test_the_fingerprint_depends_on_every_set_and_on_the_shares():
    a, b, c = MIXTURE.specs
    others = [
        Mixture(("a", "b"), (a, b), (1, 1)),
        Mixture(("a", "b"), (a, b), (1, 2)),
        Mixture(("a", "b"), (a, c), (1, 1)),
        Mixture(("b", "a"), (b, a), (1, 1)),
        Mixture(("a", "b", "c"), (a, b, c), (1, 1, 1)),
    ]
    assert len({m.fingerprint for m in others} | {a.fingerprint, b.fingerprint}) == 7
    assert others[0].fingerprint == Mixture(("a", "b"), (a, b), (0.5, 0.5)).fingerprint
    assert MIXTURE.describe()["b"] == {"fingerprint": b.fingerprint, "share": 0.25}


def test_the_set_that_cannot_fill_a_task_is_named():
    with pytest.raises(ValueError, match="split 'train' of data set 'c' has 3.*n_way = 4"):
        episodes.check(MIXTURE, "train", EpisodeConfig(4, 1, 3))
    few = Mixture(("a", "f"), (MIXTURE.specs[0], spec("f", 3, 3, 3, images=4)), (1, 1))
    with pytest.raises(ValueError, match="split 'val' of data set 'f' class 'c' has 7"):
        episodes.check(few, "val", EpisodeConfig(3, 1, 7))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((), r"the name of a data set.* or a tuple of names. Received: \(\)"),
        (("a", ""), r"the name of a data set.* or a tuple of names. Received: \('a', ''\)"),
        (3, "the name of a data set.* or a tuple of names. Received: 3"),
        (("a", "b", "a"), "hold no name twice. Received: DatasetConfig.name = .*'b'"),
    ],
)
def test_wrong_names_are_refused(value, text):
    with pytest.raises(ValueError, match=rf"DatasetConfig\.name must (be )?{text}"):
        DatasetConfig(value)


@pytest.mark.parametrize(
    "shares", [(1,), (1, 0), (1, -1), (1, math.inf), (1, math.nan), (1, "2"), (1, True), 1.0]
)
def test_wrong_shares_are_refused(shares):
    with pytest.raises(ValueError, match=r"as many positive, finite .*\(2\).*DatasetConfig.shares = "):
        DatasetConfig(("a", "b"), shares)


def test_gin_binds_names_and_shares():
    text = ["DatasetConfig.name = ('glyphs', 'omniglot')", "DatasetConfig.shares = (1, 3)"]
    gin_config.parse([], text)
    found = DatasetConfig()
    assert found.names == ("glyphs", "omniglot") and found.label == "glyphs+omniglot"
    assert found.mix(MIXTURE.specs[:2]).shares == (0.25, 0.75)
    gin_config.parse([], text[:1])
    assert DatasetConfig().mix(MIXTURE.specs[:2]).shares == (0.5, 0.5)
