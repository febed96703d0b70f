# SPDX-License-Identifier: Apache-2.0
"""The entry points as a user meets them: help, clean errors, training, evaluation and comparison."""

from __future__ import annotations

import argparse
import glob
import importlib
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from absl import flags

from tests import tiny
from tf_lwdgh import command_line
from tf_lwdgh.outer.evaluation import EvaluationResult
from tf_lwdgh.runs import judge
from tf_lwdgh.runs.progress import Progress, duration

ROOT = pathlib.Path(__file__).parent.parent


def _run(folder, module, *arguments) -> subprocess.CompletedProcess:
    usual = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-m", f"tf_lwdgh.{module}", *arguments],
        cwd=folder, env={**usual, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data/, tiny.gin and two trained runs, the second of plain MAML."""
    path = tmp_path_factory.mktemp("commands")
    tiny.write_patterns(path / "data")
    tiny.write_gin(path)
    (path / "self.gin").write_text("include 'self.gin'\n", encoding="utf-8")
    (path / "binary.gin").write_bytes(b"\x80\xff\0")
    shared = ("--gin_file=tiny.gin", "--gin_param=EPOCHS = 1")
    first = _run(path, "train", *shared)
    assert first.returncode == 0, first.stderr
    assert not re.search("oneDNN|cuInit|^[EIW]0000", first.stderr, re.MULTILINE), first.stderr
    assert "evaluate:    python -m tf_lwdgh.evaluate --run_dir=runs/tiny" in first.stdout
    mean = "--gin_file=gin/aggregators/mean.gin"
    second = _run(path, "train", *shared, mean, "--run_dir=runs/maml")
    assert second.returncode == 0, second.stderr
    return path


PROGRAMS = ("train", "evaluate", "export", "predict", "study", "doctor")


@pytest.mark.parametrize("module", ["train", "evaluate", "study"])
def test_help_teaches_by_examples(tmp_path, module):
    done = _run(tmp_path, module, "--help")
    assert "Examples:" in done.stdout
    place = "--out" if module == "study" else "--run_dir"
    for word in (f"python -m tf_lwdgh.{module} --", "--gin_param", place, "--data_dir"):
        assert word in done.stdout


EXAMINED = ("gin_file", "run_dir", "model")  # of which the doctor takes several


def test_a_flag_of_one_name_says_the_same_in_every_program():
    said: dict[str, set[str]] = {}
    for program in PROGRAMS:
        before = set(flags.FLAGS)
        module = importlib.import_module(f"tf_lwdgh.{program}")
        module.define_flags()
        assert "Examples:\n" in module.__doc__ and f"python -m tf_lwdgh.{program} " in module.__doc__
        for name in set(flags.FLAGS) - before:
            flag = flags.FLAGS[name]
            if program != "doctor" or name not in EXAMINED:
                said.setdefault(name, set()).add(f"{flag.flag_type()} {flag.default} {flag.help}")
            delattr(flags.FLAGS, name)
    assert len(said) > 25 and {"run_dir", "gin_file", "gin_param", "data_dir", "checkpoint", "csv"} <= set(said)
    assert not {name: texts for name, texts in said.items() if len(texts) > 1}


MISTAKES = [
    ("train", [], "tf_lwdgh.train: --gin_file is missing. Example: python"),
    ("train", ["--gin_file=no.gin"], "no such file. Received: 'no.gin'"),
    ("train", ["--gin_file=self.gin"], "must not include itself"),
    ("train", ["--gin_file=binary.gin"], "must be a text file in UTF-8"),
    ("train", ["--gin_file=tiny.gin", "--gin_param=INNER_LR = %INNER_LR"], "must not refer to itself"),
    ("train", ["--gin_file=tiny.gin", "more"], "no such argument: more"),
    ("train", ["--gin_file=tiny.gin", "--data_dir=no"], "No data set 'patterns'"),
    ("train", ["--gin_file=tiny.gin", "--gin_param=LWDG.unit=1"], "Did you mean LWDGH"),
    ("train", ["--gin_file=tiny.gin", "--gin_param=Mean.unit='layer'"], "nothing .* uses Mean.unit"),
    ("train", ["--gin_file=tiny.gin", "--gin_param=SEED=4"], "Experiment.seed: was 0, now 4"),
    (
        "train",
        ["--gin_file=tiny.gin", "--gin_param=DatasetConfig.name = photos"],
        "quote it: DatasetConfig.name = 'photos'",
    ),  # fmt: skip
    (
        "train",
        ["--gin_file=tiny.gin", "--gin_param=Experiment.learner = @convnet4"],
        "Received: .*learner = @convnet4[.]",
    ),  # fmt: skip
    ("train", ["--gin_file=tiny.gin", "--gin_param=Experiment.backbone = @MAML()"], "Received: .*backbone = MAML"),
    ("train", ["--gin_file=tiny.gin", "--gin_param=Experiment.optimizer = 3"], "Experiment.optimizer must be"),
    (
        "train",
        ["--gin_file=tiny.gin", "--gin_param=Evaluation.n_query = 99"],
        "on split 'test' .*class 'test-0' has 12",
    ),  # fmt: skip
    ("evaluate", ["--run_dir=runs/tiny", "--gin_param=N_WAY = 2"], "stay the training's 3.*Bind Evaluation.n_way = 2"),
    ("export", ["--run_dir=runs/tiny", "--output=out", "--gin_param=N_WAY = 2"], "Bind Evaluation.n_way = 2"),
    ("predict", [], "--model is missing"),
    ("predict", ["--model=no", "--support=a", "--query=b"], "--model must be a folder that tf_lwdgh.export wrote"),
    ("predict", ["--model=no", "a", "b"], "needs quotes"),
    ("evaluate", [], "--run_dir is missing"),
    ("evaluate", ["--run_dir=no"], "must be a folder that .*Received: 'no'"),
    ("evaluate", ["--run_dir=runs/tiny", "--checkpoint=first"], "must be one of best, last"),
    ("evaluate", ["--run_dir=runs/tiny", "--read_tasks=no.json"], "no such task list"),
    ("evaluate", ["--run_dir=runs/tiny", "--gin_param=Evaluation.n_query=99"], "k_shot = 1"),
    ("evaluate", ["--run_dir=runs/tiny", "--compare=runs/tiny"], "--compare must name other runs"),
    ("evaluate", ["--run_dir=runs/tiny", "--datasets=patterns,no"], "No data set 'no'.*there: patterns"),
]


@pytest.fixture(scope="module")
def mistakes(folder) -> list[tuple[int, str]]:
    """What each of MISTAKES came to: exit code and standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.forked_commands"],
        input=json.dumps([case[:2] for case in MISTAKES]), cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", range(len(MISTAKES)), ids=[m[2] for m in MISTAKES])
def test_what_the_user_can_mend_is_one_message_and_exit_code_2(mistakes, case):
    (code, said), message = mistakes[case], MISTAKES[case][2]
    assert code == command_line.USER_ERROR, said
    assert re.search(message, said.replace("\n", " ")), said
    assert "Traceback" not in said and "In call to configurable" not in said and " at 0x" not in said


def test_start_up_chatter_stays_off_the_terminal(folder):
    done = _run(folder, "train", "--gin_file=tiny.gin", "--gin_param=EPOCHS = 1")
    assert "oneDNN" not in done.stderr and "cuInit" not in done.stderr
    assert "all 4 steps are done" in done.stderr


def test_an_evaluation_prints_all_that_a_number_needs_and_keeps_every_task(folder):
    done = _run(
        folder, "evaluate", "--run_dir=runs/tiny", "--gin_param=Evaluation.n_tasks = 20",
        "--compare=runs/maml", "--write_tasks=tasks.json.gz",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    (first,) = [line for line in said if line.startswith("runs/tiny:")]
    for word in ("runs/tiny:", " ± ", "20 test tasks of patterns", "3-way 1-shot", "3 queries a class",
                 "2 inner steps", "BatchNorm transductive", "best checkpoint, step 4"):  # fmt: skip
        assert word in first
    for word in ("calibration: ECE ", "seconds a task", "worst classes: ", "most confused: "):
        assert sum(line.startswith(f"  {word}") for line in said) == 2, word  # of each run
    assert sum(line.startswith("| runs/maml | ") and "paired over 20 tasks" in line for line in said) == 1
    (file,) = glob.glob(str(folder / "runs/tiny/evaluation/test_3way1shot_2steps_*.json"))
    content = json.loads(pathlib.Path(file).read_text())
    assert len(content["accuracies"]) == 20
    assert f"{100 * content['accuracy']:.2f}" in first

    again = _run(
        folder, "evaluate", "--run_dir=runs/tiny", "--read_tasks=tasks.json.gz",
        "--gin_param=MAML.batch_norm = 'inductive'",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "20 test tasks" in again.stdout and "BatchNorm inductive" in again.stdout


@pytest.mark.parametrize(
    "shown, plain",
    [
        (repr(_run), "@_run"), (repr(argparse.ArgumentParser.error), "@error"), (repr(Progress), "@Progress"),
        (repr(object()), "@object()"), (repr(threading.Lock()), "<unlocked _thread.lock object>"),
    ],
    ids=["function", "method", "class", "object", "lock"],
)  # fmt: skip
def test_messages_hold_no_address(capsys, shown, plain):
    with pytest.raises(SystemExit):
        command_line.fail("p", f"x must be y. Received: x = {shown}.", 2)
    assert capsys.readouterr().err == f"p: x must be y. Received: x = {plain}.\n"


def test_gin_s_call_trace_is_cut_but_its_place_is_kept(capsys):
    text = "Bad.\n  In file \"a.gin\", line 2\n    x = 3\n  In call to configurable 'X' (<class>)"
    with pytest.raises(SystemExit) as left:
        command_line.fail("p", text, 2)
    assert left.value.code == 2
    assert capsys.readouterr().err == 'p: Bad.\n  In file "a.gin", line 2\n    x = 3\n'


@pytest.mark.parametrize(
    "line",
    [
        "I0000 00:00:1764108701.1 7 port.cc:153] oneDNN custom operations are on. You may see slightly different",
        "2026-11-25 23:51:41.1: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on. You may",
        "E0000 00:00:1764108701.1 7 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error",
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    ],
)
def test_what_tensorflow_says_as_it_starts_is_known(line):
    assert command_line._CHATTER.search(line)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_with_values_and_time_left():
    stream = _Terminal()
    with Progress(total=10, done=4, tasks_per_step=2, stream=stream) as progress:
        progress.advance(3)
        progress.report(tasks_per_second=8.0, loss=1.25, accuracy=0.5)
    last = stream.getvalue().split("\r")[-1]
    assert "7/10" in last and "loss 1.250, accuracy 50.0 %, 8.0 tasks/s" in last and "<" in last


def test_a_plain_line_gives_the_time_left_by_the_speed():
    stream = io.StringIO()
    progress = Progress(total=10, done=4, tasks_per_step=2, stream=stream)
    progress.advance(1)
    progress.report(tasks_per_second=0.1, loss=1.0)
    assert stream.getvalue() == "step 5/10: loss 1.000, 0.1 tasks/s, 1:40 left\n"


@pytest.mark.parametrize("seconds, text", [(5, "0:05"), (65, "1:05"), (3723, "1:02:03")])
def test_durations_read_like_clocks(seconds, text):
    assert duration(seconds) == text


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs /proc")
def test_an_interrupt_while_tensorflow_is_imported_is_no_traceback(folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "tf_lwdgh.evaluate", "--run_dir=runs/tiny"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    maps = pathlib.Path(f"/proc/{process.pid}/maps")
    while "libtensorflow" not in maps.read_text():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said and said.rstrip().endswith("interrupted")


AT_WORK = """
import sys, time
from tf_lwdgh import command_line
with command_line.clean_errors('p'):
    stop = command_line.stop_on_signal() if sys.argv[1] == 'saves' else lambda: False
    try:
        print('at work', flush=True)
        while not stop():
            time.sleep(0.01)
    finally:
        print('clearing up', flush=True)
        time.sleep(float(sys.argv[2]))
"""


def _interrupted(how: str, times: int, clearing: float, first: int = signal.SIGINT) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command that gets so many Ctrl-C, or another signal first."""
    process = subprocess.Popen(
        [sys.executable, "-c", AT_WORK, how, str(clearing)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    said = [process.stdout.readline()]
    process.send_signal(first)
    if times == 2:
        said.append(process.stderr.readline() if how == "saves" else process.stdout.readline())
        said.append(process.stderr.readline() if how == "saves" else "")
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, "".join(said) + out, err


def test_a_first_interrupt_clears_up_and_is_no_traceback():
    code, out, err = _interrupted("works", 1, 0.0)
    assert (code, err) == (command_line.INTERRUPTED, "p: interrupted\n") and "clearing up" in out


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_saves_ends_its_work_when_it_is_told_to_stop(first):
    code, out, err = _interrupted("saves", 1, 0.0, first)
    assert code == 0 and "clearing up" in out
    assert err == "\nstopping at the end of this window; once more to stop at once\n"


@pytest.mark.parametrize("how", ["works", "saves"])
def test_a_second_interrupt_leaves_at_once_without_a_traceback(how):
    code, said, err = _interrupted(how, 2, 600.0)
    assert code == command_line.INTERRUPTED and err == "interrupted\n", err
    assert ("once more to stop at once" in said) == (how == "saves")


def test_an_evaluation_that_could_not_be_kept_says_so_before_it_runs(folder, monkeypatch):
    run = folder / "runs/tiny"
    os.rename(run / "evaluation", run / "away")
    (run / "evaluation").write_text("no folder", encoding="utf-8")
    monkeypatch.setattr(judge._Job, "run", lambda *_: pytest.fail("the tasks ran"))
    try:
        with pytest.raises(OSError, match="evaluation"):
            judge.judge(run, data_dir=folder / "data", show=False)
    finally:
        (run / "evaluation").unlink()
        os.rename(run / "away", run / "evaluation")


def test_an_evaluation_whose_file_cannot_be_written_in_the_end_is_not_lost(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EvaluationResult, "write", full)
    with pytest.raises(OSError, match=r"% accuracy over 5 test tasks.*\n.*No space left"):
        judge.judge(
            folder / "runs/tiny", data_dir=folder / "data", show=False,
            gin_params=["Evaluation.n_tasks = 5"],
        )  # fmt: skip
