# SPDX-License-Identifier: Apache-2.0
"""The export program: what it prints, and what it refuses."""

from __future__ import annotations

import os
import re

import pytest
import tensorflow as tf

from tests.serving.test_saved_models import SETTINGS, run_dir  # noqa: F401  (a fixture)
from tf_lwdgh import command_line
from tf_lwdgh.export import export
from tf_lwdgh.runs import as_served
from tf_lwdgh.serving import functions, warmup


@pytest.fixture(autouse=True)
def _one_kind_of_images(monkeypatch):
    for module in (functions, warmup):  # the others take two thirds of an export, and nothing of this program
        monkeypatch.setattr(module, "IMAGES", {"": tf.uint8})


@pytest.fixture
def exported(run_dir, tmp_path, monkeypatch, capsys):  # noqa: F811
    """Exports the run as its flags say; what was printed."""
    monkeypatch.setattr(command_line, "start_tensorflow", lambda: None)

    def run(checkpoint: str = "best", gin_params=(), *, batch_norm: str | None = None) -> str:
        output = str(tmp_path / "out")
        export(run_dir, output, checkpoint, gin_params, batch_norm=batch_norm, overwrite=True)
        assert os.path.exists(os.path.join(output, "saved_model.pb"))
        return capsys.readouterr().out

    return run


def test_an_export_says_what_it_is(exported):
    out = exported()
    for said in (
        "best checkpoint, step 3, of ", "MAML on convnet4, 10 inner steps",
        "BatchNorm inductive (trained transductive)", "up to 5 ways, images of 8 × 8 × 3",
        "saved_model_cli show --all --dir ",
    ):  # fmt: skip
        assert said in out
    assert "note:" not in out


def test_an_export_says_when_answers_depend_on_the_other_queries(exported):
    out = exported("last", ["MAML.head = 'zero'"], batch_norm="as_trained")
    assert "last checkpoint, step 8" in out and "takes any number of ways" in out
    assert "BatchNorm transductive\n" in out
    assert "note: a prediction depends on the other queries of its call" in out
    assert "--batch_norm=inductive" in out


def test_an_export_says_what_was_measured_or_how_to_measure_it(run_dir, exported):  # noqa: F811
    ask = f"not measured as a server may be asked: python -m tf_lwdgh.evaluate --run_dir={run_dir}"
    figures = [as_served.Figure("transductive", as_served.ALL, 0.8, 0.01)]
    figures += [as_served.Figure("transductive", as_served.ONE, 0.6, 0.02)]
    figures += [as_served.Figure("inductive", "any", 0.75, 0.01)]
    step, tasks = "best checkpoint, step 3", "9 test tasks of glyphs"
    made = as_served.AsServed(step, tasks, 15, 10, tuple(figures))
    made.keep(run_dir, "best")
    out = exported()
    assert ask not in out and str(made) in out
    assert re.search(r"transductive: 80.0 ± 1.0 % with all .*, 60.0 ± 2.0 % with one query a", out)
    assert "BatchNorm inductive: 75.0 ± 1.0 % with any\n" in out
    assert ask in exported("last")  # another checkpoint
    assert ask in exported("best", ["Evaluation.inner_steps = 3"])


def test_versions_are_exported_below_the_output(run_dir, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(command_line, "start_tensorflow", lambda: None)
    for version, folder in (("7", "7"), ("next", "8")):
        export(
            run_dir, str(tmp_path / "m"), "best", [], batch_norm=None, model_version=version,
            overwrite=False,
        )  # fmt: skip
        assert os.path.exists(tmp_path / "m" / folder / "saved_model.pb")
    assert sorted(os.listdir(tmp_path / "m")) == ["7", "8"]


def test_a_missing_flag_is_named(monkeypatch):
    monkeypatch.setattr(command_line, "start_tensorflow", lambda: None)
    for run, out, name in ((None, "x", "run_dir"), ("x", None, "output")):
        with pytest.raises(ValueError, match=f"--{name} is missing. Example: python"):
            export(run, out, "best", [], batch_norm=None, overwrite=False)
