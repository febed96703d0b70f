"""Every gin file of the project loads, and every experiment builds, on a data set of the right size."""

from __future__ import annotations

import pathlib
import re

import pytest
from tf_lwdgh.aggregators.schedules import ExploreExploit

from tf_lwdgh import config
from tf_lwdgh.aggregators import LWDGH, Mean
from tf_lwdgh.data import store
from tf_lwdgh.outer.evaluation import Evaluation
from tf_lwdgh.runs.experiment import DatasetConfig, Experiment

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted((ROOT / "gin").rglob("*.gin"))
EXPERIMENTS = [f for f in FILES if f.parent == ROOT / "gin" and f.name != "base.gin"]
FRAGMENTS = [f for f in FILES if f.parent != ROOT / "gin"]

SIZES = {  # classes of train, val and test, and images a class
    "mini_imagenet": ((64, 16, 20), 600),
    "tiered_imagenet": ((351, 97, 160), 700),
    "cub": ((100, 50, 50), 41),
    "omniglot": ((1028, 172, 423), 20),
    "tiny_imagenet": ((64, 16, 20), 200),
    "glyphs": ((20, 5, 5), 20),
}
PARAMETERS = {"convnet4": 32_901, "resnet12": 8_000_000}


def _spec(name: str) -> store.DatasetSpec:
    sizes, images = SIZES[name]
    n = sum(sizes)
    names = tuple(f"class {i}" for i in range(n))
    return store.DatasetSpec(name, dict(zip(store.SPLITS, sizes)), (images,) * n, names)


def _relative(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=_relative)
def test_every_experiment_is_built(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # includes must not depend on the working directory
    config.parse([str(path)])
    assembly = Experiment().build(None, spec=_spec(DatasetConfig().name))
    assembly.evaluation_episode(Evaluation())
    assert assembly.episode.n_way == 5
    shots = re.search(r"(\d)shot", path.name)
    assert assembly.episode.k_shot == int(shots[1] if shots else 1)
    backbone = "resnet12" if "resnet12" in path.name else "convnet4"
    assert assembly.keras_model.name == backbone
    if "omniglot" not in path.name and "demo" not in path.name:
        assert assembly.keras_model.count_params() >= PARAMETERS[backbone] * 0.98


@pytest.mark.parametrize("path", EXPERIMENTS, ids=_relative)
def test_the_name_says_what_aggregates(path):
    config.parse([str(path)])
    aggregator = Experiment().aggregator
    if path.stem.endswith("_mean"):
        assert isinstance(aggregator, Mean)
    elif path.stem.endswith("_lwdgh"):
        assert isinstance(aggregator, LWDGH) and aggregator.explore.mode == "off"
    else:
        assert aggregator == LWDGH(explore=ExploreExploit(mode="cosine", transition=0.33))


@pytest.mark.parametrize("path", FRAGMENTS, ids=_relative)
def test_every_fragment_loads_on_top_of_the_base(path):
    config.parse([str(ROOT / "gin" / "base.gin"), str(ROOT / "gin/algorithms/maml.gin"), str(path)])


@pytest.mark.parametrize("path", EXPERIMENTS, ids=_relative)
def test_the_header_tells_the_command_the_hardware_the_time_and_the_accuracy(path):
    header = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert f"--gin_file={_relative(path)}" in header
    for word in ("Hardware", "ime", "ccuracy"):
        assert word in header


def test_each_row_of_the_paper_has_its_file():
    names = {f.stem for f in EXPERIMENTS}
    for data in ("mini", "tiered", "cub"):
        for backbone in ("convnet4", "resnet12"):
            for shots in (1, 5):
                for aggregator in ("mean", "lwdgh", "lwdgh_ee"):
                    assert f"{data}_{backbone}_5way{shots}shot_{aggregator}" in names
    assert {"tiered_resnet12", "glyphs", "omniglot", "tiny_imagenet"} <= names


def test_no_python_file_shadows_the_gin_package():
    assert not list((ROOT / "gin").rglob("*.py"))


def test_a_second_file_swaps_a_part():
    config.parse(
        [str(ROOT / "gin/tiered_resnet12.gin"), str(ROOT / "gin/aggregators/mean.gin")]
    )
    assert isinstance(Experiment().aggregator, Mean)
