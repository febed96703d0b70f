# SPDX-License-Identifier: Apache-2.0
"""The names of classes by the numbers that they have in an Episode."""

from __future__ import annotations

import numpy as np
import pytest

from tf_lwdgh.data import pipeline, store, task_lists
from tf_lwdgh.data.class_names import class_names
from tf_lwdgh.data.episodes import EpisodeConfig
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.data.mixed_source import open_source
from tf_lwdgh.data.mixtures import Mixture
from tf_lwdgh.data.variable_episodes import VariableEpisodes


def shade(split: str, i: int) -> int:
    """The grey of all images of a class, which tells it."""
    return 20 * store.SPLITS.index(split) + 4 * i


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Two data sets whose classes are told by their greys; the second's are brighter by 100."""
    path = tmp_path_factory.mktemp("names")
    for name, more in (("a", 0), ("b", 100)):
        listed = {
            s: [(f"{s}{i}", [np.full((8, 8, 3), shade(s, i) + more, np.uint8)] * 6) for i in range(4)]
            for s in store.SPLITS
        }
        store.write_dataset(path / name, name, listed, image_size=8)
    return path


def assert_names_fit(data_dir, names, spec, shape):
    """The name of each class of some tasks is that of the class whose grey its images have."""
    greys = {
        f"{prefix}test{i}": shade("test", i) + more
        for prefix, more in ((("a/", 0), ("b/", 100)) if len(names) > 1 else (("", 0),)) for i in range(4)
    }  # fmt: skip
    image = ImageConfig(image_size=8)
    source = open_source(data_dir, names, spec, "test", image, "decoded")
    called = class_names(spec, "test", shape)
    listed = task_lists.draw(spec, "test", shape, seed=0, n_tasks=12)
    for task in pipeline.listed_tasks(source, listed, batch_size=1):
        first = [np.flatnonzero(task.support_labels.numpy()[0] == i)[0] for i in range(len(task.class_ids[0]))]
        for label, number in enumerate(task.class_ids.numpy()[0]):
            name = called[number].split(",")[0]
            grey = 255 * task.support_images.numpy()[0][first[label]][0, 0, 0]
            assert greys[name] == round(float(grey))


@pytest.mark.parametrize("rotations", [False, True])
@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_a_classs_name_is_that_of_its_images(data_dir, names, rotations):
    specs = tuple(store.DatasetSpec.load(data_dir / name) for name in names)
    spec = specs[0] if len(specs) == 1 else Mixture(names, specs, (1.0, 1.0))
    assert_names_fit(data_dir, names, spec, EpisodeConfig(3, 1, 2, rotations))


def test_so_it_is_where_ways_vary(data_dir):
    specs = tuple(store.DatasetSpec.load(data_dir / name) for name in ("a", "b"))
    shape = VariableEpisodes(2, 4, max_num_query=2, max_support_set_size=6)
    assert_names_fit(data_dir, ("a", "b"), Mixture(("a", "b"), specs, (1.0, 1.0)), shape)


def test_turned_classes_have_their_angle_and_shared_names_their_number():
    counts = {"train": 1, "val": 1, "test": 3}
    spec = store.DatasetSpec("s", counts, (5,) * 5, ("t", "v", "x", "y", "x"))
    assert class_names(spec, "test", EpisodeConfig()) == ["x (class 0)", "y", "x (class 2)"]
    turned = class_names(spec, "test", EpisodeConfig(rotations=True))
    assert turned[1] == "y" and turned[4] == "y, 90°" and len(set(turned)) == 12
