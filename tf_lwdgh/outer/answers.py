# SPDX-License-Identifier: Apache-2.0
"""What became of the queries of an evaluation: by class, by pair of classes, and by confidence.

The confidence of an answer is its highest probability, the softmax of the logits that the loss is of. The
expected calibration error puts the queries into M = 15 bins of equal width by it, of which bin b holds
((b-1)/M, b/M]:

  ECE = Σ_b n_b/n |accuracy_b − confidence_b|

(Naeini, Cooper, Hauskrecht, AAAI 2015; as it is written here Guo, Pleiss, Sun, Weinberger, ICML 2017, eq. 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

N_BINS = 15
_EDGES = np.arange(1, N_BINS) / N_BINS
_FEWEST_TO_MERGE = 1 << 16  # pairs


class ByClass(NamedTuple):
    """What became of each class, arrays of [C]."""

    tasks: np.ndarray  # that held it
    queries: np.ndarray
    accuracy: np.ndarray  # mean over those tasks of the share of its queries that were right; NaN of none
    interval95: np.ndarray  # 1.96 s/√n over those tasks, ddof = 1; infinite of one, NaN of none


class Pairs(NamedTuple):
    """Which classes were taken for which, arrays of [P] by class and by what it was taken for.

    A class taken for itself is right. Pairs that never happened are left out.
    """

    classes: np.ndarray
    taken_for: np.ndarray
    counts: np.ndarray
    chances: np.ndarray  # the class's queries in tasks that held both

    @property
    def wrong(self) -> Pairs:
        """Those of two classes, most frequent first, and of equally frequent the larger share first."""
        kept = Pairs(*(a[self.classes != self.taken_for] for a in self))
        order = np.lexsort((kept.chances, -kept.counts))
        return Pairs(*(a[order] for a in kept))


class Bins(NamedTuple):
    """The queries by their confidence, arrays of [N_BINS]; NaN where a bin is empty."""

    counts: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray


class Answers:
    """Counts the queries of tasks, in memory that grows with the pairs of classes that met in a task.

    Args:
      names: of the C classes by number (Episode.class_ids).
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        n = len(self.names)
        self._tasks, self._queries = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._sums = np.zeros([2, n])  # of the tasks' accuracies, and of their squares
        self._pairs = _PairCounts()
        self._bins = np.zeros([3, N_BINS])  # queries, those that were right, confidences

    def add(
        self,
        class_ids: np.ndarray,
        labels: np.ndarray,
        predictions: np.ndarray,
        confidences: np.ndarray,
    ) -> None:
        """Counts a task.

        Args:
          class_ids: [N] the numbers of its classes, each different.
          labels: [M] of its queries, in [0, N), each at least once.
          predictions: [M], in [0, N).
          confidences: [M], in [0, 1].
        """
        ways, ids = len(class_ids), np.asarray(class_ids, np.int64)
        flat = np.bincount(labels * ways + predictions, minlength=ways * ways)
        matrix = flat.reshape(ways, ways)
        queries = matrix.sum(1)
        accuracies = matrix.diagonal() / queries
        self._tasks[ids] += 1
        self._queries[ids] += queries
        self._sums[:, ids] += np.stack([accuracies, accuracies**2])
        codes = ids[:, None] * len(self.names) + ids
        self._pairs.add(codes.ravel(), np.stack([flat, np.repeat(queries, ways)], 1))
        bins = np.searchsorted(_EDGES, confidences)
        for row, values in zip(self._bins, (None, labels == predictions, confidences)):
            row += np.bincount(bins, values, N_BINS)

    @property
    def n_queries(self) -> int:
        """All queries so far."""
        return int(self._bins[0].sum())

    @property
    def accuracy(self) -> float:
        """The share of all queries that were right."""
        return float(self._bins[1].sum() / self.n_queries)

    @property
    def confidence(self) -> float:
        """The mean confidence over all queries."""
        return float(self._bins[2].sum() / self.n_queries)

    @property
    def ece(self) -> float:
        """The expected calibration error, in [0, 1]."""
        _, right, confidences = self._bins
        return float(np.abs(right - confidences).sum() / self.n_queries)

    @property
    def bins(self) -> Bins:
        """The queries by their confidence."""
        count, right, confidences = self._bins
        with np.errstate(invalid="ignore"):
            return Bins(count.astype(np.int64), right / count, confidences / count)

    @property
    def by_class(self) -> ByClass:
        """The queries by class."""
        n = self._tasks
        with np.errstate(invalid="ignore", divide="ignore"):
            mean, square = self._sums / n
            variance = np.maximum(square - mean**2, 0) * n / (n - 1)
            interval = np.where(n == 1, np.inf, 1.96 * np.sqrt(variance / n))
        return ByClass(n.copy(), self._queries.copy(), mean, interval)

    @property
    def pairs(self) -> Pairs:
        """The queries by their class and the class that they were taken for."""
        codes, counts = self._pairs.merged()
        happened = counts[:, 0] > 0
        classes, taken_for = np.divmod(codes[happened], len(self.names))
        return Pairs(classes, taken_for, *counts[happened].T)


class _PairCounts:
    """Counts by code, sparse: merged whenever as many wait as are kept."""

    def __init__(self) -> None:
        self._codes, self._counts = np.zeros(0, np.int64), np.zeros([0, 2], np.int64)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._n_waiting = 0

    def add(self, codes: np.ndarray, counts: np.ndarray) -> None:
        """Adds counts [P, 2] to those of codes [P]."""
        self._waiting.append((codes, counts))
        self._n_waiting += len(codes)
        if self._n_waiting > max(_FEWEST_TO_MERGE, len(self._codes)):
            self.merged()

    def merged(self) -> tuple[np.ndarray, np.ndarray]:
        """The codes [P], rising, and the sums [P, 2] of their counts."""
        parts = [(self._codes, self._counts), *self._waiting]
        codes, counts = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        self._codes, place = np.unique(codes, return_inverse=True)
        sums = [np.bincount(place, column, len(self._codes)) for column in counts.T]
        self._counts = np.stack(sums, 1).astype(np.int64)
        self._waiting, self._n_waiting = [], 0
        return self._codes, self._counts
