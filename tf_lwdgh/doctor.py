# SPDX-License-Identifier: Apache-2.0
"""Examines an installation, settings, data sets, runs and exports, and says what is wrong and what mends it.

Examples:

  This installation, and all data sets under data/:
    python -m tf_lwdgh.doctor

  The installation alone: versions, oneDNN, devices, memory, extras:
    python -m tf_lwdgh.doctor --environment

  One data set: every file, record, checksum, label and image:
    python -m tf_lwdgh.doctor --data_dir=data --dataset=tiered_imagenet

  Settings, before a training; of a study every run's:
    python -m tf_lwdgh.doctor --gin_file=tiered_resnet12 --gin_param='K_SHOT = 5' --data_dir=data

  A run: lock, settings, checkpoints, data set, metrics, results:
    python -m tf_lwdgh.doctor --run_dir=runs/glyphs

  An export: files, metadata, functions, and what it answers:
    python -m tf_lwdgh.doctor --model=exported/glyphs

  For a program; everything else goes to standard error:
    python -m tf_lwdgh.doctor --dataset=glyphs --json

Faults are what does not work, or, of a data set, what training would stumble over or learn from without a
word. Warnings (files that belong to no class, images that are there twice, a GPU that is not used) it need
not mind. Nothing is changed on disk.

Exit codes: 0 no fault, 1 faults, 2 something to mend in the flags, or no readable data set.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from absl import app, flags

from tf_lwdgh import command_line

PROGRAM = "tf_lwdgh.doctor"
FAULTY = 1
_EXAMPLE = "python -m tf_lwdgh.doctor --data_dir=data --dataset=glyphs"
_MAKE_ONE = "python -m tf_lwdgh.converters glyphs --data_dir={}"


def define_flags() -> None:
    """The flags of this program."""
    command_line.define_data_dir()
    flags.DEFINE_bool("environment", False, "Examine the installation.")
    flags.DEFINE_multi_string(
        "gin_file", [], "Examine the settings of a gin file; repeatable, later files win. A study's too."
    )
    command_line.define_gin_param()
    flags.DEFINE_multi_string("run_dir", [], "Examine a run's folder; repeatable.")
    flags.DEFINE_multi_string("model", [], "Examine the folder of an export; repeatable.")
    flags.DEFINE_multi_string(
        "dataset", [], "Examine a data set, by its name under --data_dir; repeatable. By default all."
    )
    flags.DEFINE_bool("json", False, "Print the findings as JSON.")
    flags.DEFINE_integer(
        "limit", 1000, "How many faults, and how many warnings, are shown of each data set; all are counted.",
        lower_bound=0,
    )  # fmt: skip
    flags.adopt_module_key_flags(command_line)  # --help shows those too


def doctor(args: flags.FlagValues) -> bool:
    """Examines what the flags say, and prints what was found.

    Returns:
      Whether there was no fault.

    Raises:
      FileNotFoundError: there is no such gin file, run, export or data set.
      ValueError: a data set's spec is none.
    """
    if args.gin_param and not args.gin_file:
        raise ValueError("--gin_param needs --gin_file. Example: python -m tf_lwdgh.doctor --gin_file=glyphs")
    command_line.start_tensorflow()
    stream, found = sys.stderr if args.json else sys.stdout, []
    for one in _examinations(args, stream):
        found.append(one)
        stream.flush()
    if args.json:
        print(json.dumps(found, indent=1))
    return not any(report["faults"] for report in found)


def _examinations(args: flags.FlagValues, stream: TextIO) -> Iterator[dict[str, Any]]:
    """The findings of each examination as JSON values; they are printed as they come."""
    from tf_lwdgh.examinations import environment, exported, run, settings
    from tf_lwdgh.examinations.report import Report

    def told(report: Report) -> dict[str, Any]:
        print(report, file=stream)
        return report.as_json()

    named = bool(args.gin_file or args.run_dir or args.model)
    data_sets = bool(args.dataset or (args["data_dir"].present and not named))
    nothing = not (named or data_sets or args.environment)
    if args.environment or nothing:
        yield told(environment.examine())
    if args.gin_file:
        yield told(settings.examine(args.gin_file, args.gin_param, args.data_dir))
    for folder in args.run_dir:
        yield told(run.examine(folder, args.data_dir))
    for folder in args.model:
        yield told(exported.examine(folder))
    if data_sets or nothing:
        yield from _data_sets(args, stream, required=data_sets)


def _data_sets(args: flags.FlagValues, stream: TextIO, *, required: bool) -> Iterator[dict[str, Any]]:
    from tf_lwdgh.data import store
    from tf_lwdgh.examinations import data_sets

    names = args.dataset or store.dataset_names(args.data_dir)
    if not names and required:
        raise FileNotFoundError(f"there is no data set in --data_dir {args.data_dir!r}. Example: {_EXAMPLE}")
    if not names:
        make = _MAKE_ONE.format(args.data_dir)
        print(f"note: there is no data set in {args.data_dir!r} yet\n  mend: {make}", file=stream)
    opened = [store.open_dataset(args.data_dir, name) for name in names]
    for folder, spec in opened:
        yield data_sets.examine(folder, spec, args.limit, stream)


def main(argv: Sequence[str]) -> None:
    """The command line."""
    args = flags.FLAGS
    with command_line.clean_errors(PROGRAM):
        if len(argv) > 1:
            raise ValueError(f"no such argument: {' '.join(argv[1:])}. Example: {_EXAMPLE}")
        if not doctor(args):
            sys.exit(FAULTY)


if __name__ == "__main__":
    define_flags()
    app.run(main)
