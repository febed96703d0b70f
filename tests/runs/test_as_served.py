# SPDX-License-Identifier: Apache-2.0
"""A checkpoint judged as a server may be asked, and the figures that an export finds again."""

from __future__ import annotations

import numpy as np
import pytest

from tests import tiny
from tf_lwdgh import config
from tf_lwdgh.runs import as_served
from tf_lwdgh.runs.checkpoints import CheckpointFolder, meta_variables
from tf_lwdgh.runs.judge import judge

SIX = ["Evaluation.n_tasks = 6"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data/ and a run whose best checkpoint, of step 4, is as it was initialised."""
    path = tmp_path_factory.mktemp("as_served")
    assembly = tiny.build(path)
    manifest = {"dataset": "patterns", "fingerprint": "abc"}
    CheckpointFolder(path / "run" / "best").save(4, meta_variables(assembly.parameters), manifest)
    (path / "run" / "config.gin").write_text(config.full_text(), encoding="utf-8")
    return path


def test_every_way_of_asking_is_judged_on_the_same_tasks_and_kept(folder):
    run, shared = folder / "run", {"data_dir": folder / "data", "gin_params": SIX}
    whole, tasks = judge(run, show=False, **shared)
    assert whole.about["batch_norm"] == "transductive" and "queries_per_call" not in whole.about
    before = {f.name for f in (run / "evaluation").iterdir()}
    measured = as_served.measure(run, whole, tasks, which="best", **shared)
    # What others take for the run's evaluation stays alone there.
    assert {f.name for f in (run / "evaluation").iterdir()} == before
    changes = (
        [], ["Evaluation.queries_per_call = 1"], ["Evaluation.queries_per_call = 3"],
        ["MAML.batch_norm = 'inductive'"],
    )  # fmt: skip
    assert [f.batch_norm for f in measured.figures] == ["transductive"] * 3 + ["inductive"]
    for figure, change in list(zip(measured.figures, changes, strict=True))[1::2]:
        params = [*SIX, *change]
        result, _ = judge(run, data_dir=folder / "data", gin_params=params, tasks=tasks, show=False)
        assert (figure.accuracy, figure.interval95) == (result.mean, result.interval95)
    params = [*SIX, "Evaluation.queries_per_call = 1"]
    one, _ = judge(run, data_dir=folder / "data", gin_params=params, tasks=tasks, show=False)
    assert "BatchNorm transductive, 1 query a call, best checkpoint, step 4" in str(one)
    assert {f.name for f in run.iterdir()} >= {"as_served_best.json", "evaluation"}
    said = str(measured)
    assert said.startswith(
        "as a server may be asked, on 6 test tasks of patterns, 3 queries a class:"
    )
    assert said.count(" ± ") == 4 and "% with one query a call" in said
    assert as_served.read(run, "best", 4, 2) == measured
    assert as_served.read(run, "best", 5, 2) is None
    assert as_served.read(run, "best", 4, 10) is None
    assert as_served.read(run, "last", 4, 2) is None


def test_the_first_tasks_of_a_list_are_a_list(folder):
    _, tasks = judge(folder / "run", data_dir=folder / "data", gin_params=SIX, show=False)
    few = tasks.first(2)
    assert len(few) == 2 and few.sha256 != tasks.sha256
    np.testing.assert_array_equal(few.image_indices, tasks.image_indices[:2])
    assert tasks.first(100).sha256 == tasks.sha256
