# SPDX-License-Identifier: Apache-2.0
"""Every gin file loads; every experiment builds, alone and with every fragment on top of it."""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Callable, Sequence

import keras
import pytest

from tf_lwdgh import aggregators, config, learners
from tf_lwdgh.aggregators import LWDGH
from tf_lwdgh.aggregators.conflict_report import ConflictReport
from tf_lwdgh.aggregators.explore_exploit import ExploreExploit
from tf_lwdgh.data import episodes, store
from tf_lwdgh.data.episodes import EpisodeConfig, TaskShape
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.data.mixtures import Spec
from tf_lwdgh.data.pipeline import PipelineConfig
from tf_lwdgh.data.variable_episodes import VariableEpisodes
from tf_lwdgh.learners import MAML, Learner
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.outer import optimizers
from tf_lwdgh.outer.evaluation import Evaluation
from tf_lwdgh.outer.meta_step import OuterLoop
from tf_lwdgh.runs.config import TrainerConfig
from tf_lwdgh.runs.experiment import DatasetConfig, Experiment

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(str(f.relative_to(ROOT)) for f in (ROOT / "gin").rglob("*.gin"))
EXPERIMENTS = [f for f in FILES if f.count("/") == 1 and f != "gin/base.gin"]
STUDIES = [f for f in FILES if f.startswith("gin/studies/")]
RECIPES = [f for f in FILES if f.startswith("gin/recipes/")]
FRAGMENTS = [f for f in FILES if f.count("/") == 2 and f not in (*STUDIES, *RECIPES)]
ROOMS = {room: [f for f in FRAGMENTS if f.split("/")[1] == room] for room in (
    "aggregators", "backbones", "datasets", "learners", "precision", "protocols", "shots", "sizes",
)}  # fmt: skip
ON_TOP = [f for f in FRAGMENTS if not f.startswith("gin/datasets/")]

SIZES = {  # classes of train, val and test, and images a class
    "mini_imagenet": ((64, 16, 20), 600),
    "tiered_imagenet": ((351, 97, 160), 700),
    "cub": ((100, 50, 50), 41),
    "cifar_fs": ((64, 16, 20), 600),
    "fc100": ((60, 20, 20), 600),
    "omniglot": ((1028, 172, 423), 20),
    "tiny_imagenet": ((64, 16, 20), 200),
    "glyphs": ((20, 5, 5), 20),
    "folder": ((20, 5, 5), 20),
    "ilsvrc_2012": ((712, 158, 130), 732),
    "aircraft": ((70, 15, 15), 100),
    "cu_birds": ((140, 30, 30), 41),
    "dtd": ((33, 7, 7), 120),
    "quickdraw": ((241, 52, 52), 113_613),
    "fungi": ((994, 200, 200), 6),
    "vgg_flower": ((71, 15, 16), 40),
}
PARAMETERS = {"convnet4": 32_901, "resnet12": 8_000_000}  # at 84×84×3, 5-way
SMALL = {
    "convnet4": {"image_size": 4, "filters": 2, "blocks": 1},
    "resnet12": {"image_size": 4, "widths": (2,)},
    "resnet18": {"image_size": 4, "widths": (2, 2)},
    "relation_encoder": {"image_size": 24, "filters": 2},
    "adacnn": {"image_size": 4, "filters": 2, "blocks": 2},
    "metanet_encoder": {"image_size": 4, "filters": 2},
    "gnn_encoder": {"image_size": 20, "n_features": 4},
    "snail_resnet": {"image_size": 16, "widths": (2, 2, 2, 2), "n_features": 4},
}
GIVEN = {"gin/folder.gin": ("DatasetConfig.name = 'folder'",)}  # what a user of the file must say
DATA_SET = "DatasetConfig.name = 'photos'"
COMMAND = "# Command: python -m tf_lwdgh.train --gin_file={} --data_dir=data"


def spec(name: str) -> store.DatasetSpec:
    sizes, images = SIZES[name]
    n = sum(sizes)
    names = tuple(f"class {i}" for i in range(n))
    return store.DatasetSpec(name, dict(zip(store.SPLITS, sizes)), (images,) * n, names)


def described(data_set: DatasetConfig) -> Spec:
    return data_set.mix(tuple(map(spec, data_set.names)))


def name_of(path: str) -> str:
    return pathlib.Path(path).stem


def file_of(data_set: DatasetConfig) -> str:
    """The name of the fragment that sets it."""
    if "aircraft" in data_set.names:
        return "meta_dataset"
    return data_set.name if len(data_set.names) == 1 else "mixed"


@functools.cache
def small_network(backbone: Callable[..., keras.Model]) -> keras.Model:
    """One of few filters, on which a learner is checked in place of the experiment's."""
    return backbone(n_way=5, **SMALL[backbone.__name__])


@functools.cache
def check_learner(backbone: Callable[..., keras.Model], learner: Learner) -> None:
    MetaParameters(small_network(backbone), learner)


@functools.cache
def check_data(data_set: DatasetConfig, episode: TaskShape) -> None:
    for split in store.SPLITS:
        episodes.check(described(data_set), split, episode)


def check_all(*paths: str, params: Sequence[str] = ()) -> Experiment:
    """Reads the files and makes everything that they set but the network, which is a small one."""
    given = [p for path in paths for p in GIVEN.get(path, ())]
    config.parse(paths, [*given, *params])
    experiment, outer, episode = Experiment(), OuterLoop(), EpisodeConfig()
    data_set, _ = DatasetConfig(), (ImageConfig(), ConflictReport(), TrainerConfig(), Evaluation())
    check_data(data_set, experiment.episodes or episode)
    check_learner(experiment.backbone, experiment.learner)
    experiment.aggregator.check(outer.meta_batch_size)
    optimizers.build(experiment.optimizer, experiment.learning_rate, 10)
    return experiment


@pytest.mark.parametrize("path", EXPERIMENTS)
def test_every_experiment_is_the_papers_method_on_its_data_set_and_backbone(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # includes must not depend on the working directory
    config.parse([str(ROOT / path)], GIVEN.get(path, ()))
    assembly = Experiment().build(None, spec=described(DatasetConfig()), splits=store.SPLITS)
    assembly.evaluation_episode(Evaluation())
    assert (assembly.episode.n_way, assembly.episode.k_shot, assembly.episode.n_query) == (5, 1, 15)
    assert assembly.experiment.aggregator == LWDGH()
    assert assembly.experiment.explore == ExploreExploit(mode="cosine", transition=0.33)
    assert type(assembly.learner) is MAML and assembly.learner.batch_norm == "transductive"
    backbone = "resnet12" if "resnet12" in path else "convnet4"
    assert assembly.keras_model.name == backbone
    assert InnerLoop().memory == ("recompute" if backbone == "resnet12" else "store")
    data_set = file_of(assembly.dataset)
    assert name_of(path).split("_")[0] == data_set.split("_")[0]
    if assembly.keras_model.input_shape[1:] == (84, 84, 3):
        assert assembly.keras_model.count_params() >= PARAMETERS[backbone] * 0.98
    else:
        assert name_of(path) in ("omniglot", "glyphs_demo", "cifar_fs_convnet4", "fc100_convnet4")


@pytest.mark.parametrize("path", RECIPES)
def test_a_recipe_is_a_learners_own_on_top_of_its_experiment(path, monkeypatch, tmp_path):
    data_set, _, learner = name_of(path).partition("_")
    below = {"mini": "gin/mini_convnet4.gin", "omniglot": "gin/omniglot.gin"}[data_set]
    monkeypatch.chdir(tmp_path)
    config.parse([str(ROOT / below), str(ROOT / path)])
    assembly = Experiment().build(None, spec=described(DatasetConfig()), splits=store.SPLITS)
    assert (assembly.episode.n_way, assembly.episode.k_shot, assembly.episode.n_query) == (5, 1, 15)
    assert assembly.evaluation_episode(Evaluation()) == assembly.episode
    assert assembly.dataset.name.split("_")[0] == data_set
    assert letters(type(assembly.learner).__name__).startswith(letters(learner))
    assert type(assembly.experiment.aggregator).__name__ == "Mean" and assembly.experiment.explore is None
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    assert lines[1] == COMMAND.format(f"{below} --gin_file={path}")


@pytest.mark.parametrize("path", EXPERIMENTS)
def test_every_fragment_goes_on_top_of_every_experiment(path):
    for fragment in ON_TOP:
        try:
            experiment = check_all(path, fragment)
        except (ValueError, TypeError) as error:
            raise AssertionError(f"{path} with {fragment} on top: {error}") from error
        if fragment not in ROOMS["learners"]:
            assert type(experiment.learner) is MAML
        if fragment not in ROOMS["aggregators"]:
            assert experiment.aggregator == LWDGH()


# Learners with small meta-batches, of one batch where they classify; the trimmed mean needs 1 or 3 tasks and
# Krum 4, and say so.
CLASSIFIERS = ("classifier", "simple_shot", "baseline", "baseline_pp", "logistic_regression")
FEW_TASKS = {"maml_plus_plus": 2, "meta_learner_lstm": 1} | dict.fromkeys(CLASSIFIERS, 1)
NEEDY = {"trimmed_mean": (2,), "krum": (1, 2)}


@pytest.mark.parametrize("learner", ROOMS["learners"])
def test_every_learner_composes_with_every_aggregator_on_five_shots(learner):
    for aggregator in ROOMS["aggregators"]:
        paths = ("gin/mini_convnet4.gin", learner, aggregator, "gin/shots/5shot.gin")
        tasks = FEW_TASKS.get(name_of(learner))
        if tasks in NEEDY.get(name_of(aggregator), ()):
            with pytest.raises(ValueError, match=f"OuterLoop.meta_batch_size = {tasks}"):
                check_all(*paths)
            continue
        experiment = check_all(*paths)
        assert type(experiment.learner).__name__ in learners.ALL
        assert type(experiment.aggregator).__name__ in aggregators.ALL
        assert EpisodeConfig().k_shot == 5


@pytest.mark.parametrize("path", ["gin/mini_resnet12.gin", "gin/omniglot.gin"])
@pytest.mark.parametrize("fragment", ["gin/backbones/resnet12.gin", "gin/learners/meta_sgd.gin"])
def test_what_two_files_make_is_built_with_its_own_network(path, fragment):
    config.parse([path, fragment, "gin/precision/bfloat16.gin"])
    assembly = Experiment().build(None, spec=spec(DatasetConfig().name))
    assert assembly.keras_model.output_shape == (None, 5)
    assert assembly.keras_model.input_shape[1] == ImageConfig().image_size
    assert assembly.meta_step.parameters.learner is assembly.learner


def letters(text: str) -> str:
    """Lower-case letters and digits alone: 'MetaSGD' and 'meta_sgd' are one name."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


# What a fragment makes beside, or in place of, the class of its name.
VARIANTS = {
    "lwdgh_ee": "LWDGH", "lwdgh_relative": "LWDGH", "conflict_free": "ConFIG", "sharp_maml": "MAML",
    "adacnn": "CSN", "adaresnet": "CSN", "taml_entropy": "TAML", "taml_inequality": "TAML",
    "maml_plus_plus": "MAMLPlusPlus",
}  # fmt: skip


@pytest.mark.parametrize("path", [*ROOMS["learners"], *ROOMS["aggregators"]])
def test_a_fragment_sets_what_its_name_says(path):
    room, name = path.split("/")[1], name_of(path)
    experiment = check_all("gin/glyphs.gin", "gin/aggregators/mean.gin", path)
    if name == "explore_exploit":
        assert experiment.explore == ExploreExploit(mode="cosine", transition=0.33)
        assert type(experiment.aggregator).__name__ == "Mean"
        return
    made = experiment.learner if room == "learners" else experiment.aggregator
    assert letters(VARIANTS.get(name, name)) == letters(type(made).__name__)
    assert (experiment.explore is not None) == (name == "lwdgh_ee")
    if name == "lwdgh_relative":
        assert made.scale == "relative"
    if name == "sharp_maml":
        assert InnerLoop().sharpness > 0 and OuterLoop().sharpness > 0
    if name.startswith("taml_"):
        assert made.variant == name.removeprefix("taml_")
    if name == "fomaml":
        assert InnerLoop().second_order is False


@pytest.mark.parametrize("room, base", [("learners", learners), ("aggregators", aggregators)])
def test_every_method_has_a_fragment(room, base):
    covered = {letters(VARIANTS.get(name_of(f), name_of(f))) for f in ROOMS[room]}
    missing = {name for name in base.ALL if letters(name) not in covered}
    assert not missing


@pytest.mark.parametrize("path", ROOMS["learners"])
def test_a_learner_fragment_takes_its_batch_norm_from_the_macro(path):
    config.parse(["gin/glyphs.gin", path], ["BATCH_NORM = 'global'"])
    assert Experiment().learner.batch_norm == "global"


@pytest.mark.parametrize("path", ROOMS["shots"])
def test_a_shot_fragment_sets_the_shots(path):
    config.parse(["gin/glyphs.gin", path])
    assert f"{EpisodeConfig().k_shot}shot" == name_of(path)


def test_meta_datasets_protocol_is_built_with_maml_and_refused_with_a_learned_head():
    paths = ("gin/mini_convnet4.gin", "gin/datasets/meta_dataset.gin")
    config.parse(paths)
    sets = described(DatasetConfig())
    assembly = Experiment().build(None, spec=sets, splits=("train", "val"))
    assert assembly.shape == VariableEpisodes() == assembly.evaluation_episode(Evaluation())
    assert sets.shares == (0.125,) * 8 and Evaluation().n_tasks == 600
    config.parse(paths, ["MAML.head = 'learned'"])
    with pytest.raises(ValueError, match="any number of ways.*MAML.head = 'zero'"):
        Experiment().build(None, spec=sets)


def test_the_cross_domain_protocol_tests_on_600_tasks_of_15_queries():
    check_all("gin/mini_convnet4.gin", "gin/protocols/bscd.gin", params=["Evaluation.k_shot = 50"])
    assert EpisodeConfig() == EpisodeConfig(5, 5, 15)
    assert (Evaluation().n_tasks, Evaluation().k_shot) == (600, 50)


@pytest.mark.parametrize("path", ROOMS["backbones"])
def test_a_backbone_fragment_sets_the_backbone(path):
    for below in ("gin/mini_convnet4.gin", "gin/mini_resnet12.gin"):
        config.parse([below, path])
        assert Experiment().backbone.__name__ == name_of(path)
        assert InnerLoop().memory == ("recompute" if name_of(path) in ("resnet12", "resnet18") else "store")


@pytest.mark.parametrize("path", ROOMS["datasets"])
def test_a_data_set_fragment_names_its_data_set(path):
    check_all("gin/mini_convnet4.gin", path)
    assert file_of(DatasetConfig()) == name_of(path)


def test_every_data_set_and_each_backbone_of_the_paper_has_an_experiment():
    names = {name_of(f) for f in EXPERIMENTS}
    assert {f"{d}_{b}" for d in ("mini", "tiered", "cub") for b in PARAMETERS} <= names
    assert {"glyphs", "glyphs_demo", "omniglot", "tiny_imagenet", "mixed_convnet4"} <= names
    assert {"cifar_fs_convnet4", "fc100_convnet4"} <= names
    assert len(EXPERIMENTS) == 14


def test_the_experiment_for_photos_of_ones_own_asks_for_their_name_and_augments():
    config.parse(["gin/folder.gin"])
    with pytest.raises(ValueError, match="DatasetConfig.name must be the name of a data set"):
        DatasetConfig()
    config.parse(["gin/folder.gin"], GIVEN["gin/folder.gin"])
    assert ImageConfig().augments and PipelineConfig().storage == "decoded"


def included(path: str) -> list[str]:
    return re.findall(r"^include '(.*)'$", (ROOT / path).read_text(encoding="utf-8"), re.M)


def bindings(path: str) -> list[str]:
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "include", "import"))]


def test_no_file_stands_for_what_two_files_make():
    """An experiment that is more than includes sets something that no fragment does."""
    for path in EXPERIMENTS:
        rooms = [i.split("/")[1] for i in included(path)]
        assert len(rooms) == len(set(rooms)), f"{path} includes two files of one room"
        assert not {"shots", "precision"} & set(rooms), path
    made = [tuple(sorted(included(p))) for p in EXPERIMENTS if not bindings(p)]
    assert len(made) == len(set(made))


def test_includes_are_few_and_at_most_two_deep():
    for path in EXPERIMENTS:
        assert 1 <= len(included(path)) <= 5
        for inner in included(path):
            for innermost in included(inner):
                for last in included(innermost):
                    assert not included(last), f"{path} > {inner} > {innermost} > {last}"


@pytest.mark.parametrize("path", FRAGMENTS)
def test_a_fragment_is_short_and_says_what_it_is(path):
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert 1 <= len(bindings(path)) + len(included(path)) <= 14
    assert len(lines) <= 18


@pytest.mark.parametrize("path", EXPERIMENTS)
def test_the_header_names_the_command(path):
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# MAML + LWDGH + EE, ") and "5-way 1-shot" in lines[0]
    given = "".join(f' --gin_param="{DATA_SET}"' for _ in GIVEN.get(path, ()))
    assert lines[1] == COMMAND.format(path) + given
    assert lines[2].startswith(("# The paper gives ", "# What was measured here "))
    for document in re.findall(r"docs/\w+\.md", lines[2]):
        assert (ROOT / document).exists()


@pytest.mark.parametrize("path", FILES)
def test_no_comment_holds_a_measured_figure(path):
    """What the paper published may stand there; what was measured stands in docs/results.md."""
    text = (ROOT / path).read_text(encoding="utf-8")
    allowed = r"The paper gives \d\d\.\d\d ± \d\.\d\d % \(its Table \d\)\.|at 33 % of the epochs"
    for line in text.splitlines():
        comment = re.sub(allowed, "", line.partition("#")[2])
        assert not re.search(r"±|\d %|\d s\b|\d minutes|\d hours", comment), line


def test_no_python_file_shadows_the_gin_package():
    assert not list((ROOT / "gin").rglob("*.py"))
