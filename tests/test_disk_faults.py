# SPDX-License-Identifier: Apache-2.0
"""A full or read-only disk: one line and a code of its own; nothing half-written; then it goes on."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import tensorflow as tf

from tests import small_disk, tiny
from tests.converters import raw
from tf_lwdgh import command_line, disk_faults

ROOT = pathlib.Path(__file__).resolve().parents[1]
OWN_DISK = ["unshare", "--map-root-user", "--mount"]


def may_mount() -> bool:
    """Whether this user may mount a disk for a process alone."""
    if shutil.which("unshare") is None:
        return False
    line = [*OWN_DISK, "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/mnt"]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict:
    """What came of the commands of `small_disk`: (code, output, files) by what and how."""
    folder, mounted = tmp_path_factory.mktemp("small"), may_mount()
    tiny.write_patterns(folder / "data")
    tiny.write_gin(folder)
    for split, classes in {"train": "ab", "val": "c", "test": "d"}.items():
        for i, name in enumerate(classes):
            for j in range(2):
                raw.save(folder / "raw" / split / name / f"{j}.png", raw.pixels(10 * i + j, 32))
    line = [sys.executable, "-m", "tests.small_disk", str(folder)]
    done = subprocess.run(
        [*OWN_DISK, *line, "mount"] if mounted else line, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return {(what, how): tuple(rest) for what, how, *rest in json.loads(done.stdout)}


@pytest.fixture
def small(outcomes):
    if ("convert", "full") not in outcomes:
        pytest.skip("no disk may be mounted here")
    return outcomes


def check(outcome: tuple, number: int) -> None:
    """The command left with the code, one line that says what and why, and no traceback."""
    code, said, files = outcome
    assert code == command_line.DISK_FAULT, said
    last = said.strip().splitlines()[-1]
    assert "cannot write '" in last and f"{os.strerror(number)} (errno {number})" in last, said
    assert "bytes are free" in last and "the same command goes on" in last
    assert "Traceback" not in said and "Exception" not in said
    assert not [f for f in files if ".unfinished" in f or ".partial" in f or ".exported" in f], files


@pytest.mark.parametrize("what", small_disk.COMMANDS)
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(small, what):
    check(small[what, "full"], errno.ENOSPC)
    code, said, _ = small[what, "again"]
    assert code == 0, said


@pytest.mark.parametrize("what", ["convert", "evaluate"])
def test_a_read_only_disk_is_one_line(small, what):
    check(small[what, "read-only"], errno.EROFS)


def test_what_a_full_disk_holds_is_whole_or_absent(small):
    assert not [f for f in small["convert", "full"][2] if f != "filler"]
    assert not [f for f in small["export", "full"][2] if f.startswith("exported")]
    assert "% accuracy over 5 test tasks" in small["evaluate", "full"][1]  # said, where not kept
    assert not [f for f in small["evaluate", "full"][2] if "evaluation/" in f]


@pytest.mark.parametrize("what", ["convert", "train"])
def test_files_that_may_not_grow_are_one_line_and_then_it_goes_on(outcomes, what):
    check(outcomes[what, "limited"], errno.EFBIG)
    code, said, _ = outcomes[what, "again"]
    assert code == 0, said


def test_a_fault_is_found_behind_other_errors_and_in_tensorflow_s():
    full = OSError(errno.ENOSPC, "No space left on device", "/a/b")
    outer = OSError("44 % accuracy\nThis could not be kept")
    outer.__cause__ = full
    assert disk_faults.find(outer) == disk_faults.Fault(errno.ENOSPC, "/a/b", "No space left on device")
    other = tf.errors.ResourceExhaustedError(None, None, "/c/state.data; No space left on device")
    assert disk_faults.find(other)[:2] == (errno.ENOSPC, "/c/state.data")
    memory = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    assert disk_faults.find(memory) is None
    assert disk_faults.find(ValueError("No space left on device")) is None
    assert disk_faults.find(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None


def test_a_fault_that_another_process_told_is_an_error_again():
    fault = disk_faults.Fault(errno.EROFS, "/a b/c", "Read-only file system")
    error = disk_faults.said(f"step 3\ntf_lwdgh.train: {fault}. Nothing …", "/run")
    assert disk_faults.find(error) == fault
    assert disk_faults.said("", "/run").filename == "/run"


def test_the_code_tells_where_nothing_can_be_printed(tmp_path):
    lines = (
        "from tf_lwdgh import command_line\n"
        "with command_line.clean_errors('x'):\n"
        "    print('much'); raise OSError(28, 'No space left on device')\n"
    )
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", lines], stdout=full, stderr=full, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert done.returncode == command_line.DISK_FAULT
