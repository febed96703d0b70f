# SPDX-License-Identifier: Apache-2.0
"""Damaged data as a user meets it: what the doctor says, and how training stops."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests import tiny
from tests.data.test_damage import spoiled
from tf_lwdgh import command_line, config, versions
from tf_lwdgh.data import store
from tf_lwdgh.data.image_source import STORAGES
from tf_lwdgh.examinations import environment, settings
from tf_lwdgh.examinations.report import FAULT, NOTE, WARNING

ROOT = pathlib.Path(__file__).parent.parent


def _rewrite_with_a_spoiled_image(folder: pathlib.Path) -> None:
    """The same data set again, with one image that can't be decoded in a record that is whole."""
    spec = store.DatasetSpec.load(folder)
    images = [store.read_class(folder, spec, c) for c in range(len(spec.class_names))]
    images[1] = [spoiled(image) if i == 3 else image for i, image in enumerate(images[1])]
    classes = {s: [(spec.class_names[c], images[c]) for c in spec.classes(s)] for s in store.SPLITS}
    store.write_dataset(folder, spec.name, classes, image_size=spec.image_size, overwrite=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """data/patterns, which is whole; flipped/patterns and spoiled/patterns, which are not."""
    path = tmp_path_factory.mktemp("doctor")
    tiny.write_patterns(path / "data")
    tiny.write_gin(path)
    for name in ("flipped", "spoiled"):
        shutil.copytree(path / "data", path / name)
    record = path / "flipped/patterns/2.tfrecords"
    content = bytearray(record.read_bytes())
    content[60] ^= 16
    record.write_bytes(content)
    _rewrite_with_a_spoiled_image(path / "spoiled/patterns")
    return path


FLIPPED = r"flipped/patterns/2\.tfrecords \(class 2, 'train-2'\) is damaged: the data of record 0 at byte 0 do not"
SPOILED = (
    r"spoiled/patterns/1\.tfrecords \(class 1, 'train-1'\): the image of record 3 (at byte \d+ )?cannot be decoded"
)
TRAIN = ["--gin_file=tiny.gin", "--gin_param=EPOCHS = 1", "--gin_param=EpisodeConfig.n_way = 5"]
COMMANDS = {
    **{
        f"{name} {storage}": ("train", [
            *TRAIN, f"--data_dir={name}", f"--run_dir=runs/{name}-{storage}",
            f"--gin_param=PipelineConfig.storage = '{storage}'",
        ])
        for name in ("flipped", "spoiled") for storage in STORAGES
    },
    "whole": ("doctor", []),
    "faulty": ("doctor", ["--data_dir=flipped", "--dataset=patterns"]),
    "json": ("doctor", ["--data_dir=spoiled", "--json"]),
    "no such": ("doctor", ["--dataset=owls"]),
    "nothing there": ("doctor", ["--data_dir=runs"]),
    "more": ("doctor", ["patterns"]),
    "all of it": ("doctor", ["--environment", "--gin_file=tiny.gin", "--dataset=patterns"]),
    "wrong settings": ("doctor", ["--gin_file=tiny.gin", "--gin_param=N_WAY = 7", "--json"]),
    "no gin file": ("doctor", ["--gin_file=owls"]),
    "no run": ("doctor", ["--run_dir=data"]),
    "no export": ("doctor", ["--model=data"]),
    "idle": ("doctor", ["--gin_param=N_WAY = 7"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def came(folder) -> dict[str, tuple[int, str]]:
    """What each of COMMANDS came to: exit code, and all that it said."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.forked_commands"],
        input=json.dumps(list(COMMANDS.values())), cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(zip(COMMANDS, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name, said", [("flipped", FLIPPED), ("spoiled", SPOILED)])
def test_training_stops_with_one_line_that_names_file_class_and_record(came, name, said, storage):
    code, text = came[f"{name} {storage}"]
    assert code == command_line.USER_ERROR, text
    (line,) = [line for line in text.splitlines() if line.startswith("tf_lwdgh.train: ")]
    assert re.search(said, line), text
    assert "Traceback" not in text


def test_a_whole_set_is_exit_code_0(came):
    code, text = came["whole"]
    assert code == 0 and "data/patterns: 216 images of 18 classes in " in text
    assert "images/s): 0 faults, 0 warnings" in text


def test_without_flags_the_installation_is_looked_at_too(came):
    _, text = came["whole"]
    assert "environment: 0 faults" in text
    assert text.index("environment: ") < text.index("data/patterns: ")
    assert "environment: " not in came["faulty"][1]


def test_several_things_are_looked_at_at_once(came):
    code, text = came["all of it"]
    assert code == 0, text
    for said in ("environment: 0 faults", "MAML on convnet4", "tiny.gin: 0 faults, 0 warnings", "216 images"):
        assert said in text


def test_wrong_settings_are_exit_code_1_and_name_the_binding(came):
    code, text = came["wrong settings"]
    (report,) = json.loads(text[text.index("\n[\n") :])
    assert code == 1 and report["examined"] == "tiny.gin" and report["faults"] == 1
    (fault,) = [f for f in report["findings"] if f["kind"] == "fault"]
    assert "EpisodeConfig.n_way = 7" in fault["what"] and "--gin_param" in fault["mend"]


def test_faults_are_exit_code_1(came):
    code, text = came["faulty"]
    assert code == 1 and f"fault: {FLIPPED}".replace("\\", "") in text
    assert "1 fault, 0 warnings" in text and "Traceback" not in text


def test_json_for_programs(came):
    code, text = came["json"]
    (report,) = json.loads(text[text.index("\n[\n") :])
    assert code == 1 and report["faults"] == 1 and report["dataset"] == "patterns"
    (fault,) = report["first_faults"]
    assert fault["file"] == "spoiled/patterns/1.tfrecords"
    assert (fault["class_id"], fault["record"]) == (1, 3) and fault["byte"] > 0


@pytest.mark.parametrize(
    "name, said",
    [
        ("no such", "No data set 'owls'"),
        ("nothing there", "no data set in --data_dir 'runs'"),
        ("more", "no such arg"),
        ("no gin file", "no such file. Received: 'owls'"),
        ("no run", "--run_dir must be a folder"),
        ("no export", "--model must be a folder"),
        ("idle", "--gin_param needs --gin_file"),
    ],
)
def test_what_the_user_can_mend_is_exit_code_2(came, name, said):
    code, text = came[name]
    assert code == command_line.USER_ERROR and said in text and "Traceback" not in text


def _lines(report, kind: str) -> list[str]:
    return [str(line) for line in report.lines if line.kind == kind]


def test_this_environment_has_every_package_in_its_range():
    report = environment.examine()
    assert not report.faulty, report
    for name in ("Python", *versions.RANGES, "gin files in", "GiB of memory"):
        assert name in str(report)


def test_packages_that_are_missing_or_of_another_version_are_named_with_what_mends_it(monkeypatch):
    monkeypatch.setattr(versions, "PYTHON", ">=3.30")
    monkeypatch.setattr(versions, "RANGES", {"keras": ">=99,<100", "owls": ">=1,<2", "numpy": ">=1,<9"})
    python, keras, owls = _lines(environment.examine(), FAULT)
    assert "Python must be >=3.30. Received: 3." in python
    assert "keras must be >=99,<100. Received: 3." in keras and "pip install 'keras>=99,<100'" in keras
    assert "the package owls is not installed" in owls and "pip install 'owls>=1,<2'" in owls


def test_tensorflow_by_another_name_counts(monkeypatch):
    known = {"tensorflow-cpu": "2.20.0"}

    def version(name: str) -> str:
        if name not in known:
            raise environment.importlib.metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(environment.importlib.metadata, "version", version)
    assert environment.installed("tensorflow") == "2.20.0" and environment.installed("keras") is None


def test_what_makes_it_slow_is_a_warning(monkeypatch):
    monkeypatch.setattr(environment.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setattr(environment.glob, "glob", lambda _: ["/dev/nvidia0"])
    monkeypatch.setattr(environment.tf.config, "list_physical_devices", lambda _: [])
    monkeypatch.setattr(environment, "_LITTLE", 1e9)
    monkeypatch.setattr(environment, "_cpu_info", lambda: ("old", {"sse"}))
    found = "\n".join(_lines(environment.examine(), WARNING))
    for said in ("oneDNN's kernels are off", "unset TF_ENABLE", "no AVX2", "TensorFlow does not see", "[gpu]"):
        assert said in found
    assert "GiB of memory are free: a training may be ended" in found


def test_extras_that_are_not_there_are_a_note(monkeypatch):
    monkeypatch.setattr(versions, "EXTRAS", {"owls": {"owls": ">=1,<2"}})
    assert "not installed: the extra [owls] (owls)\n  mend: pip install 'tf_lwdgh[owls]'" in "\n".join(
        _lines(environment.examine(), NOTE)
    )


def test_an_installation_without_gin_files_is_a_fault(monkeypatch, tmp_path):
    monkeypatch.setattr(config, "GIN_FOLDER", str(tmp_path))
    assert "there are no gin files" in _lines(environment.examine(), FAULT)[0]


def test_all_settings_that_are_wrong_are_named_at_once(folder, monkeypatch):
    monkeypatch.chdir(folder)
    report = settings.examine(["tiny.gin"], ["EPOCHS = 0", "VAL_TASKS = 1", "IMAGE_SIZE = 'x'"], "data")
    faults = "\n".join(_lines(report, FAULT))
    for binding in ("OuterLoop.epochs must be at least 1", "TrainerConfig.val_tasks = 1", "image_size = 'x'"):
        assert binding in faults
    assert report.count(FAULT) == 3


@pytest.mark.parametrize(
    "gin_params, message",
    [
        (["EpisodeConfg.n_way = 5"], "Did you mean EpisodeConfig"),
        (["Mean.unit = 'layer'"], "nothing in this experiment uses Mean.unit"),
        (["MAML.batch_norm = 'local'"], "must be one of transductive, inductive, global"),
        (["Evaluation.n_way = 5"], "Evaluation.n_way must be the training's"),
        (["INNER_LR = {'hed': 0.1}"], "every expression must match a variable"),
    ],
)
def test_a_wrong_setting_is_a_fault_with_its_binding(folder, monkeypatch, gin_params, message):
    monkeypatch.chdir(folder)
    (fault,) = _lines(settings.examine(["tiny.gin"], gin_params, "data"), FAULT)
    assert message in fault and "In call to configurable" not in fault


def test_settings_without_data_are_built_and_the_data_asked_for(folder, monkeypatch):
    monkeypatch.chdir(folder)
    report = settings.examine(["tiny.gin"], [], "runs")
    (fault,) = _lines(report, FAULT)
    assert "No data set 'patterns'" in fault and "--data_dir" in fault
    assert "MAML on convnet4" in str(report)


def test_every_run_of_a_study_is_looked_at(folder, monkeypatch):
    monkeypatch.chdir(folder)
    report = settings.examine(["studies/table5", "studies/tiny"], [], "data")
    (fault,) = _lines(report, FAULT)
    assert "No data set 'glyphs'" in fault
