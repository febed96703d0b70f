# SPDX-License-Identifier: Apache-2.0
"""The meta-learner LSTM in NumPy, coordinate by coordinate, from given gradients and losses."""

from __future__ import annotations

import math

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def preprocessed(x: float) -> tuple[float, float]:
    """Two numbers of one."""
    if abs(x) >= math.exp(-10):
        return math.log(abs(x)) / 10, math.copysign(1.0, x)
    return -1.0, math.exp(10) * x


def walk(
    start: list[np.ndarray], gradients: list[list[np.ndarray]], losses: list[float], own: dict
) -> list[list[np.ndarray]]:
    """The parameters before the first step and after each."""
    shapes = [v.shape for v in start]
    coordinates = np.concatenate([np.ravel(v) for v in start])
    every = [np.concatenate([np.ravel(v) for v in g]) for g in gradients]
    steps = np.array(
        [
            _one(c, [g[p] for g in every], losses, {n: np.asarray(v) for n, v in own.items()})
            for p, c in enumerate(coordinates)
        ]
    ).T
    ends = np.cumsum([math.prod(s) for s in shapes])[:-1]
    return [[x.reshape(s) for x, s in zip(np.split(row, ends), shapes)] for row in steps]


def _one(c: float, gradients: list[float], losses: list[float], own: dict) -> list[float]:
    """The path of one coordinate."""
    units = len(own["lstm/bias"]) // 4
    h, cell, forget, insert, path = np.zeros(units), np.zeros(units), 0.0, 0.0, [c]
    for g, loss in zip(gradients, losses):
        told = np.array([*preprocessed(loss), *preprocessed(g), *h])
        i, f, o, new = np.split(told @ own["lstm/kernel"] + own["lstm/bias"], 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(new)
        h = sigmoid(o) * np.tanh(cell)
        forget = own["lstm/forget_kernel"] @ [*h, c, forget] + own["lstm/forget_bias"]
        insert = own["lstm/input_kernel"] @ [*h, c, insert] + own["lstm/input_bias"]
        c = sigmoid(forget) * c - sigmoid(insert) * g
        path.append(c)
    return path
