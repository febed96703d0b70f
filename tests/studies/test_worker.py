# SPDX-License-Identifier: Apache-2.0
"""A job in its processes: done, failed, diverged, stopped, killed; and many of them side by side."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from tests.studies import tiny_studies
from tests.studies.tiny_studies import EVALUATE, TRAIN, fake_job
from tf_lwdgh.runs.run_lock import run_lock
from tf_lwdgh.studies import local, results, worker
from tf_lwdgh.studies.worker import Stop

# Works until it is told to stop, as training does, and says so.
PATIENT = """
import os, signal, sys, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
open(os.path.join(sys.argv[1], 'began'), 'a').write(str(os.getpid()) + ' ')
while not told:
    time.sleep(0.02)
open(os.path.join(sys.argv[1], 'saved'), 'w').close()
"""


def log(job):
    with open(os.path.join(job.run_dir, worker.LOG), encoding="utf-8") as file:
        return file.read()


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_job_is_trained_judged_and_kept(tmp_path):
    job = fake_job(tmp_path)
    result = worker.run(job, 10)
    assert result.state == results.DONE and result.accuracies.tolist() == [0.25, 0.75]
    assert result.measured["seconds_per_step"] == 0.5 and result.measured["gci"] == 2.0
    assert result.losses == [0.2, 0.1]
    assert results.read(job.result_path).about == result.about
    assert log(job).split() == ["trained", "judged"]


@pytest.mark.parametrize("code, state", [(3, results.DIVERGED), (2, results.FAILED), (1, results.FAILED)])
def test_what_fails_is_kept_with_its_last_words(tmp_path, code, state):
    train = f"import sys; print('much'); print('train: the loss is nan', file=sys.stderr); sys.exit({code})"
    job = fake_job(tmp_path, train=train)
    result = worker.run(job, 10)
    assert result.state == state and result.message.endswith("the loss is nan")
    assert results.read(job.result_path).message == result.message


def test_a_full_disk_is_no_outcome_of_a_job_and_ends_the_study(tmp_path):
    said = "x: cannot write '/d/f': No space left on device (errno 28); 0 bytes are free"
    full = f"import sys; print({said!r}, file=sys.stderr); sys.exit(4)"
    first, second = fake_job(tmp_path, "a", train=full), fake_job(tmp_path, "b")
    with pytest.raises(OSError, match="No space left on device: '/d/f'"):
        worker.run(first, 10)
    stop = Stop()
    with pytest.raises(OSError, match="No space left on device: '/d/f'"):
        local.run(
            {first: 10, second: 10}, shares=[local.Slot()], started=lambda _: None,
            ended=worker.keep_outcome, watch=lambda: None, stop=stop,
        )  # fmt: skip
    assert stop.asked.is_set() and results.read(first.result_path) is None


def test_a_job_killed_from_outside_fails_and_says_so(tmp_path):
    job = fake_job(tmp_path, train="import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    result = worker.run(job, 10)
    assert result.state == results.FAILED and "exit code -9" in result.message


def test_a_judge_that_fails_fails_the_job(tmp_path):
    job = fake_job(tmp_path, evaluate="raise SystemExit('no such split')")
    assert worker.run(job, 10).message == "no such split" or "no such split" in log(job)
    assert results.read(job.result_path).state == results.FAILED


def test_a_job_that_is_asked_to_stop_saves_and_leaves_no_result(tmp_path):
    job, stop = fake_job(tmp_path, train=PATIENT), Stop()
    timer = threading.Timer(0.1, lambda: (wait_for(began), stop.asked.set()))
    began = lambda: os.path.exists(os.path.join(job.run_dir, "began"))  # noqa: E731
    timer.start()
    with pytest.raises(worker.Stopped):
        worker.run(job, 10, stop=stop)
    assert os.path.exists(os.path.join(job.run_dir, "saved"))
    assert results.read(job.result_path) is None


def test_a_training_that_stopped_early_is_not_judged(tmp_path):
    job = fake_job(tmp_path, train=TRAIN.format(steps=5))
    with pytest.raises(worker.Stopped):
        worker.run(job, 10)
    assert log(job).split() == ["trained"]


def test_stop_at_once_kills(tmp_path):
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    job, stop = fake_job(tmp_path, train=stubborn), Stop()
    threading.Timer(0.3, stop.asked.set).start()
    threading.Timer(0.6, stop.at_once.set).start()
    begin = time.monotonic()
    with pytest.raises(worker.Stopped):
        worker.run(job, 10, stop=stop)
    assert time.monotonic() - begin < 20


def test_a_job_waits_until_its_run_is_free(tmp_path):
    job = fake_job(tmp_path)
    with run_lock(job.run_dir):
        thread = threading.Thread(target=worker.run, args=(job, 10))
        thread.start()
        time.sleep(0.5)
        assert not os.path.exists(os.path.join(job.run_dir, worker.LOG))
    thread.join(30)
    assert results.read(job.result_path).state == results.DONE


def test_training_stops_with_the_process_that_began_it(tmp_path):
    """stop_on_signal in a grandchild, whose parent is killed."""
    child = textwrap.dedent(
        f"""
        import os, time
        from tf_lwdgh import command_line
        stop = command_line.stop_on_signal()
        open({str(tmp_path / "began")!r}, 'w').close()
        while not stop():
            time.sleep(0.02)
        open({str(tmp_path / "saved")!r}, 'w').close()
        """
    )
    parent = textwrap.dedent(
        f"""
        import subprocess, sys
        from tf_lwdgh.studies import worker
        subprocess.Popen([sys.executable, '-c', {child!r}], env=worker.environment()).wait()
        """
    )
    process = subprocess.Popen([sys.executable, "-c", parent], env=worker.environment())
    wait_for((tmp_path / "began").exists, 60)
    assert not (tmp_path / "saved").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for((tmp_path / "saved").exists)


class Watched:
    """What an executor tells."""

    def __init__(self):
        self.began, self.results = [], {}

    def ended(self, job, result):
        self.results[job.method] = result

    def run(self, jobs, shares, stop=None):
        local.run(
            dict.fromkeys(jobs, 10), shares=shares, started=lambda j: self.began.append(j.method),
            ended=self.ended, watch=lambda: None, stop=stop or Stop(),
        )  # fmt: skip


def test_jobs_run_in_order_and_one_that_fails_holds_up_no_other(tmp_path):
    jobs = [fake_job(tmp_path, "a"), fake_job(tmp_path, "b", train="raise SystemExit(3)"),
            fake_job(tmp_path, "c")]  # fmt: skip
    watched = Watched()
    watched.run(jobs, local.slots(1))
    assert watched.began == ["a", "b", "c"]
    states = {name: r.state for name, r in watched.results.items()}
    assert states == {"a": results.DONE, "b": results.DIVERGED, "c": results.DONE}


def test_jobs_run_side_by_side_each_on_its_share_of_the_cores(tmp_path):
    meet = (
        "import json, os, sys, time\n"
        "here = sys.argv[1]\n"
        "json.dump(sorted(os.sched_getaffinity(0)), open(os.path.join(here, 'cores'), 'w'))\n"
        "other = here.replace('/a/', '/x/').replace('/b/', '/a/').replace('/x/', '/b/')\n"
        "end = time.time() + 30\n"
        "while not os.path.exists(os.path.join(other, 'cores')) and time.time() < end:\n"
        "    time.sleep(0.02)\n"
        "assert time.time() < end, 'alone'\n"
    )
    jobs = [fake_job(tmp_path, name, train=meet + TRAIN.format(steps=10)) for name in ("a", "b")]
    watched = Watched()
    shares = local.slots(2)
    watched.run(jobs, shares)
    assert {r.state for r in watched.results.values()} == {results.DONE}
    if hasattr(os, "sched_getaffinity"):
        used = [json.loads((pathlib.Path(j.run_dir) / "cores").read_text(encoding="utf-8")) for j in jobs]
        assert sorted(used) == sorted(sorted(s.cores) for s in shares)
        assert os.sched_getaffinity(0) >= set(used[0]) | set(used[1])  # this thread's are as before


def test_a_stop_ends_what_runs_and_begins_nothing_new(tmp_path):
    jobs = [fake_job(tmp_path, name, train=PATIENT) for name in ("a", "b")]
    watched, stop = Watched(), Stop()
    began = os.path.join(jobs[0].run_dir, "began")
    threading.Thread(target=lambda: (wait_for(lambda: os.path.exists(began)), stop.asked.set())).start()
    watched.run(jobs, local.slots(1), stop)
    assert all(isinstance(r, worker.Stopped) for r in watched.results.values())
    assert watched.began == ["a"] and os.path.exists(os.path.join(jobs[0].run_dir, "saved"))


def test_cores_are_shared_out_and_gpus_taken_in_turn():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    for n in (1, 2, 3, cores + 1):
        shares = local.slots(n)
        assert len(shares) == n
        if cores:
            assert set().union(*(s.cores for s in shares)) == os.sched_getaffinity(0)
            assert all(s.cores for s in shares)
    assert [s.variables for s in local.slots(3, gpus=2)] == [
        {"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}, {"CUDA_VISIBLE_DEVICES": "0"}
    ]  # fmt: skip
    with pytest.raises(ValueError, match="--jobs must be at least 1. Received: --jobs=0"):
        local.slots(0)


def test_a_damaged_result_is_named(tmp_path):
    job = fake_job(tmp_path)
    os.makedirs(os.path.dirname(job.result_path))
    with open(job.result_path, "w", encoding="utf-8") as file:
        file.write('{"setting": ')
    with pytest.raises(ValueError, match="is no whole result"):
        results.read(job.result_path)


def test_made_up_commands_are_the_real_ones_with_other_names():
    real = tiny_studies.Job(**{f: getattr(fake_job("."), f) for f in (
        "setting", "method", "seed", "gin_files", "gin_params", "evaluation", "checkpoint", "data_dir",
        "out", "directory",
    )})  # fmt: skip
    assert real.train_command(2)[1:3] == ["-m", "tf_lwdgh.train"]
    assert "--gin_param=Threads.inter_op = 2" in real.train_command(2)
    assert "--checkpoint=last" in real.evaluate_command() and EVALUATE not in real.evaluate_command()
