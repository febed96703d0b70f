# SPDX-License-Identifier: Apache-2.0
"""What an evaluation leaves: tables against an oracle that asks the learner task by task; comparisons of runs."""

from __future__ import annotations

import collections
import csv
import io
import json
import statistics
import types

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator as event_accumulator
from tensorboard.util import tensor_util

from tests import tiny
from tests.runs.test_varying_runs import VARYING
from tf_lwdgh import config, evaluate
from tf_lwdgh.data import pipeline
from tf_lwdgh.learners.context import Context
from tf_lwdgh.outer.answers import N_BINS, Answers
from tf_lwdgh.runs import answers_picture, class_tables, judge
from tf_lwdgh.runs.checkpoints import CheckpointFolder, meta_variables
from tf_lwdgh.runs.experiment import from_run
from tf_lwdgh.types import Episode

PROTOTYPES = ("Experiment.learner = @PrototypicalNetwork()", "PrototypicalNetwork.batch_norm = 'transductive'")
PLAIN = (*PROTOTYPES, "convnet4.fused = False", "convnet4.blocks = 1")
FEW = ["Evaluation.n_tasks = 8", "Evaluation.batch_size = 3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluation_files")
    tiny.write_patterns(path / "data")
    tiny.write_patterns(path / "data", "small", classes=4, images=7, size=8)
    make_run(path, "plain", *PLAIN)
    return path


def make_run(folder, name, *params):
    """A run whose best checkpoint, of step 4, is as it was initialised."""
    assembly = tiny.build(folder, *params)
    manifest = {
        "dataset": assembly.dataset.label, "fingerprint": assembly.spec.fingerprint, "learner": "MAML"
    }  # fmt: skip
    run = folder / name
    CheckpointFolder(run / "best").save(4, meta_variables(assembly.parameters), manifest)
    (run / "config.gin").write_text(config.full_text(), encoding="utf-8")
    return run


def judged(folder, name, *params, **more):
    return judge.judge(
        folder / name, data_dir=folder / "data", gin_params=[*FEW, *params], show=False, **more
    )


def queries(folder, name, tasks, *, per_call=None):
    """Of each task a list of (class, taken for, confidence), classes by the task list's ids of the data set."""
    assembly = from_run(folder / name, FEW, data_dir=folder / "data")
    judge.load_checkpoint(assembly, folder / name, "best")
    meta, model = assembly.parameters.values(), assembly.parameters.model
    for ids, task in zip(
        tasks.class_ids, pipeline.listed_tasks(assembly.source("test"), tasks, batch_size=1)
    ):
        one = Episode(*(t[0] for t in task))
        context = Context(model, n_way=len(ids), steps=2)
        adapted = assembly.learner.adapt(context, meta, *one[:2])
        calls = [one.query_images[i : i + (per_call or 1000)] for i in range(0, len(one.query_labels), per_call or 1000)]
        logits = [assembly.learner.predict(context, meta, adapted, call)[0].numpy() for call in calls]
        exact = np.exp(np.concatenate(logits).astype(np.float64))
        shares = exact / exact.sum(-1, keepdims=True)
        labels, predictions = one.query_labels.numpy(), shares.argmax(-1)
        yield list(zip(ids[labels].tolist(), ids[predictions].tolist(), shares.max(-1).tolist()))


def names_of(spec) -> dict[int, str]:
    """The test classes' names by the data set's or mixture's id."""
    if hasattr(spec, "specs"):
        test = [f"{n}/{s.class_names[c]}" for n, s in zip(spec.names, spec.specs) for c in s.classes("test")]
        return dict(zip(spec.classes("test"), test))
    return {c: spec.class_names[c] for c in spec.classes("test")}


def read_csv(run, ending):
    (path,) = (run / "evaluation").glob(f"*{ending}.csv")
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


CASES = {
    "one shape": ("plain", PLAIN, (), None),
    "one query a call": ("calls", PLAIN, ("Evaluation.queries_per_call = 1",), 1),
    "a mixture of varying ways": ("varying", (*VARYING, *PROTOTYPES), (), None),
}


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.slow] * (c in ("one query a call", "a mixture of varying ways"))) for c in CASES]
)
def test_tables_and_calibration_are_those_of_an_oracle(folder, case):
    name, settings, params, per_call = CASES[case]
    run = folder / name if (folder / name).exists() else make_run(folder, name, *settings)
    result, tasks = judged(folder, name, *params)
    names = names_of(from_run(run, data_dir=folder / "data").spec)
    shares, asked = collections.defaultdict(list), collections.Counter()
    count, chances, sure = collections.Counter(), collections.Counter(), []
    for ids, answers in zip(tasks.class_ids, queries(folder, name, tasks, per_call=per_call), strict=True):
        for c in ids.tolist():
            right = [c == other for own, other, _ in answers if own == c]
            shares[names[c]].append(statistics.mean(map(float, right)))
            asked[names[c]] += len(right)
        for c, other, confidence in answers:
            count[names[c], names[other]] += 1
            chances.update((names[c], names[o]) for o in ids.tolist())
            sure.append((c == other, confidence))
    rows = {row["class"]: row for row in read_csv(run, "_classes")}
    assert list(rows) == list(names.values())
    for c, row in rows.items():
        assert (int(row["tasks"]), int(row["queries"])) == (len(shares[c]), asked[c])
        if not shares[c]:
            assert not row["accuracy"] and not row["interval95"]
            continue
        assert float(row["accuracy"]) == pytest.approx(statistics.mean(shares[c]))
        half = 1.96 * np.std(shares[c], ddof=1) / len(shares[c]) ** 0.5 if len(shares[c]) > 1 else np.inf
        assert float(row["interval95"] or np.inf) == pytest.approx(half, abs=1e-7)
        wrong = {other: n for (own, other), n in count.items() if own == c != other}
        assert int(row["count"] or 0) == max(wrong.values(), default=0)
        if wrong:
            other = row["most_often_taken_for"]
            assert wrong[other] == max(wrong.values())
            assert float(row["share_of_chances"]) == pytest.approx(wrong[other] / chances[c, other])
    pairs = {(r["class"], r["taken_for"]): r for r in read_csv(run, "_confusion")}
    assert {pair: int(r["count"]) for pair, r in pairs.items()} == count
    for pair, row in pairs.items():
        assert float(row["share_of_chances"]) == pytest.approx(count[pair] / chances[pair])
    bins = collections.defaultdict(list)
    for right, confidence in sure:
        bins[min(int(np.ceil(confidence * N_BINS)), N_BINS)].append((right, confidence))
    ece = sum(abs(sum(r for r, _ in b) - sum(c for _, c in b)) for b in bins.values()) / len(sure)
    (kept,) = (run / "evaluation").glob("*.json")
    content = json.loads(kept.read_text())
    assert content["ece"] == pytest.approx(ece, abs=1e-5) and result.answers.n_queries == len(sure)
    assert 0 < content["seconds_per_task"] == result.seconds_per_task < 10


def test_batches_for_which_a_graph_was_traced_do_not_count_as_time(folder):
    result, _ = judged(folder, "plain", "Evaluation.batch_size = 20")
    assert result.seconds_per_task is None
    assert "to adapt and predict: not measured" in class_tables.text(result)


def events(folder):
    return event_accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def scalar(accumulator, tag) -> float:
    return float(tensor_util.make_ndarray(accumulator.Tensors(tag)[-1].tensor_proto))


def test_tensorboard_has_figures_picture_and_the_test_accuracy_of_the_run(folder):
    run = make_run(folder, "shown", *PLAIN)
    result, _ = judged(folder, "shown")
    found = events(run / "evaluation")
    name = "evaluation/test_3way1shot_transductive_best"
    assert scalar(found, "0_summary/test/accuracy") == pytest.approx(result.mean)
    assert scalar(found, f"{name}/ece") == pytest.approx(result.answers.ece)
    assert found.Tensors("0_summary/test/accuracy")[0].step == 4
    width, height, png = tensor_util.make_ndarray(found.Tensors(name)[0].tensor_proto)
    assert Image.open(io.BytesIO(png)).size == (int(width), int(height))
    assert scalar(events(run / "result"), "result/test_accuracy") == pytest.approx(result.mean)
    assert not list(run.glob("events.*"))  # training may be writing there


def test_a_test_that_is_not_the_runs_own_is_no_test_accuracy_of_the_run(folder):
    run = make_run(folder, "elsewhere", *PLAIN)
    judged(folder, "elsewhere", "Evaluation.split = 'val'")
    judged(folder, "elsewhere", "Evaluation.dataset = 'small'")
    tags = events(run / "evaluation").Tags()["tensors"]
    assert not any("0_summary" in tag for tag in tags) and not (run / "result").exists()
    assert any(tag.startswith("evaluation/small_test_") for tag in tags)


def test_a_result_is_printed_with_its_worst_classes_and_pairs():
    answers = Answers(["a", "b", "c"])
    for _ in range(2):
        answers.add(np.array([0, 2]), np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), np.full(4, 0.9))
        answers.add(np.array([1, 2]), np.array([0, 0, 1, 1]), np.array([1, 1, 1, 0]), np.full(4, 0.9))
    result = types.SimpleNamespace(answers=answers, seconds_per_task=0.01234)
    assert class_tables.text(result).splitlines() == [
        "  calibration: ECE 40.0 % (15 bins, 16 queries): 90.0 % confident on average, 50.0 % right",
        "  seconds a task, to adapt and predict: 0.0123",
        "  worst classes: b 0.0 ± 0.0 %, a 50.0 ± 0.0 %, c 75.0 ± 28.3 %",
        "  most confused: b for c 4 times (100 % of 4), a for c 2 times (50 % of 4), c for b 2 times (50 % of 4)",
    ]


def test_the_picture_shows_the_most_confused_classes_with_any_name():
    names = ["$x^", "α" * 90, "線", *(f"class {i}" for i in range(30))]
    answers, generator = Answers(names), np.random.default_rng(0)
    for _ in range(60):
        ids = generator.permutation(len(names))[:4]
        answers.add(ids, np.repeat(np.arange(4), 3), generator.integers(0, 4, 12), generator.random(12))
    classes = answers_picture.chosen(answers)
    assert 2 <= len(classes) <= 12 and set(answers.pairs.wrong.classes[:1]) <= set(classes)
    shares = answers_picture.shares(answers, classes)
    for a, b, n, m in zip(*(x.tolist() for x in answers.pairs), strict=True):
        if a in classes and b in classes:
            assert shares[classes.index(a), classes.index(b)] == n / m
    png, size = answers_picture.draw(answers, "a title with $ in it")
    assert Image.open(io.BytesIO(png)).size == size


def arguments(run, *others, datasets=()):
    return types.SimpleNamespace(
        run_dir=str(run), compare=[str(o) for o in others], datasets=list(datasets), read_tasks=None,
        write_tasks=None,
    )  # fmt: skip


def test_several_runs_make_one_table_of_paired_differences_from_the_first(folder, capsys):
    runs = [folder / "plain", *(make_run(folder, f"seed{s}", *PLAIN, f"SEED = {s}") for s in (1, 2))]
    shared = {"data_dir": folder / "data", "gin_params": FEW, "which": "best"}
    evaluate._one(arguments(*runs), shared)
    said = capsys.readouterr().out
    (written,) = (runs[0] / "evaluation").glob("compared_*.csv")
    rows = list(csv.DictReader(written.read_text().splitlines()))
    assert [row["run"] for row in rows] == [str(run) for run in runs] and not rows[0]["difference"]
    kept = [json.loads(next((r / "evaluation").glob("test_*_transductive_best_*.json")).read_text()) for r in runs]
    assert {k["task_list_sha256"] for k in kept} == {rows[0]["task_list_sha256"]}
    for row, of in zip(rows[1:], kept[1:], strict=True):
        apart = np.subtract(kept[0]["accuracies"], of["accuracies"])
        assert float(row["difference"]) == pytest.approx(apart.mean())
        half = 1.96 * apart.std(ddof=1) / len(apart) ** 0.5
        assert float(row["difference_interval95"]) == pytest.approx(half)
        assert f"| {row['run']} | {100 * of['accuracy']:.2f} ± {100 * of['interval95']:.2f} | {100 * apart.mean():+.2f} ± " in said
    assert said.count("paired over 8 tasks") == 2


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (("N_WAY = 4",), "the same n_way.*plain has 3, .*other has 4"),
        (("K_SHOT = 2",), "the same k_shot.* 1, .* 2"),
        (("IMAGE_SIZE = 8",), r"the same image shape.*\(12, 12, 3\), .*\(8, 8, 3\)"),
        (("DatasetConfig.name = 'small'",), "the same data set"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_before_any_task_runs(folder, tmp_path, params, message):
    (tmp_path / "data").symlink_to(folder / "data")
    other = make_run(tmp_path, "other", *PLAIN, *params)
    with pytest.raises(ValueError, match=f"--compare: all runs must have {message}"):
        judge.check_comparable(
            [str(folder / "plain"), str(other)], data_dir=folder / "data", gin_params=FEW
        )


def test_a_compared_run_without_a_checkpoint_or_twice_is_refused_at_once(folder, tmp_path):
    plain, empty = str(folder / "plain"), tmp_path / "empty"
    empty.mkdir()
    (empty / "config.gin").write_bytes((folder / "plain/config.gin").read_bytes())
    with pytest.raises(FileNotFoundError, match="there is no best checkpoint"):
        judge.check_comparable([plain, str(empty)], data_dir=folder / "data")
    with pytest.raises(ValueError, match="--compare must name other runs, each once"):
        judge.check_comparable([plain, f"{plain}/"], data_dir=folder / "data")
