# SPDX-License-Identifier: Apache-2.0
"""Episodes: what they hold, how they are drawn, what is refused."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import types

import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh import config as gin_config
from tf_lwdgh.data import episodes
from tf_lwdgh.data.episodes import EpisodeConfig
from tf_lwdgh.data.task_lists import TaskList


def make_spec(train=(30,) * 8, val=(9, 8, 7), test=(8, 12, 30, 9, 11)):
    """Only what episodes look at."""
    starts = {"train": 0, "val": len(train), "test": len(train) + len(val)}
    sizes = {"train": train, "val": val, "test": test}
    return types.SimpleNamespace(
        name="tiny",
        fingerprint="f" * 64,
        images_per_class=train + val + test,
        class_names=tuple(f"{split}-{i}" for split, counts in sizes.items() for i in range(len(counts))),
        classes=lambda split: range(starts[split], starts[split] + len(sizes[split])),
    )


def draw(spec, split, config, seed, steps, tasks):
    """Episodes of all (step, task), as NumPy arrays with a leading axis steps * tasks."""

    @tf.autograph.experimental.do_not_convert
    def one(step, task):
        return episodes.sample(spec, split, config, seed=seed, step=step, task=task)

    grid = np.stack(np.meshgrid(np.arange(steps), np.arange(tasks), indexing="ij"), -1)
    grid = grid.reshape(-1, 2).astype(np.int64)
    dataset = tf.data.Dataset.from_tensor_slices((grid[:, 0], grid[:, 1])).map(one)
    return [t.numpy() for t in dataset.batch(len(grid)).get_single_element()]


def chi_square_z(counts: np.ndarray, variance_factor: float = 1.0) -> float:
    """Standardised chi-square of counts that should be equal; about N(0, 1) if they are."""
    expected = counts.sum() / counts.size
    statistic = ((counts - expected) ** 2 / expected).sum() / variance_factor
    freedom = counts.size - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


def test_classes_are_of_the_split_and_different_and_images_are_within_each_class():
    spec, config = make_spec(), EpisodeConfig(n_way=4, k_shot=2, n_query=5)
    classes, rotations, images = draw(spec, "test", config, 3, 20, 20)
    assert classes.shape == rotations.shape == (400, 4) and images.shape == (400, 4, 7)
    assert set(np.unique(classes)) == set(spec.classes("test"))
    assert all(len(set(row)) == 4 for row in classes)
    assert not rotations.any()
    assert all(len(set(row)) == 7 for row in images.reshape(-1, 7))  # support and query disjoint
    sizes = np.array(spec.images_per_class)[classes]
    assert (images >= 0).all() and (images < sizes[..., None]).all()


def test_a_class_of_exactly_the_needed_size_is_used_whole():
    spec = make_spec(train=(6, 6, 6))
    _, _, images = draw(spec, "train", EpisodeConfig(3, 1, 5), 0, 3, 3)
    assert (np.sort(images, axis=-1) == np.arange(6)).all()


def test_classes_come_up_equally_often_at_every_position():
    spec, config = make_spec(), EpisodeConfig(5, 1, 2)
    classes, _, _ = draw(spec, "train", config, 11, 100, 40)
    for position in range(5):
        counts = np.bincount(classes[:, position], minlength=8)
        assert abs(chi_square_z(counts)) < 4.5
    pairs = np.zeros((8, 8))
    np.add.at(pairs, (classes[:, 0], classes[:, 1]), 1)
    assert abs(chi_square_z(pairs[~np.eye(8, dtype=bool)])) < 4.5


def test_images_come_up_equally_often_in_classes_of_unequal_size():
    spec, config = make_spec(), EpisodeConfig(5, 1, 2)
    classes, _, images = draw(spec, "test", config, 5, 100, 40)
    for class_id in spec.classes("test"):
        size = spec.images_per_class[class_id]
        drawn = images[classes == class_id]
        for position in range(3):
            assert abs(chi_square_z(np.bincount(drawn[:, position], minlength=size))) < 4.5


def test_consecutive_steps_and_tasks_are_uncorrelated():
    spec, config = make_spec(), EpisodeConfig(5, 1, 2)
    classes, _, _ = draw(spec, "train", config, 2, 100, 40)
    first = classes[:, 0].reshape(100, 40).astype(float)
    first = (first - first.mean()) / first.std()
    for a, b in ((first[1:], first[:-1]), (first[:, 1:], first[:, :-1])):
        assert abs((a * b).mean()) * math.sqrt(a.size) < 4.5


def test_rotations_make_each_class_four_and_no_pair_twice():
    spec = make_spec(val=(9, 8))
    config = EpisodeConfig(n_way=8, k_shot=1, n_query=1, rotations=True)
    classes, rotations, _ = draw(spec, "val", config, 0, 5, 5)
    pairs = np.sort((classes - 8) * 4 + rotations, axis=-1)
    assert (pairs == np.arange(8)).all()
    config = dataclasses.replace(config, n_way=3)
    classes, rotations, _ = draw(spec, "train", config, 0, 60, 60)
    counts = np.bincount(classes[:, 0] * 4 + rotations[:, 0], minlength=32)
    assert abs(chi_square_z(counts)) < 4.5


def test_a_task_is_a_function_of_seed_split_step_and_task_alone():
    spec, config = make_spec(), EpisodeConfig(3, 1, 3)

    def flat(seed, split, step, task):
        indices = episodes.sample(spec, split, config, seed=seed, step=step, task=task)
        return tuple(np.concatenate([t.numpy().ravel() for t in indices]))

    assert flat(1, "train", 5, 2) == flat(1, "train", 5, 2)
    places = [(s, "train", t, k) for s in range(4) for t in range(6) for k in range(6)]
    assert len({flat(*place) for place in places}) == len(places)  # seed + step would collide
    relative = np.array(flat(1, "val", 5, 2)[:3]) - 8
    assert tuple(relative) != flat(1, "train", 5, 2)[:3]


def test_the_graph_draws_what_eager_mode_draws_and_large_steps_work():
    spec, config = make_spec(), EpisodeConfig(3, 1, 3)

    @tf.function(autograph=False)
    def graph(step, task):
        return episodes.sample(spec, "train", config, seed=-9, step=step, task=task)

    step, task = tf.constant(2**40, tf.int64), tf.constant(3, tf.int64)
    eager = episodes.sample(spec, "train", config, seed=-9, step=2**40, task=3)
    for a, b in zip(graph(step, task), eager, strict=True):
        np.testing.assert_array_equal(a, b)
    assert eager.class_ids.dtype == eager.rotations.dtype == eager.image_indices.dtype == tf.int32


def test_one_task_is_pinned():
    spec, config = make_spec(), EpisodeConfig(3, 1, 3, rotations=True)
    indices = episodes.sample(spec, "train", config, seed=1, step=5, task=2)
    assert indices.class_ids.numpy().tolist() == [6, 7, 4]
    assert indices.rotations.numpy().tolist() == [2, 2, 0]
    assert indices.image_indices.numpy().tolist() == [
        [13, 5, 25, 19],
        [21, 28, 7, 8],
        [7, 27, 21, 16],
    ]


def test_key_words_are_the_sha256_of_seed_and_split():
    # sha256(b"tf_lwdgh episodes/1/train"), first 16 bytes, as two little-endian words
    assert episodes.split_key(1, "train").numpy().tolist() == [
        2316154048645454883,
        8927903991571364687,
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_way", 1), ("n_way", 5.0), ("k_shot", 0), ("n_query", 0), ("n_query", True)],
)
def test_settings_out_of_range_name_the_binding_and_the_value(name, value):
    with pytest.raises(ValueError, match=rf"EpisodeConfig\.{name} must.*Received:.*{value}"):
        EpisodeConfig(**{name: value})


def test_a_wrong_rotations_flag_is_refused():
    with pytest.raises(ValueError, match=r"EpisodeConfig\.rotations must be True or False"):
        EpisodeConfig(rotations=4)


def test_a_way_larger_than_the_split_is_refused():
    with pytest.raises(
        ValueError, match=r"'val'.*'tiny' has 3\. Received: EpisodeConfig.n_way = 4"
    ):
        episodes.check(make_spec(), "val", EpisodeConfig(4, 1, 1))
    with pytest.raises(ValueError, match=r"has 12 \(3 x 4 rotations\)\. Received.*= 13"):
        episodes.check(make_spec(), "val", EpisodeConfig(13, 1, 1, rotations=True))
    episodes.check(make_spec(), "val", EpisodeConfig(12, 1, 1, rotations=True))


def test_a_class_with_too_few_images_is_refused():
    text = r"class 'val-2' has 7\. Received: EpisodeConfig.k_shot = 3, EpisodeConfig.n_query = 5.* 8\."
    with pytest.raises(ValueError, match=text):
        episodes.check(make_spec(), "val", EpisodeConfig(2, 3, 5))
    spec = make_spec(train=(3,) * 9)
    with pytest.raises(ValueError, match=r"class 'train-2' has 3 and 6 more classes are short"):
        episodes.sample(spec, "train", EpisodeConfig(2, 3, 5), seed=0, step=0, task=0)


def test_gin_binds_the_settings():
    gin_config.parse([], ["EpisodeConfig.n_way = 20", "EpisodeConfig.rotations = True"])
    assert EpisodeConfig(k_shot=5) == EpisodeConfig(20, 5, 15, True)


# Task lists.


@pytest.fixture
def task_list():
    config = EpisodeConfig(3, 2, 4, rotations=True)
    return TaskList.draw(make_spec(), "test", config, seed=7, n_tasks=6)


@pytest.mark.parametrize("name", ["tasks.json", "tasks.json.gz"])
def test_a_task_list_survives_its_file(task_list, tmp_path, name):
    path = tmp_path / "new" / name
    task_list.write(path)
    read = TaskList.read(path)
    assert read.sha256 == task_list.sha256 and len(read.sha256) == 64
    assert (read.dataset, read.split, read.seed) == ("tiny", "test", 7)
    assert read.config == task_list.config and len(read) == 6
    for field in ("class_ids", "rotations", "image_indices"):
        np.testing.assert_array_equal(getattr(read, field), getattr(task_list, field))
    read.check(make_spec(), "test", task_list.config)
    assert [p.name for p in path.parent.iterdir()] == [name]  # nothing temporary is left


def test_the_same_list_gives_the_same_bytes(task_list, tmp_path):
    again = TaskList.draw(make_spec(), "test", task_list.config, seed=7, n_tasks=6)
    for i, tasks in enumerate((task_list, again)):
        tasks.write(tmp_path / f"{i}.json.gz")
    assert (tmp_path / "0.json.gz").read_bytes() == (tmp_path / "1.json.gz").read_bytes()
    other = TaskList.draw(make_spec(), "test", task_list.config, seed=8, n_tasks=6)
    assert other.sha256 != task_list.sha256


def test_a_list_holds_the_tasks_of_step_0(task_list):
    indices = episodes.sample(make_spec(), "test", task_list.config, seed=7, step=0, task=4)
    np.testing.assert_array_equal(indices.class_ids, task_list.class_ids[4])
    np.testing.assert_array_equal(indices.rotations, task_list.rotations[4])
    np.testing.assert_array_equal(indices.image_indices, task_list.image_indices[4])


def test_a_changed_or_cut_file_is_refused(task_list, tmp_path):
    path = tmp_path / "tasks.json"
    task_list.write(path)
    content = json.loads(path.read_text())
    content["image_indices"][0][0].reverse()
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{task_list.sha256}.*its content has"):
        TaskList.read(path)
    packed = tmp_path / "tasks.json.gz"
    task_list.write(packed)
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(ValueError, match="not a whole task list"):
        TaskList.read(packed)
    with pytest.raises(FileNotFoundError, match="no such task list"):
        TaskList.read(tmp_path / "missing.json")


def test_another_format_is_refused(tmp_path):
    path = tmp_path / "tasks.json"
    path.write_text('{"format": "tasks 99"}')
    with pytest.raises(ValueError, match=r"format 'tf_lwdgh tasks 1'\. Received: 'tasks 99'"):
        TaskList.read(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="must hold a JSON object"):
        TaskList.read(path)


def test_every_mismatch_shows_both_values(task_list):
    spec, config = make_spec(), task_list.config
    other = make_spec()
    other.fingerprint = "0" * 64
    with pytest.raises(ValueError, match=f"fingerprint.*'{'f' * 64}'.*Received: '{'0' * 64}'"):
        task_list.check(other, "test")
    other.name = "huge"
    with pytest.raises(ValueError, match="same data set: the list has 'tiny'. Received: 'huge'"):
        task_list.check(other, "test")
    with pytest.raises(ValueError, match="split: the list has 'test'. Received: 'val'"):
        task_list.check(spec, "val")
    with pytest.raises(ValueError, match=r"EpisodeConfig.k_shot: the list has 2. Received: 1"):
        task_list.check(spec, "test", dataclasses.replace(config, k_shot=1))


@pytest.mark.parametrize(
    ("field", "place", "value", "rule"),
    [
        ("class_ids", (2, 0), 0, "classes of split 'test'"),
        ("rotations", (2, 0), 4, "fewer than 4 rotations"),
        ("image_indices", (2, 0, 0), 30, "image numbers below"),
        ("image_indices", (2, 0, 0), None, "no image of a class twice"),
        ("class_ids", (2, slice(None)), None, "no class twice"),
    ],
)
def test_a_hand_made_list_is_checked(task_list, field, place, value, rule):
    array = getattr(task_list, field).copy()
    array[place] = array[2].flat[1] if value is None else value
    arrays = {"rotations": np.zeros_like(task_list.rotations)} if rule == "no class twice" else {}
    changed = dataclasses.replace(task_list, **{**arrays, field: array})
    with pytest.raises(ValueError, match=f"{rule}.*Received: task 2 does not"):
        changed.check(make_spec(), "test")


def test_a_misshapen_list_is_refused(task_list):
    with pytest.raises(ValueError, match=r"rotations must have shape \(6, 3\). Received: \(6, 2\)"):
        dataclasses.replace(task_list, rotations=task_list.rotations[:, :2])


def test_a_whole_compressed_file_is_plain_json(task_list, tmp_path):
    task_list.write(tmp_path / "tasks.json.gz")
    content = json.loads(gzip.decompress((tmp_path / "tasks.json.gz").read_bytes()))
    assert content["sha256"] == task_list.sha256 and content["settings"]["n_way"] == 3
