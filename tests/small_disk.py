# SPDX-License-Identifier: Apache-2.0
"""Runs commands on a disk that is full, read-only or refuses large files, and then again on a good one.

    python -m tests.small_disk FOLDER                               (a limit on the size of files)
    unshare --map-root-user --mount python -m tests.small_disk FOLDER mount     (a disk of its own too)

FOLDER has data/, tiny.gin and raw/; FOLDER/disk is written to. A mounted disk is seen by this process
and its children alone, and goes with them. Prints [[what, how, exit code, output, files], …] as JSON.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

from tests import forked_commands

COMMANDS = {
    "convert": ["converters", "folder", "--source=raw", "--data_dir=disk/data", "--name=x"],
    "train": ["train", "--gin_file=tiny.gin", "--run_dir=disk/run", "--gin_param=EPOCHS = 2"],
    "evaluate": ["evaluate", "--run_dir=disk/run", "--gin_param=Evaluation.n_tasks = 5"],
    "export": ["export", "--run_dir=disk/run", "--output=disk/exported"],
}
_ROOM = 64  # MB of the disk
_FREE = {"convert": 4096, "train": 75_000, "evaluate": 0, "export": 20_000}  # bytes left of a full one
_LARGEST = {"convert": 2000, "train": 4000}  # bytes of a file


def mount(disk: pathlib.Path, options: str) -> None:
    """Mounts, or changes, the disk."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(disk)], check=True)


def fill(disk: pathlib.Path, leave: int) -> pathlib.Path:
    """A file that takes all room but so many bytes."""
    filler = disk / "filler"
    state = os.statvfs(disk)
    with open(filler, "wb", buffering=0) as file:
        file.write(bytes(max(0, state.f_bavail * state.f_frsize - leave)))
    return filler


def listing(disk: pathlib.Path) -> list[str]:
    """Every file there."""
    return sorted(str(p.relative_to(disk)) for p in disk.rglob("*") if p.is_file())


class Runs:
    """The commands' outcomes."""

    def __init__(self, disk: pathlib.Path) -> None:
        self.disk, self.report = disk, []

    def run(self, what: str, how: str, largest: int | None = None) -> None:
        """Runs one command and notes what came of it."""
        module, *line = COMMANDS[what]
        code, said = forked_commands.run(f"tf_lwdgh.{module}", line, largest)
        self.report.append([what, how, code, said, listing(self.disk)])


def on_a_small_disk(runs: Runs) -> None:
    """Every command on the full disk and again; two of them on the read-only one between."""
    mount(runs.disk, f"size={_ROOM}m")
    for what in COMMANDS:
        filler = fill(runs.disk, _FREE[what])
        runs.run(what, "full")
        filler.unlink()
        if what in ("convert", "evaluate"):
            mount(runs.disk, "remount,ro")
            runs.run(what, "read-only")
            mount(runs.disk, f"remount,rw,size={_ROOM}m")
        runs.run(what, "again")


def with_small_files(runs: Runs, *, again: bool) -> None:
    """Commands under a limit on the size of files, and again without."""
    for what, largest in _LARGEST.items():
        runs.run(what, "limited", largest)
        if again:
            runs.run(what, "again")


if __name__ == "__main__":
    import tf_lwdgh.runs.judge
    import tf_lwdgh.runs.trainer
    import tf_lwdgh.serving.saved_models  # noqa: F401

    os.chdir(sys.argv[1])
    pathlib.Path("disk").mkdir(exist_ok=True)
    made = Runs(pathlib.Path("disk"))
    mounted = sys.argv[2:] == ["mount"]
    with_small_files(made, again=not mounted)
    if mounted:
        on_a_small_disk(made)
    json.dump(made.report, sys.stdout)
