# SPDX-License-Identifier: Apache-2.0
"""Evaluation against slow oracles: intervals, per-task accuracies, paired differences."""

from __future__ import annotations

import json
import math
import statistics

import numpy as np
import pytest

from tests import tiny
from tests.learners import tiny_tasks
from tests.outer.test_task_execution import N_TASKS, random_episodes, small_convnet
from tf_lwdgh import config
from tf_lwdgh.data import pipeline
from tf_lwdgh.learners import MAML
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.outer.evaluation import (
    Evaluation,
    EvaluationResult,
    Evaluator,
    evaluate,
    mean_and_interval,
    paired,
)
from tf_lwdgh.outer.task_execution import MODES
from tf_lwdgh.types import Episode


@pytest.fixture(scope="module")
def assembly(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("evaluation"))


def test_the_interval_is_that_of_the_statistics_module():
    values = [0.2, 0.4, 0.9, 0.5]
    mean, interval = mean_and_interval(np.array(values))
    assert mean == pytest.approx(statistics.mean(values))
    assert interval == pytest.approx(1.96 * statistics.stdev(values) / math.sqrt(4))


def test_one_task_has_an_infinite_interval():
    assert mean_and_interval(np.array([0.5])) == (0.5, math.inf)


def test_every_task_is_judged_as_if_alone(assembly):
    parameters, source = assembly.parameters, assembly.source("test")
    tasks = pipeline.evaluation_tasks(source, assembly.episode, seed=3, n_tasks=5, batch_size=2)
    result = evaluate(Evaluator(parameters, inner_steps=2), tasks, {})
    context, meta = Context(parameters.model, steps=2), parameters.values()
    expected = []
    for task in tasks.through(lambda dataset: dataset.unbatch()):
        task = Episode(*task)
        adapted = assembly.learner.adapt(context, meta, *task[:2])
        logits, _ = assembly.learner.predict(context, meta, adapted, task.query_images)
        expected.append(np.mean(logits.numpy().argmax(-1) == task.query_labels.numpy()))
    np.testing.assert_allclose(result.accuracies, expected)


def test_the_evaluator_is_traced_at_most_twice_for_an_odd_last_batch(assembly):
    evaluator = Evaluator(assembly.parameters, inner_steps=1)
    source = assembly.source("test")
    tasks = pipeline.evaluation_tasks(source, assembly.episode, seed=0, n_tasks=7, batch_size=2)
    evaluate(evaluator, tasks, {})
    assert evaluator.__call__.experimental_get_tracing_count() <= 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1, 3])
def test_queries_come_in_calls_of_as_many_as_are_asked_for(mode, size):
    episodes = random_episodes()
    parameters = MetaParameters(small_convnet(), MAML(inner_loop=InnerLoop(inner_lr=0.1)))
    config.parse([], [f"TaskExecution.mode = {mode!r}"])
    found = Evaluator(parameters, inner_steps=2, queries_per_call=size)(episodes)["predictions"]
    context, learner = Context(parameters.model, steps=2), parameters.learner
    meta = parameters.values()
    for k in range(N_TASKS):
        one = tiny_tasks.task(episodes, k)
        adapted = learner.adapt(context, meta, one.support_images, one.support_labels)
        for i in range(0, len(one.query_labels), size):
            call = one.query_images[i : i + size]
            logits = learner.predict(context, meta, adapted, call)[0].numpy()
            np.testing.assert_array_equal(found[k, i : i + size], logits.argmax(-1))


def test_calls_that_do_not_fit_the_queries_are_refused(assembly):
    with pytest.raises(ValueError, match="divide a task's 9 queries.*queries_per_call = 2"):
        assembly.evaluation_episode(Evaluation(queries_per_call=2))
    with pytest.raises(ValueError, match="queries_per_call must be at least 1"):
        Evaluation(queries_per_call=0)


def _result(accuracies, sha="s"):
    about = {"task_list_sha256": sha}
    return EvaluationResult(np.array(accuracies), np.zeros(len(accuracies)), about)


def test_the_paired_interval_is_that_of_the_differences():
    a, b = [0.5, 0.7, 0.9], [0.4, 0.65, 0.95]
    difference = paired(_result(a), _result(b))
    expected = [x - y for x, y in zip(a, b)]
    assert difference.mean == pytest.approx(statistics.mean(expected))
    assert difference.interval95 == pytest.approx(1.96 * statistics.stdev(expected) / math.sqrt(3))
    assert "paired over 3 tasks (the interval holds 0)" in str(difference)


def test_other_tasks_cannot_be_paired():
    with pytest.raises(ValueError, match="same tasks on both sides.*s and t"):
        paired(_result([0.5, 0.5]), _result([0.5, 0.5], "t"))


def test_the_file_holds_every_task(tmp_path):
    _result([0.25, 0.75]).write(tmp_path / "a" / "r.json")
    content = json.loads((tmp_path / "a" / "r.json").read_text())
    assert content["accuracies"] == [0.25, 0.75]
    assert content["accuracy"] == 0.5 and content["n_tasks"] == 2


@pytest.mark.parametrize("field, value", [("n_tasks", 1), ("split", "all"), ("inner_steps", -1)])
def test_a_wrong_setting_names_its_binding(field, value):
    with pytest.raises(ValueError, match=f"Evaluation.{field} = "):
        Evaluation(**{field: value})


def test_another_number_of_ways_needs_a_head_that_starts_at_zero(assembly):
    with pytest.raises(ValueError, match="was trained with a head .*MAML.head = 'zero'.*n_way = 4"):
        assembly.evaluation_episode(Evaluation(n_way=4))


def test_a_test_split_that_is_too_small_is_refused(assembly):
    with pytest.raises(ValueError, match="split 'test' of data set 'patterns'"):
        assembly.evaluation_episode(Evaluation(n_query=50))


def test_a_learner_that_takes_any_ways_may_be_asked_for_more(assembly, tmp_path):
    any_way = tiny.build(tmp_path, "MAML.head = 'zero'")
    assert any_way.evaluation_episode(Evaluation(n_way=4)).n_way == 4


def test_a_result_says_what_was_evaluated_and_no_steps_where_there_are_none():
    about = {"split": "test", "dataset": "d", "n_way": 5, "k_shot": 1, "n_query": 15, "batch_norm": "global",
             "checkpoint": "best checkpoint, step 4", "learner": "MAML", "inner_steps": 3}  # fmt: skip
    shown = str(EvaluationResult(np.array([0.5, 0.7]), np.zeros(2), about))
    assert shown == (
        "60.00 ± 19.60 % accuracy over 2 test tasks of d: 5-way 1-shot, 15 queries a class, MAML with "
        "3 inner steps, BatchNorm global, best checkpoint, step 4"
    )
    without = str(EvaluationResult(np.ones(2), np.zeros(2), {**about, "inner_steps": None}))
    assert "MAML, BatchNorm global" in without
