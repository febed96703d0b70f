# SPDX-License-Identifier: Apache-2.0
"""The profile of a run: it holds the steps that were asked for, and changes none of them."""

from __future__ import annotations

import io
import json
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from tests import tiny
from tf_lwdgh.runs.profiling import EVENT, Profiler, choose_steps
from tf_lwdgh.runs.progress import Progress
from tf_lwdgh.runs.summaries import read_metrics
from tf_lwdgh.runs.trainer import Trainer

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the data set."""
    path = tmp_path_factory.mktemp("profiling")
    tiny.write_patterns(path / "data")
    return path


@pytest.fixture(scope="module")
def plain(folder):
    """A run of 12 steps without a profile."""
    _train(folder, "plain", profile=False)
    return folder / "plain"


@pytest.fixture(scope="module")
def profiled(folder):
    """The same with one, and what it printed."""
    printed = _train(folder, "profiled")
    return folder / "profiled", printed


def _train(folder, name, *, profile=True, stop=lambda: False, spoil_at=None) -> str:
    assembly = tiny.build(folder, "TrainerConfig.validate_every = 0")
    trainer = Trainer(assembly, str(folder / name))
    step, printed = trainer.meta_step, io.StringIO()

    def spoiled(episodes, number):
        if int(number) == spoil_at:
            raise KeyboardInterrupt
        return step(episodes, number)

    trainer.meta_step = spoiled
    progress = Progress(total=12, done=trainer.at.step, tasks_per_step=3, stream=printed)
    trainer.run(stop=stop, progress=progress, profile=profile)
    return printed.getvalue()


def _profiles(run_dir) -> list[pathlib.Path]:
    return sorted(run_dir.glob("plugins/profile/*/*.xplane.pb"))


def _events(path) -> list[tuple[str, int, int, dict[str, int]]]:
    """(name, start, end, whole-number statistics) of every event on the host; times in ps."""
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    (plane,) = [p for p in space.planes if p.name == "/host:CPU"]
    found = []
    for line in plane.lines:
        for event in line.events:
            start = 1000 * line.timestamp_ns + event.offset_ps
            stats = {plane.stat_metadata[s.metadata_id].name: s.int64_value for s in event.stats}
            name = plane.event_metadata[event.metadata_id].name
            found.append((name, start, start + event.duration_ps, stats))
    return found


def _steps(path) -> list[int]:
    return [stats["step_num"] for name, *_, stats in _events(path) if name == EVENT]


def _weights(run_dir) -> dict[str, object]:
    manifest = json.loads((run_dir / "checkpoints/step-00000012/manifest.json").read_text())
    return manifest["files"]["state.data-00000-of-00001"]


def _lines(run_dir):
    """metrics.jsonl without what a clock measured."""
    return [
        {k: v for k, v in line.items() if not k.startswith("speed/")}
        for line in read_metrics(run_dir)
    ]


def _assert_stopped(tmp_path) -> None:
    tf.profiler.experimental.start(str(tmp_path))  # raises where one is running
    tf.profiler.experimental.stop(save=False)


@pytest.mark.parametrize(
    "done, total, steps",
    [
        (0, 100, range(10, 15)),
        (195, 1000, range(205, 210)),
        (0, 15, range(10, 15)),
        (0, 12, range(7, 12)),
        (9, 12, range(10, 12)),
        (0, 2, range(1, 2)),
    ],
)
def test_the_steps_are_after_the_first_of_this_start(done, total, steps):
    assert choose_steps(done, total) == steps


@pytest.mark.parametrize("done, total", [(0, 1), (11, 12), (12, 12)])
def test_a_run_without_a_second_step_has_nothing_to_profile(done, total):
    with pytest.raises(ValueError, match=f"--profile needs .*{total - done} of {total} are left"):
        choose_steps(done, total)


def test_the_profile_holds_the_steps_by_the_numbers_of_the_log(profiled):
    (path,) = _profiles(profiled[0])
    assert _steps(path) == [8, 9, 10, 11, 12]


def test_every_step_holds_its_operations_and_the_wait_for_its_batch(profiled):
    (path,) = _profiles(profiled[0])
    events = _events(path)
    for _, start, end, _ in [e for e in events if e[0] == EVENT]:
        inside = {name for name, a, b, _ in events if start <= a and b <= end}
        assert any("Conv2D" in name for name in inside)
        assert any("IteratorGetNext" in name for name in inside)


def test_tensorboard_finds_the_profile_beside_the_events(profiled):
    run_dir, _ = profiled
    assert list(run_dir.glob("events.out.tfevents.*"))


def test_one_line_says_where_the_profile_is_and_what_shows_it(profiled):
    run_dir, printed = profiled
    (line,) = [line for line in printed.splitlines() if "profile" in line]
    (path,) = _profiles(run_dir)
    assert line.startswith(f"steps 8 to 12 are profiled in {path.parent}; ")
    assert f"tensorboard --logdir={run_dir} " in line and "pip install xprof" in line


def test_a_profile_changes_no_bit_of_the_training(plain, profiled):
    assert _weights(profiled[0]) == _weights(plain)
    assert _lines(profiled[0]) == _lines(plain)


def test_profiled_steps_do_not_count_as_speed(plain, profiled):
    def with_speed(run_dir):
        return [i["step"] for i in read_metrics(run_dir) if "speed/tasks_per_second" in i]

    assert with_speed(plain) == list(range(2, 13))
    assert with_speed(profiled[0]) == list(range(2, 8))
    assert not _profiles(plain)


@pytest.mark.slow
def test_a_stop_ends_the_profile_and_the_rest_of_the_run_can_be_profiled(folder, plain, tmp_path):
    asked = iter([False] * 8 + [True])
    printed = _train(folder, "stopped", stop=lambda: next(asked))
    assert "steps 8 to 9 are profiled" in printed and "stopped at step 9" in printed
    _assert_stopped(tmp_path)
    assert "steps 11 to 12 are profiled" in _train(folder, "stopped")
    assert [_steps(path) for path in _profiles(folder / "stopped")] == [[8, 9], [11, 12]]
    assert _weights(folder / "stopped") == _weights(plain)


@pytest.mark.slow
def test_an_error_ends_the_profile_and_keeps_the_steps_before_it(folder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _train(folder, "interrupted", spoil_at=9)
    _assert_stopped(tmp_path)
    (path,) = _profiles(folder / "interrupted")
    assert _steps(path)[:2] == [8, 9]


@pytest.mark.slow
def test_without_a_whole_step_no_profile_is_kept(folder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _train(folder, "spoiled", spoil_at=7)
    _assert_stopped(tmp_path)
    assert not _profiles(folder / "spoiled")


def test_a_profile_that_cannot_be_written_does_not_end_the_run(tmp_path):
    (tmp_path / "plugins").write_text("no folder")
    notes, after = [], []
    with Profiler(tmp_path, range(1, 3), notes.append) as profiler:
        for number in range(4):
            with profiler.step(number):
                after.append(number)
    assert after == [0, 1, 2, 3]
    assert len(notes) == 1 and notes[0].startswith("the profile could not be written: ")
    _assert_stopped(tmp_path)


def test_no_steps_do_nothing(tmp_path):
    with Profiler(tmp_path, range(0), print) as profiler, profiler.step(0):
        _assert_stopped(tmp_path / "other")
    assert not (tmp_path / "plugins").exists()


def _command(folder, name, *gin_params) -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            sys.executable, "-m", "tf_lwdgh.train", f"--gin_file={tiny.write_gin(folder)}",
            "--profile", f"--run_dir={name}", *(f"--gin_param={p}" for p in gin_params),
        ],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip


def test_the_flag_profiles_a_run(folder):
    done = _command(folder, "flag", "EPOCHS = 1")
    assert done.returncode == 0, done.stderr
    assert "steps 2 to 4 are profiled in flag/plugins/profile/" in done.stderr
    assert "step 4/4: " in done.stderr and "rofiler session" not in done.stderr
    (path,) = _profiles(folder / "flag")
    assert _steps(path) == [2, 3, 4]


def test_nothing_to_profile_is_said_before_the_run(folder):
    done = _command(folder, "short", "EPOCHS = 1", "STEPS_PER_EPOCH = 1")
    assert done.returncode == 2
    assert "--profile needs at least two steps" in done.stderr and "Traceback" not in done.stderr
    assert "building the graph" not in done.stderr
