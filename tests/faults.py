# SPDX-License-Identifier: Apache-2.0
"""What may go wrong, tried at length: every trial says what was promised, and what happened.

    make test-faults
    python -m tests.faults --only=kills,endurance

The tests hold the same promises in their short forms; this takes about half an hour.
"""

from __future__ import annotations

import argparse
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence

from tests.memory import resident_bytes
from tf_lwdgh import command_line

ROOT = pathlib.Path(__file__).parents[1]
Trial = Callable[[pathlib.Path], str]  # a folder of its own -> what happened


def _train(folder: pathlib.Path, name: str, *gin_params: str) -> list[str]:
    return [
        sys.executable, "-m", "tf_lwdgh.train", f"--gin_file={folder / 'tiny.gin'}",
        f"--run_dir={folder / name}", f"--data_dir={folder / 'data'}",
        *(f"--gin_param={p}" for p in gin_params),
    ]  # fmt: skip


def _prepare(folder: pathlib.Path) -> None:
    from tests import tiny

    tiny.write_patterns(folder / "data")
    tiny.write_gin(folder)


def _same_run(a: pathlib.Path, b: pathlib.Path) -> bool:
    """Whether two runs have the same metrics but for the clock's, and the same last weights."""
    from tf_lwdgh.runs import checkpoints
    from tf_lwdgh.runs.summaries import read_metrics

    def lines(run: pathlib.Path) -> list[dict]:
        kept = read_metrics(run)
        return [{k: v for k, v in x.items() if not k.startswith("speed/")} for x in kept]

    def weights(run: pathlib.Path) -> dict:
        files = checkpoints.of_run(run).newest()["files"]
        return {name: sha for name, sha in files.items() if ".data-" in name}

    return lines(a) == lines(b) and weights(a) == weights(b)


KILLS = 20


def kills(folder: pathlib.Path) -> str:
    """20 × kill -9, half of them while a checkpoint is written: last weights and metrics equal to the bit."""
    length = ("EPOCHS = 400", "TrainerConfig.checkpoint_every = 2", "TrainerConfig.validate_every = 100")
    quiet = _whole_run(folder, length)
    draw, inside, steps = random.Random(0), 0, []
    checkpoints, metrics = folder / "killed" / "checkpoints", folder / "killed" / "metrics.jsonl"
    for n in range(KILLS):
        process = subprocess.Popen(_train(folder, "killed", *length), **quiet)
        enough = _count(metrics) + draw.randint(1, 70)
        _until(process, lambda enough=enough: _count(metrics) >= enough)
        if n % 2:
            _until(process, lambda: any(checkpoints.glob(".unfinished-*")))
        else:
            time.sleep(draw.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"
        inside += any(checkpoints.glob(".unfinished-*"))
        steps.append(_count(metrics))
    subprocess.run(_train(folder, "killed", *length), check=True, **quiet)
    assert _same_run(folder / "whole", folder / "killed"), "the runs differ"
    assert inside >= KILLS // 4, f"{inside} kills alone came inside a write"
    return f"{KILLS} kills after {steps[0]} to {steps[-1]} of 1,600 steps, {inside} inside a write: equal to the bit"


TERMINATIONS = 10


def terminations(folder: pathlib.Path) -> str:
    """10 × TERM: each saves and exits with 0 within 30 seconds, a cluster's usual patience; last weights and metrics
    equal to the bit.
    """
    length = ("EPOCHS = 400", "TrainerConfig.validate_every = 100")
    quiet = _whole_run(folder, length)
    draw, longest, steps = random.Random(0), 0.0, []
    metrics = folder / "told" / "metrics.jsonl"
    for _ in range(TERMINATIONS):
        process = subprocess.Popen(_train(folder, "told", *length), **quiet)
        enough = _count(metrics) + draw.randint(1, 70)
        _until(process, lambda enough=enough: _count(metrics) >= enough)
        told = time.monotonic()
        process.terminate()
        _, said = process.communicate()
        longest = max(longest, time.monotonic() - told)
        assert process.returncode == 0 and "Traceback" not in said, f"exit code {process.returncode}: {said}"
        steps.append(_count(metrics))
        saved = max((folder / "told" / "checkpoints").glob("step-*")).name
        assert saved == f"step-{steps[-1]:08d}", f"{saved} is not the last of {steps[-1]} steps"
    subprocess.run(_train(folder, "told", *length), check=True, **quiet)
    assert _same_run(folder / "whole", folder / "told"), "the runs differ"
    assert longest < 30, f"{longest:.1f} s from TERM to the exit"
    return (
        f"{TERMINATIONS} times TERM after {steps[0]} to {steps[-1]} of 1,600 steps, at most {longest:.1f} s to the "
        "exit: equal to the bit"
    )


def _whole_run(folder: pathlib.Path, length: Sequence[str]) -> dict:
    """Trains a run that nothing interrupts; how the others are started."""
    _prepare(folder)
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    subprocess.run(_train(folder, "whole", *length), check=True, **quiet)
    return quiet


def _count(path: pathlib.Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def _until(process: subprocess.Popen, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while process.poll() is None and not holds():
        assert time.monotonic() < end, "the run stands still"
        time.sleep(0.0005)


STEPS = 50_000


def endurance(folder: pathlib.Path) -> str:
    """50,000 meta-steps: memory flat within 5 % after the first 1,000 and its median within 1 % after a fifth; one
    trace, two checkpoints, logs bounded."""
    import io

    from tests import tiny
    from tf_lwdgh.runs.progress import Progress
    from tf_lwdgh.runs.trainer import Trainer

    assembly = tiny.build(
        folder, "META_BATCH_SIZE = 1", "N_WAY = 2", "N_QUERY = 1", "convnet4.blocks = 1",
        "STEPS_PER_EPOCH = 1000", f"EPOCHS = {STEPS // 1000}", "TrainerConfig.log_every = 100",
        "Experiment.explore = None",
    )  # fmt: skip
    trainer = Trainer(assembly, str(folder / "long"))
    sizes: dict[int, int] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            sizes[_count(folder / "long" / "metrics.jsonl") * 100] = resident_bytes()

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    try:
        trainer.run(progress=Progress(total=STEPS, tasks_per_step=1, stream=io.StringIO()))
    finally:
        done.set()
        watcher.join()
    seconds = time.monotonic() - started
    early = max(size for step, size in sizes.items() if step <= 1000)
    late = max(size for step, size in sizes.items() if step > 1000)
    usual = [_usual(sizes, k * STEPS // 5, (k + 1) * STEPS // 5) for k in range(5)]
    kept = len(list((folder / "long" / "checkpoints").iterdir()))
    logs = sum(f.stat().st_size for f in (folder / "long").rglob("events.*"))
    logs += (folder / "long" / "metrics.jsonl").stat().st_size
    assert late <= 1.05 * early, f"memory grew from {early / 2**20:.0f} to {late / 2**20:.0f} MiB"
    assert usual[-1] <= 1.01 * usual[1], f"memory grows: its medians by fifths are {usual} MiB"
    assert assembly.meta_step.traces == 1, f"{assembly.meta_step.traces} traces"
    assert kept == 2, f"{kept} checkpoints are kept"
    assert logs < 100 * 2**20, f"logs of {logs / 2**20:.0f} MiB"
    return (
        f"{STEPS:,} steps in {seconds:.0f} s; memory at most {early / 2**20:.0f} MiB in the first 1,000 steps and "
        f"{late / 2**20:.0f} afterwards, medians by fifths {usual}; "
        f"{assembly.meta_step.traces} trace; {kept} checkpoints; "
        f"logs {logs / 2**20:.1f} MiB"
    )


def _usual(sizes: dict[int, int], first: int, last: int) -> int:
    """The median in MiB, which a passing peak doesn't move."""
    return round(statistics.median(size for step, size in sizes.items() if first < step <= last) / 2**20)


BINDINGS = 2000
_VALUES = (
    None, True, False, 0, 1, -1, 3, 10**9, 2**70, 0.5, -0.5, 1.5, 1e308, float("nan"), float("inf"), "", "x",
    "a" * 3000, b"x", [], [1], ["x"], (), (0.1, 0.2), {}, {"a": 1}, {1: 2}, [[]], "'", "@", "%", "\0",
)  # fmt: skip


def bindings(folder: pathlib.Path) -> str:
    """2,000 settings of any value: built, or refused by an error that names the setting; bounded memory."""
    from tests import tiny
    from tf_lwdgh import config

    tiny.build(folder)
    known = sorted(config.settings())
    limit = resident_bytes() + (6 << 30)
    draw, taken, refused, broken = random.Random(0), 0, 0, []
    for _ in range(BINDINGS):
        name, value = draw.choice(known), draw.choice(_VALUES)
        try:
            tiny.build(folder, f"{name} = {value!r}")
            taken += 1
        except (ValueError, OSError) as error:
            said = name.rpartition(".")[2].lower() in str(error).lower()
            if not said and str(value)[:20] not in str(error):
                broken.append(f"{name} = {value!r}: {error}")
            refused += 1
        except Exception as error:
            broken.append(f"{name} = {value!r}: {type(error).__name__}: {error}")
        if resident_bytes() > limit:
            broken.append(f"{name} = {value!r} took {resident_bytes() >> 20} MiB")
            break
    assert not broken, "\n".join(broken)
    return f"{len(known)} settings, {BINDINGS:,} values: {taken} taken, {refused} refused by name"


def values(folder: pathlib.Path) -> str:
    """Every setting of every class that gin can bind, with 32 values: made, or refused by a setting's name; at once."""
    import dataclasses
    import re

    from tests.test_annotations import NEEDED, configurables

    settings, made, tried, broken = 0, 0, 0, []
    for name, owner in configurables():
        for field in (f for f in dataclasses.fields(owner) if f.init):
            settings += 1
            for value in _VALUES:
                tried, started, said = tried + 1, time.process_time(), ""
                try:
                    owner(**{**NEEDED.get(name, dict)(), field.name: value})
                    made += 1
                except (ValueError, OSError) as error:
                    if field.name not in str(error) and not re.search(rf"\b{name}\.\w", str(error)):
                        said = str(error)
                except Exception as error:
                    said = f"{type(error).__name__}: {error}"
                if time.process_time() > started + 5:
                    said = "takes more than 5 seconds"
                if said:
                    broken.append(f"{name}.{field.name} = {value!r}: {said}")
    assert not broken, "\n".join(broken)
    return f"{settings} settings, {tried:,} values: {made} made, {tried - made:,} refused by name"


GIN_FILES = 4000
_PIECES = (
    "=", "%", "@", "()", "(", "[", "{", "'", '"', "\\", "\n", "\n  ", "#", ".", "/", ":", ",", "include '", "import ",
    "%A", "A = %A\n", "None", "1e999", "-", "**", "\0", "\x0c", "\r", "ä", "\u2028", "0" * 5000, "[" * 300, "é = 1\n",
)  # fmt: skip


def gin_files(folder: pathlib.Path) -> str:
    """4,000 of the project's gin files with parts changed: read, or refused in words; within 10 seconds each."""
    import tf_lwdgh.runs.trainer  # noqa: F401  registers what the files bind
    from tf_lwdgh import config

    texts = [path.read_bytes() for path in sorted((ROOT / "gin").rglob("*.gin"))]
    draw, read, broken = random.Random(0), 0, []
    for _ in range(GIN_FILES):
        text = _changed(draw, draw.choice(texts))
        (folder / "x.gin").write_bytes(text)
        started = time.process_time()
        try:
            config.parse([str(folder / "x.gin")])
            read += 1
        except (ValueError, OSError) as error:
            if not str(error):
                broken.append(f"{text!r}: {type(error).__name__} without a word")
        except Exception as error:
            broken.append(f"{text!r}: {type(error).__name__}: {error}")
        if time.process_time() > started + 10:
            broken.append(f"{text!r}: takes more than 10 seconds")
    assert not broken, f"{len(broken)} files\n" + "\n".join(broken[:20])
    return f"{GIN_FILES:,} files: {read} read, {GIN_FILES - read} refused"


def _changed(draw: random.Random, text: bytes) -> bytes:
    for _ in range(draw.randint(1, 4)):
        at, length = draw.randint(0, len(text)), draw.choice((0, 0, 1, 1, 5, 40))
        put = draw.choice((draw.choice(_PIECES).encode(), draw.randbytes(draw.randint(0, 3)), b""))
        text = text[:at] + put + text[at + length :]
    return text


REQUESTS = 2000


def requests(folder: pathlib.Path) -> str:
    """2,000 requests of any shape and kind to an export: answered or refused, and the next thread is answered."""
    import numpy as np

    from tests import tiny
    from tf_lwdgh.serving import loaded, module, saved_models

    assembly = tiny.build(folder)
    served = module.ServingModule(assembly.parameters, assembly.image, batch_norm="inductive")
    saved_models.save(served, str(folder / "export"))
    model, r = loaded.load(str(folder / "export")), np.random.default_rng(0)
    images = r.integers(0, 256, (9, 12, 12, 3), np.uint8)
    labels = np.repeat(np.arange(3), 3)
    right = model.adapt_and_predict(images, labels, images)["probabilities"]
    counts = {"answered": 0, "refused": 0}
    for n in range(REQUESTS):
        sent = [_distorted(r, x) for x in (images, labels, images)]
        try:
            if n % 2:
                model.adapt_and_predict(*sent)
            else:
                model.predict(model.adapt(*sent[:2]), sent[2])
            counts["answered"] += 1
        except ValueError:
            counts["refused"] += 1
        if n % 50 == 0:
            found: list = []
            ask = lambda found=found: found.append(model.adapt_and_predict(images, labels, images))  # noqa: E731
            other = threading.Thread(target=ask, daemon=True)
            other.start()
            other.join(60)
            assert found, f"no answer after request {n}"
            np.testing.assert_array_equal(found[0]["probabilities"], right)
    return f"{REQUESTS:,} requests: {counts['answered']} answered, {counts['refused']} refused, none locked"


def _distorted(r, x):
    """An array as it is, or one that a caller should not have sent."""
    import numpy as np

    kind = r.integers(4, 24)
    if kind > 11:
        return x
    if kind == 4:
        return x.astype(r.choice(["float32", "float64", "int64", "bool", "int8", "complex64"]))
    if kind == 5:
        return x[: r.integers(0, len(x))]
    if kind == 6:
        return x.reshape([*x.shape, 1]) if r.integers(0, 2) else x[0]
    if kind == 7:
        return r.integers(-5, 300, size=r.integers(0, 4, size=r.integers(0, 6)))
    if kind == 8:
        with np.errstate(invalid="ignore"):
            return x.astype("float32") * np.float32(r.choice([np.nan, np.inf, -1, 1e30, 0.5]))
    if kind == 9:
        return np.array(["a", b"\xff", ""][r.integers(0, 3)])
    if kind == 10:
        return None
    return [[], {}, "x", [1, [2]], object()][r.integers(0, 5)]


TRIALS: dict[str, Trial] = {
    f.__name__: f for f in (kills, terminations, bindings, values, gin_files, requests, endurance)
}


def main(arguments: Sequence[str]) -> int:
    """Runs the trials; the exit code is the number of promises that did not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(TRIALS), help="Names, with commas between them.")
    names = parser.parse_args(arguments).only.split(",")
    with command_line.chatter_dropped():
        import tensorflow  # noqa: F401
    broken = 0
    for name in names:
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-"))
        print(f"{name}\n  promised: {' '.join(TRIALS[name].__doc__.split())}", flush=True)
        try:
            print(f"  happened: {TRIALS[name](folder)}", flush=True)
        except AssertionError as error:
            broken += 1
            print(f"  BROKEN: {error}", flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return broken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
