# SPDX-License-Identifier: Apache-2.0
"""The program of several runs at once takes each of them where its own meta-steps do."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bench.side_by_side import export
from bench.side_by_side.program import SideBySide, State, Tasks
from tests import tiny
from tf_lwdgh.data import pipeline
from tf_lwdgh.runs.experiment import Assembly

SEEDS, STEPS = (0, 1), 3
METHODS = {
    "mean": ["Experiment.aggregator = @Mean()", "Experiment.explore = None"],
    "lwdgh_ee": ["ExploreExploit.mode = 'fixed'", "ExploreExploit.p_max = 0.5", "ExploreExploit.transition = 1.0"],
    "cagrad": ["Experiment.aggregator = @CAGrad()", "Experiment.explore = None"],
}
OPTIMIZERS = {
    "sgd": ["Experiment.optimizer = @SGD", "SGD.momentum = 0.9", "OUTER_LR = 0.1"],
    "adam": ["OUTER_LR = 0.01"],
}


def by_itself(assembly: Assembly, source) -> tuple[list[np.ndarray], list[float]]:
    """The variables after the run's own meta-steps, and their losses."""
    a = assembly
    batches = pipeline.meta_batches(
        source, a.training_episode, meta_batch_size=a.outer.meta_batch_size, seed=a.experiment.seed, end_step=STEPS
    )
    steps = enumerate(batches)
    losses = [float(a.meta_step(batch, tf.constant(i, tf.int64))["train/loss"]) for i, batch in steps]
    return [v.numpy() for v in a.parameters.variables_trained], losses


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_run_goes_where_it_goes_by_itself(tmp_path, optimizer):
    def build(method: str, seed: int) -> Assembly:
        changes = [*METHODS[method], *OPTIMIZERS[optimizer], f"SEED = {seed}"]
        assembly = tiny.build(tmp_path, *changes)
        _ = assembly.meta_step  # made while its settings stand
        return assembly

    made = [build(method, SEEDS[0]) for method in METHODS]
    first = [build("mean", seed) for seed in SEEDS]
    source = made[0].source("train")
    program = SideBySide(made, len(SEEDS))
    initial = zip(*([v.numpy() for v in a.parameters.variables_trained] for a in first))
    variables = [np.stack([*values] * len(METHODS)) for values in initial]
    state = State(variables, *([np.zeros_like(v) for v in variables] for _ in range(2)))
    rows, labels = (np.stack(v, 1) for v in zip(*(export.tasks_of(made[0], source, seed) for seed in SEEDS)))
    explores = np.stack([export.explores_of(m, seed) for m in made for seed in SEEDS], 1)
    assert 0 < explores[:STEPS].mean() < 1
    pixels, step = export.pixels_of(source), tf.function(program, autograph=False)
    losses = []
    for i in range(STEPS):
        tasks = Tasks(pixels, tf.constant(rows[i]), tf.constant(labels[i], tf.int32), tf.constant(explores[i]))
        state, table, snapshot = step(tasks, state, tf.constant(i))
        losses.append({name: row.numpy() for name, row in zip(program.names, table)})
        assert sum(np.prod(shape) for *_, shape in program.snapshot) == snapshot.shape[0]
    idle = first[0].parameters.model.is_idle
    for i, method in enumerate(METHODS):
        for s, seed in enumerate(SEEDS):
            expected, expected_losses = by_itself(build(method, seed), source)
            np.testing.assert_allclose([t["train/loss", i][s] for t in losses], expected_losses, rtol=1e-3)
            for k, wanted in enumerate(expected):
                if not idle[k]:  # whose gradient is rounding alone, which Adam makes large
                    found = state.variables[k][i * len(SEEDS) + s]
                    np.testing.assert_allclose(found, wanted, atol=3e-4 if optimizer == "sgd" else 2e-2)


def test_what_it_leaves_out_is_refused(tmp_path):
    for changes, rule in (
        (["MAML.batch_norm = 'global'"], "keeps something"),
        (["ImageConfig.flip = True"], "augmentation"),
        (["LearningRate.decay = 'cosine'"], "constant"),
        (["Experiment.optimizer = @RMSprop"], "Adam or SGD"),
    ):
        with pytest.raises(ValueError, match=rule):
            SideBySide([tiny.build(tmp_path, *changes)], 1)
