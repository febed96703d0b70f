# SPDX-License-Identifier: Apache-2.0
"""A search that trains: the test split waits until it is over."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests.studies import tiny_jobs
from tf_lwdgh.data import store
from tf_lwdgh.runs import summaries
from tf_lwdgh.studies import executors, search
from tf_lwdgh.studies.conduct import Conductor, Place
from tf_lwdgh.studies.definition import Method, Study
from tf_lwdgh.studies.space import Search
from tf_lwdgh.studies.worker import Stop


def real_study(folder: pathlib.Path, space: dict) -> Study:
    (job,) = tiny_jobs.make(folder, ["MAML"])
    return Study(
        title="s", experiment=job.gin_files,
        gin_params=(*job.gin_params[:-1], "STEPS_PER_EPOCH = 20"),
        methods=[Method("MAML")], baseline="MAML", seeds=(4,), evaluation=job.evaluation,
        search=Search(method="MAML", space=space, trials=1, n_tasks=20),
    )  # fmt: skip


def test_a_binding_that_nothing_uses_is_refused_before_any_trial(tmp_path):
    made = real_study(tmp_path, {"PCGrad.unit": ("choice", ["layer", "variable"])})
    with pytest.raises(ValueError, match="Search.space .*MAML: .*nothing in this .* uses PCGrad.unit"):
        search.Searcher(made, Place(str(tmp_path / "out"), str(tmp_path / "data"), ""))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_search_reads_no_test_image_and_the_study_uses_what_it_found(tmp_path):
    pytest.importorskip("optuna")
    made = real_study(tmp_path, {"OUTER_LR": ("log", 1e-3, 1e-1)})
    place = Place(str(tmp_path / "out"), str(tmp_path / "data"), "")
    folder, spec = store.open_dataset(place.data_dir, "patterns")
    hidden = {}
    for class_id in spec.classes("test"):
        path = pathlib.Path(folder, spec.file_pattern.format(class_id))
        hidden[path] = path.read_bytes()
        path.unlink()
    with executors.executor("local", jobs=1, gpus=0, ray_address=None, cores_per_job=1) as executor:
        searcher = search.Searcher(made, place)
        tuned = searcher.run(executor, Stop(), say_hours=False)
        for path, content in hidden.items():
            path.write_bytes(content)
        conductor = Conductor(made, place, tuned=tuned)
        assert conductor.run(executor.run, at_once=1, stop=Stop())
    best = json.loads(pathlib.Path(place.out, "search", "best.json").read_text())["found"][0]
    assert best["done"] == 1 and best["split"] == "val"
    run_dir = pathlib.Path(place.out, best["run"])
    assert not list(run_dir.glob("evaluation/test*")) and list(run_dir.glob("evaluation/val*"))
    assert summaries.read_metrics(run_dir)[-1]["step"] == 20
    assert_hparams_hold(run_dir, best)
    (result,) = conductor.done.values()
    assert result.settings["LearningRate.rate"] == repr(best["values"]["OUTER_LR"])
    assert result.about["split"] == "test" and result.note == tuned["", "MAML"].note


def assert_hparams_hold(run_dir: pathlib.Path, best: dict) -> None:
    """TensorBoard's page has the tried value and the accuracy that the search goes by."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    events = EventAccumulator(str(run_dir / summaries.RESULT_FOLDER))
    events.Reload()
    tags = events.PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(tags[metadata.SESSION_START_INFO_TAG])
    assert start.hparams["LearningRate.rate"].number_value == best["values"]["OUTER_LR"]
    (event,) = events.Tensors("result/search_accuracy")
    assert event.tensor_proto.float_val[0] == pytest.approx(best["accuracy"])
