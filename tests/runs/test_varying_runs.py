# SPDX-License-Identifier: Apache-2.0
"""Runs on tasks of varying ways and shots: training to the bit after a stop, and one table over several data sets."""

from __future__ import annotations

import csv
import io
import json
import shutil
import types

import numpy as np
import pytest

from tests import tiny
from tf_lwdgh import evaluate
from tf_lwdgh.data import pipeline, store, task_lists
from tf_lwdgh.data.variable_episodes import VariableEpisodes
from tf_lwdgh.learners.context import Context
from tf_lwdgh.outer import evaluation
from tf_lwdgh.outer.evaluation import Evaluation, Evaluator
from tf_lwdgh.runs import dataset_table, judge, resume
from tf_lwdgh.runs.progress import Progress
from tf_lwdgh.runs.summaries import read_metrics
from tf_lwdgh.runs.trainer import Trainer
from tf_lwdgh.types import Episode

VARYING = (
    "DatasetConfig.name = ('patterns', 'small')",
    "Experiment.learner = @ProtoMAML()",
    "Experiment.episodes = @VariableEpisodes()",
    "ProtoMAML.inner_loop = @InnerLoop()",
    "VariableEpisodes.min_ways = 2",
    "VariableEpisodes.max_ways_upper_bound = 5",
    "VariableEpisodes.max_num_query = 3",
    "VariableEpisodes.max_support_set_size = 9",
    "EPOCHS = 1",
    "Experiment.aggregator = @Mean()",
    "Experiment.explore = None",
    "InnerLoop.second_order = False",
    "convnet4.fused = False",  # its graphs are built in less time
    "convnet4.blocks = 1",
)
FEW = "Evaluation.n_tasks = 6"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("varying")
    tiny.write_patterns(path / "data")
    tiny.write_patterns(path / "data", "small", classes=4, images=7, size=8)
    tiny.write_patterns(path / "data", "other", classes=5, images=9, size=8)
    return path


def _train(folder, name, stop=lambda: False):
    trainer = Trainer(tiny.build(folder, *VARYING), str(folder / name))
    progress = Progress(total=4, done=trainer.at.step, tasks_per_step=3, stream=io.StringIO())
    trainer.run(stop=stop, progress=progress)
    return trainer


@pytest.fixture(scope="module")
def run(folder):
    trainer = _train(folder, "whole")
    assert trainer.meta_step.traces == 1
    return folder / "whole"


def _lines(run_dir):
    lines = read_metrics(run_dir)
    return [{k: v for k, v in line.items() if not k.startswith("speed/")} for line in lines]


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_bit(folder, run):
    asked = iter([False, True])
    assert _train(folder, "stopped", lambda: next(asked)).at.step == 2
    _train(folder, "stopped")
    assert _lines(folder / "stopped") == _lines(run)
    assert {"val/accuracy_patterns", "val/accuracy_small"} <= set(_lines(run)[-1])


def test_every_task_of_a_batch_is_judged_as_if_alone_with_its_own_ways(folder):
    assembly = tiny.build(folder, *VARYING)
    source = assembly.source("test")
    listed = task_lists.draw(source.spec, "test", assembly.shape, seed=1, n_tasks=7)
    batches = pipeline.listed_tasks(source, listed, batch_size=3)
    evaluator = Evaluator(assembly.parameters, inner_steps=2)
    found = evaluation.evaluate(evaluator, batches, {})
    assert evaluator.__call__.experimental_get_tracing_count() <= 2
    expected, ways = [], set()
    for batch in batches:
        for row in zip(*batch, strict=True):
            task = Episode(*row)
            context = Context(assembly.parameters.model, n_way=int(task.ways), steps=2)
            meta = assembly.parameters.values()
            adapted = assembly.learner.adapt(context, meta, *task[:2])
            logits, _ = assembly.learner.predict(context, meta, adapted, task.query_images)
            assert logits.shape[1] == int(task.ways)
            expected.append(np.mean(logits.numpy().argmax(-1) == task.query_labels.numpy()))
            ways.add(int(task.ways))
    np.testing.assert_allclose(found.accuracies, expected)
    assert len(ways) > 2


def test_one_command_makes_one_table_of_all_sets(folder, run, capsys):
    args = types.SimpleNamespace(
        run_dir=str(run), datasets=["patterns", "other", "small"], compare=[], read_tasks=None,
        write_tasks=str(folder / "tasks"),
    )  # fmt: skip
    evaluate._each(args, {"data_dir": folder / "data", "gin_params": [FEW], "which": "best"})
    said = capsys.readouterr().out
    (path,) = (run / "evaluation").glob("datasets_*.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["dataset"] for row in rows] == ["patterns", "other", "small"]
    assert {row["trained_on"] for row in rows} == {"patterns+small"}
    for row in rows:
        (kept,) = (run / "evaluation").glob(f"{row['dataset']}_test_variable_*.json")
        content = json.loads(kept.read_text())
        assert float(row["accuracy"]) == np.mean(content["accuracies"]) and row["n_tasks"] == "6"
        assert float(row["interval95"]) == pytest.approx(1.96 * np.std(content["accuracies"], ddof=1) / 6**0.5)
        assert content["n_way"] == "variable" and 2 <= content["mean_ways"] <= 5
        listed = task_lists.read(folder / "tasks" / f"{row['dataset']}.json.gz")
        assert listed.sha256 == row["task_list_sha256"] == content["task_list_sha256"]
        assert content["mean_ways"] == np.mean([len(c) for c in listed.class_ids])
        accuracy = f"{100 * float(row['accuracy']):.2f} ± {100 * float(row['interval95']):.2f}"
        assert f"| {row['dataset']} | 6 test | {accuracy} |" in said


def test_two_runs_are_compared_on_each_set(folder, run):
    shared = {"data_dir": folder / "data", "gin_params": [FEW], "show": False}
    first = judge.judge_each(run, ["other"], **shared)
    tasks = {name: listed for name, (_, listed) in first.items()}
    second = judge.judge_each(run, list(tasks), tasks=tasks, which="last", **shared)
    results = [{name: result for name, (result, _) in found.items()} for found in (first, second)]
    text = dataset_table.text({"a": results[0], "b": results[1]})
    assert text.splitlines()[0].endswith("| a, % accuracy | b, % accuracy | a − b |")
    assert text.count("paired over 6 tasks (the interval holds 0)") == 1  # its best is its last


def test_a_set_that_is_not_there_is_refused_by_name_before_any_task_runs(folder, run, tmp_path, monkeypatch):
    monkeypatch.setattr(judge._Job, "run", lambda *_: pytest.fail("the tasks ran"))
    shared = {"data_dir": tmp_path, "gin_params": [FEW], "show": False}
    shutil.copytree(folder / "data/small", tmp_path / "small")
    with pytest.raises(FileNotFoundError, match="No data set 'cub'.*found there: small"):
        judge.judge_each(run, ["small", "cub"], **shared)
    shutil.copytree(folder / "data/other", tmp_path / "other")
    spec = store.DatasetSpec.load(tmp_path / "other")
    (tmp_path / "other" / f"{spec.classes('test')[1]}.tfrecords").unlink()
    with pytest.raises(FileNotFoundError, match="'other' must have a file.*no .*other/11.tfrecords"):
        judge.judge_each(run, ["small", "other"], **shared)
    with pytest.raises(ValueError, match="--datasets must hold no name twice"):
        judge.judge_each(run, ["small", "small"], **shared)
    shared["gin_params"] = [FEW, "Evaluation.dataset = 'small'"]
    with pytest.raises(ValueError, match="Evaluation.dataset must be None where --datasets"):
        judge.judge_each(run, ["small"], **shared)
    shared["gin_params"] = [FEW, "Evaluation.k_shot = 6"]
    with pytest.raises(ValueError, match="data set 'small'.*k_shot = 6"):
        judge.judge_each(run, ["other", "small"], **{**shared, "data_dir": folder / "data"})


def test_an_evaluation_may_fix_the_shape_or_vary_it_in_another_way(folder):
    assembly = tiny.build(folder, *VARYING)
    assert assembly.evaluation_episode(Evaluation()) == assembly.shape
    fixed = assembly.evaluation_episode(Evaluation(n_way=4, k_shot=2, n_query=1))
    assert (fixed.n_way, fixed.k_shot, fixed.n_query) == (4, 2, 1) and assembly.other_ways(fixed) == 4
    other = VariableEpisodes(2, 3)
    assert assembly.evaluation_episode(Evaluation(episodes=other)) is other
    with pytest.raises(ValueError, match="must be None where Evaluation.episodes.*2, None and None"):
        Evaluation(episodes=other, n_way=2)
    with pytest.raises(ValueError, match="Evaluation.episodes must be @VariableEpisodes"):
        Evaluation(episodes="@VariableEpisodes()")


@pytest.mark.parametrize(
    ("bindings", "text"),
    [
        (["Experiment.learner = @MAML()"], "any number of ways.*MAML.head = 'zero'.*learner = @MAML"),
        (["Experiment.learner = @ANIL()", "ANIL.test_head = 'cosine'"], "trained on tasks of any.*@ANIL"),
        (["Experiment.strategy = 'mirrored'"], "strategy must be 'default'"),
        (["TaskExecution.mode = 'vectorized'"], "mode must be 'map' or 'unrolled'"),
        (["TaskExecution.xla = True"], "xla must be False"),
        (["LabelNoise.share_of_labels = 0.5"], "share_of_labels must be 0"),
        (["Experiment.episodes = 5"], "episodes"),
        (["VariableEpisodes.min_ways = 5"], "at most the number of classes.*'small' has 4"),
    ],
)
def test_what_does_not_go_with_varying_shapes_is_refused_at_the_start(folder, bindings, text):
    with pytest.raises((ValueError, TypeError), match=text):
        tiny.build(folder, *VARYING, *bindings)


def test_a_learner_with_a_learned_head_is_not_evaluated_on_varying_ways(folder):
    with pytest.raises(ValueError, match="need a learner that takes any number of ways.*MAML.head = 'zero'"):
        tiny.build(folder).evaluation_episode(Evaluation(episodes=VariableEpisodes(2, 3)))


def test_a_setting_that_a_later_version_added_and_that_is_off_lets_a_run_go_on():
    old = {"OuterLoop.epochs": "3"}
    assert resume.differences(old, {**old, "Experiment.episodes": "None"}) == []
    on = {**old, "Experiment.episodes": "@VariableEpisodes()"}
    assert resume.differences(old, on) == [("Experiment.episodes", None, "@VariableEpisodes()")]
    assert resume.differences(on, {**old, "Experiment.episodes": "None"})
