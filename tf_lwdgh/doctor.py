"""Examines data sets: every file, record, checksum, label and image, and names all that is wrong.

Examples:

  One data set:
    python -m tf_lwdgh.doctor --data_dir=data --dataset=tiered_imagenet

  All that there are under data/:
    python -m tf_lwdgh.doctor

  For a program; everything else goes to standard error:
    python -m tf_lwdgh.doctor --dataset=glyphs --json

Faults are what training would stumble over, or learn from without a word. Warnings (files that belong to
no class, images that are there twice) it need not mind. Nothing is changed on disk.

Exit codes: 0 no fault, 1 faults, 2 something to mend in the flags, or no readable data set.
"""

from __future__ import annotations

import json
import pathlib
import sys
import threading
import time
from collections.abc import Sequence

from absl import app, flags

from tf_lwdgh import command_line

PROGRAM = "tf_lwdgh.doctor"
FAULTY = 1
_EXAMPLE = "python -m tf_lwdgh.doctor --data_dir=data --dataset=glyphs"


def define_flags() -> None:
    """The flags of this program."""
    command_line.define_data_dir()
    flags.DEFINE_multi_string(
        "dataset", [], "The name of a data set under --data_dir; repeatable. By default all."
    )
    flags.DEFINE_bool("json", False, "Print the findings as JSON.")
    flags.DEFINE_integer(
        "limit", 1000, "How many faults, and how many warnings, are shown of each data set; all are counted.",
        lower_bound=0,
    )  # fmt: skip
    flags.adopt_module_key_flags(command_line)  # --help shows those too


def doctor(data_dir: str, names: Sequence[str], *, limit: int, as_json: bool) -> bool:
    """Examines data sets and prints what was found.

    Returns:
      Whether there was no fault.

    Raises:
      FileNotFoundError: there is no such data set, or none at all.
      ValueError: a spec is none.
    """
    command_line.start_tensorflow()
    from tf_lwdgh.data import store

    names = names or store.dataset_names(data_dir)
    if not names:
        raise FileNotFoundError(f"there is no data set in --data_dir {data_dir!r}. Example: {_EXAMPLE}")
    opened = [store.open_dataset(data_dir, name) for name in names]
    found = [_examine(folder, spec, limit, sys.stderr if as_json else sys.stdout) for folder, spec in opened]
    if as_json:
        print(json.dumps(found, indent=1))
    return not any(report["faults"] for report in found)


def _examine(folder: str, spec, limit: int, stream) -> dict:
    """One data set: prints its findings, and gives them as JSON values."""
    from tf_lwdgh.data.store.examination import examine
    from tf_lwdgh.runs.progress import Progress

    start, lock, done = time.monotonic(), threading.Lock(), 0
    stated = sum(spec.images_per_class)
    with Progress(total=stated, tasks_per_step=1, unit="image", every=10.0) as progress:

        def advance(count: int) -> None:
            nonlocal done
            with lock:
                done += count
                progress.advance(count)
                progress.report(tasks_per_second=None, images_per_second=done / (time.monotonic() - start))

        findings = examine(folder, spec, limit=limit, progress=advance)
    seconds = time.monotonic() - start
    for line in findings.lines():
        print(line, file=stream)
    print(
        f"{folder}: {done:,} images of {len(spec.images_per_class):,} classes in {seconds:.1f} s "
        f"({done / seconds:,.0f} images/s): {_count(findings.n_faults, 'fault')}, "
        f"{_count(findings.n_warnings, 'warning')}",
        file=stream,
        flush=True,
    )
    about = {"folder": str(pathlib.Path(folder)), "dataset": spec.name, "fingerprint": spec.fingerprint}
    return {**about, "images": done, "seconds": seconds, **findings.as_json()}


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def main(argv: Sequence[str]) -> None:
    """The command line."""
    args = flags.FLAGS
    with command_line.clean_errors(PROGRAM):
        if len(argv) > 1:
            raise ValueError(f"no such argument: {' '.join(argv[1:])}. Example: {_EXAMPLE}")
        if not doctor(args.data_dir, args.dataset, limit=args.limit, as_json=args.json):
            sys.exit(FAULTY)


if __name__ == "__main__":
    define_flags()
    app.run(main)
