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
from tf_lwdgh import command_line
from tf_lwdgh.data import store
from tf_lwdgh.data.image_source import STORAGES

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
    [("no such", "No data set 'owls'"), ("nothing there", "no data set in --data_dir 'runs'"), ("more", "no such arg")],
)
def test_what_the_user_can_mend_is_exit_code_2(came, name, said):
    code, text = came[name]
    assert code == command_line.USER_ERROR and said in text and "Traceback" not in text
