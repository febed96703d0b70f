# SPDX-License-Identifier: Apache-2.0
"""Counts of answers against slow oracles that go through the queries one by one."""

from __future__ import annotations

import collections
import math
import statistics

import numpy as np
import pytest

from tf_lwdgh.outer import answers as counting
from tf_lwdgh.outer.answers import N_BINS, Answers


def tasks(seed: int, n_classes: int, n_tasks: int):
    """Tasks of 2 to 4 ways and 1 to 4 queries a class, with confidences of which some lie on a bin's edge."""
    generator = np.random.default_rng(seed)
    for _ in range(n_tasks):
        ways = int(generator.integers(2, min(5, n_classes + 1)))
        labels = np.repeat(np.arange(ways, dtype=np.int32), generator.integers(1, 5))
        predictions = generator.integers(0, ways, labels.size, np.int32)
        edges = generator.integers(1, N_BINS + 1, labels.size) / N_BINS
        confidences = np.where(generator.random(labels.size) < 0.3, edges, generator.random(labels.size))
        yield generator.permutation(n_classes)[:ways].astype(np.int32), labels, predictions, confidences


def counted(listed, n_classes: int) -> Answers:
    answers = Answers([f"c{i}" for i in range(n_classes)])
    for task in listed:
        answers.add(*task)
    return answers


@pytest.fixture(params=[(0, 4, 30), (1, 40, 60)], ids=["few classes", "many"])
def example(request, monkeypatch):
    seed, n_classes, n_tasks = request.param
    monkeypatch.setattr(counting, "_FEWEST_TO_MERGE", 20)  # merges on the way
    listed = list(tasks(seed, n_classes, n_tasks))
    return listed, counted(listed, n_classes), n_classes


def test_a_classs_accuracy_is_the_mean_over_the_tasks_that_held_it(example):
    listed, answers, n_classes = example
    shares, queries = collections.defaultdict(list), collections.Counter()
    for ids, labels, predictions, _ in listed:
        for way, c in enumerate(ids.tolist()):
            right = [p == way for p, label in zip(predictions.tolist(), labels.tolist()) if label == way]
            shares[c].append(sum(right) / len(right))
            queries[c] += len(right)
    found = answers.by_class
    for c in range(n_classes):
        assert found.tasks[c] == len(shares[c]) and found.queries[c] == queries[c]
        if len(shares[c]) > 1:
            half = 1.96 * statistics.stdev(shares[c]) / math.sqrt(len(shares[c]))
            assert found.accuracy[c] == pytest.approx(statistics.mean(shares[c]))
            assert found.interval95[c] == pytest.approx(half, abs=1e-7)
        else:
            assert found.interval95[c] == math.inf if shares[c] else np.isnan(found.accuracy[c])


def test_pairs_are_counted_with_the_queries_whose_task_held_both(example):
    listed, answers, _ = example
    count, chances = collections.Counter(), collections.Counter()
    for ids, labels, predictions, _ in listed:
        for label, prediction in zip(labels.tolist(), predictions.tolist()):
            count[int(ids[label]), int(ids[prediction])] += 1
            chances.update((int(ids[label]), c) for c in ids.tolist())
    pairs = answers.pairs
    found = {(a, b): (n, m) for a, b, n, m in zip(*(x.tolist() for x in pairs), strict=True)}
    assert found == {pair: (n, chances[pair]) for pair, n in count.items()}
    wrong = [(a, b) for a, b, *_ in zip(*(x.tolist() for x in pairs.wrong), strict=True)]
    assert set(wrong) == {(a, b) for a, b in count if a != b}
    order = [(-count[pair], -count[pair] / chances[pair]) for pair in wrong]
    assert order == sorted(order)


def test_ece_is_that_of_a_loop_over_the_bins(example):
    listed, answers, _ = example
    labels, predictions, confidences = (np.concatenate(x) for x in list(zip(*listed))[1:])
    total = 0.0
    for b in range(N_BINS):
        inside = (confidences > b / N_BINS) & (confidences <= (b + 1) / N_BINS)
        assert answers.bins.counts[b] == inside.sum()
        if inside.any():
            right = (labels == predictions)[inside].mean()
            total += inside.mean() * abs(right - confidences[inside].mean())
            assert answers.bins.accuracy[b] == pytest.approx(right)
            assert answers.bins.confidence[b] == pytest.approx(confidences[inside].mean())
    assert answers.ece == pytest.approx(total)
    assert answers.n_queries == len(labels)
    assert answers.accuracy == pytest.approx((labels == predictions).mean())
    assert answers.confidence == pytest.approx(confidences.mean())


def test_ece_of_a_few_queries_by_hand():
    """Two at 0.9 of which one is right, two at 0.6 both right: 2/4 · 0.4 + 2/4 · 0.4."""
    one = (np.array([0, 1]), np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), np.array([0.9, 0.9, 0.6, 0.6]))
    assert counted([one], 2).ece == pytest.approx(0.4)


def test_a_confidence_that_is_not_a_number_is_not_hidden():
    one = (np.array([0, 1]), np.array([0, 1]), np.array([0, 0]), np.array([0.9, np.nan]))
    assert math.isnan(counted([one], 2).ece)


def test_memory_is_that_of_the_pairs_that_met():
    """Of 5,000 classes, whose matrix would have 25,000,000 entries."""
    answers = counted(tasks(2, 5000, 200), 5000)
    codes, _ = answers._pairs.merged()
    assert len(codes) <= 200 * 4 * 4
