# SPDX-License-Identifier: Apache-2.0
"""Conducts a study: trains methods × settings × seeds, judges all on the same tasks, and writes the report.

Examples:

  A table of a few minutes on the built-in data set:
    python -m tf_lwdgh.study --gin_file=gin/studies/table5.gin --gin_file=gin/studies/tiny.gin --jobs=2

  The paper's Table 1, at its settings; says first how many hours that takes:
    python -m tf_lwdgh.study --gin_file=gin/studies/table1.gin --data_dir=/data --jobs=4

  Some methods, other seeds, and a setting of all runs:
    python -m tf_lwdgh.study --gin_file=gin/studies/table1.gin --only='*LWDGH*' --seeds=0,1,2 \\
        --cell_param='EPOCHS = 30'

  Its figures, of any two runs:
    python -m tf_lwdgh.study --gin_file=gin/studies/figure5.gin --run='MAML=runs/maml' \\
        --run='LWDGH=runs/lwdgh' --out=figures

  What it would run, with the number of each job, and the hours:
    python -m tf_lwdgh.study --gin_file=gin/studies/table1.gin --dry_run

  As a Slurm array, one job a task, and the report when all are done:
    sbatch --array=0-17 --wrap='python -m tf_lwdgh.study --gin_file=gin/studies/table1.gin \\
        --job=$SLURM_ARRAY_TASK_ID'
    python -m tf_lwdgh.study --gin_file=gin/studies/table1.gin --report

  On all cores of this machine by Ray, or with --ray_address=auto on a cluster of it:
    python -m tf_lwdgh.study --gin_file=gin/studies/table1.gin --executor=ray --cores_per_job=2

  Methods tuned on validation tasks first, as Study.search says:
    python -m tf_lwdgh.study --gin_file=my_study.gin --search --jobs=4

Started again, it goes on where it was stopped. The study's folder holds report.html, report.md,
results.csv, progress.html, figures/, results/ (one small file a run, of which the report is made) and
runs/ (the run folders):
    tensorboard --logdir=runs/studies/table5-tiny/runs

Exit codes: 0 done, or stopped and saved; 1 some runs failed or diverged, as the report says; 2 something
to mend in the settings or data; 4 the disk is full or cannot be written; 130 interrupted.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence

from absl import app, flags

from tf_lwdgh import command_line

PROGRAM = "tf_lwdgh.study"
_EXAMPLE = "python -m tf_lwdgh.study --gin_file=gin/studies/table5.gin"
_SOME_FAILED = 1


def define_flags() -> None:
    """The flags of this program."""
    command_line.define_gin_file()
    command_line.define_gin_param()
    flags.DEFINE_multi_string(
        "cell_param", [], "A binding on top of every run, such as --cell_param='EPOCHS = 30'. "
        "Repeatable.",
    )  # fmt: skip
    flags.DEFINE_list("seeds", None, "The runs' seeds, by commas; by default the study's.")
    flags.DEFINE_string("only", "*", "A pattern of methods to run, such as 'LWDGH*'.")
    flags.DEFINE_integer("jobs", 1, "Runs at once on this machine; its cores are shared out.")
    flags.DEFINE_string("executor", "local", "'local', or 'ray', which fills its cluster's cores.")
    flags.DEFINE_string(
        "ray_address", None, "With --executor=ray: 'auto' or host:port of a cluster whose nodes share "
        "--out and --data_dir; by default a Ray of this machine.",
    )  # fmt: skip
    flags.DEFINE_integer("cores_per_job", 1, "With --executor=ray: cores that a run takes.")
    flags.DEFINE_string("out", None, "The study's folder; by default runs/studies/<gin files>.")
    command_line.define_data_dir()
    flags.DEFINE_bool(
        "search", False, "Tune what Study.search says on validation tasks first, and run the study with "
        "what was found. The test split is not read before.",
    )  # fmt: skip
    flags.DEFINE_integer("job", None, "Run one job, by its number, and nothing else.")
    flags.DEFINE_bool("dry_run", False, "Say what would run and how long each takes; run nothing.")
    flags.DEFINE_bool("report", False, "Write the report of what is there; run nothing.")
    flags.DEFINE_multi_string(
        "run", [], "Draw the study's figures of runs that are there, such as --run='MAML=runs/maml'; a "
        "method once for each of its seeds. Run nothing. Repeatable.",
    )  # fmt: skip
    flags.DEFINE_bool("estimate", True, "Time a few meta-steps first, and say how long it takes.")
    flags.adopt_module_key_flags(command_line)  # --help shows those too


def study(args: flags.FlagValues, argv: Sequence[str]) -> int:
    """Conducts a study as the flags say.

    Args:
      args: the flags.
      argv: the command line without the program, for the report.

    Returns:
      The exit code.

    Raises:
      ValueError: a flag or a setting is wrong.
      FileNotFoundError: a gin file or a data set is not there.
    """
    command_line.require_flag("gin_file", args.gin_file, _EXAMPLE)
    command_line.start_tensorflow()
    import tensorflow as tf

    from tf_lwdgh.runs.run_lock import run_lock
    from tf_lwdgh.studies import conduct, estimate, executors, jobs, report

    gpus = len(tf.config.list_physical_devices("GPU"))
    tf.config.set_visible_devices([], "GPU")  # they are the runs'
    made = conduct.from_gin(args.gin_file, args.gin_param, seeds=args.seeds, cell_params=args.cell_param)
    out = args.out or os.path.join("runs", "studies", "-".join(map(_stem, args.gin_file)))
    place = conduct.Place(out, args.data_dir, report.command_line(argv))
    executor = functools.partial(
        executors.executor, args.executor, jobs=args.jobs, gpus=gpus, ray_address=args.ray_address,
        cores_per_job=args.cores_per_job,
    )  # fmt: skip
    if args.dry_run:
        wanted = jobs.make(made, only=args.only, data_dir=args.data_dir, out=out)
        print("".join(f"{n:4d}  {job.name}\n" for n, job in enumerate(wanted)), end="")
        with executor() as ready:
            estimate.say(wanted, made, ready.shares, each=True)
        return 0
    if args.run:
        conduct.draw(made, place, args.run)
        return 0
    if args.report:
        conduct.write_report(made, place)
        return _told(out)
    tuned = _search(args, made, place, executor) if args.search else {}
    if tuned is None:
        return 0  # stopped and saved
    conductor = conduct.Conductor(made, place, only=args.only, tuned=tuned)
    with conduct.stopping() as stop:
        if args.job is not None:
            return 0 if conductor.run_one(args.job, stop) else _SOME_FAILED
        with run_lock(out), executor() as ready:
            if conductor.missing and args.estimate:
                estimate.say(conductor.missing, made, ready.shares)
            conductor.run(ready.run, at_once=ready.at_once, stop=stop)
    if conductor.missing:
        left = len(conductor.missing)
        print(f"stopped: {left} runs are left; the same command goes on with them", file=sys.stderr)
    if conductor.done:
        conduct.write_report(made, place)
        _told(out)
    return _SOME_FAILED if conductor.failed else 0


def _search(args: flags.FlagValues, made, place, executor) -> dict | None:
    """What the search found for each setting and method; None where it was stopped."""
    from tf_lwdgh.runs.run_lock import run_lock
    from tf_lwdgh.studies import conduct, search

    if args.job is not None:
        return search.read_best(made, place, search.cells(made, place, only=args.only))
    searcher = search.Searcher(made, place, only=args.only)
    with conduct.stopping() as stop, run_lock(place.out), executor() as ready:
        return searcher.run(ready, stop, say_hours=args.estimate)


def _told(out: str) -> int:
    print(f"report: {os.path.join(out, 'report.html')}")
    return 0


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def main(argv: Sequence[str]) -> None:
    """The command line."""
    with command_line.clean_errors(PROGRAM):
        if len(argv) > 1:
            raise ValueError(f"no such argument: {' '.join(argv[1:])}. Example: {_EXAMPLE}")
        code = study(flags.FLAGS, sys.argv[1:])
    sys.exit(code)


if __name__ == "__main__":
    define_flags()
    app.run(main)
