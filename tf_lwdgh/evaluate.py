# SPDX-License-Identifier: Apache-2.0
"""Evaluates a run on test tasks: mean accuracy ± 95 % interval, with the run's own settings.

Examples:

  The best checkpoint on 1,000 test tasks:
    python -m tf_lwdgh.evaluate --run_dir=runs/glyphs

  Inductive BatchNorm, 5 inner steps, more tasks:
    python -m tf_lwdgh.evaluate --run_dir=runs/glyphs --gin_param='Evaluation.n_tasks = 6000' \\
        --gin_param="MAML.batch_norm = 'inductive'" --gin_param='Evaluation.inner_steps = 5'

  On another data set than the run was trained on:
    python -m tf_lwdgh.evaluate --run_dir=runs/glyphs --gin_param="Evaluation.dataset = 'omniglot'"

  On several data sets, each on tasks of its own, in one table:
    python -m tf_lwdgh.evaluate --run_dir=runs/glyphs --datasets=glyphs,omniglot,cub

  Another learner on what a run has learned, without training, such as Baseline++ on a classifier's network:
    python -m tf_lwdgh.evaluate --run_dir=runs/pretrained --gin_file=gin/learners/baseline_pp.gin

  Several runs on the very same tasks, in one table with the intervals of their paired differences:
    python -m tf_lwdgh.evaluate --run_dir=runs/lwdgh --compare=runs/maml --compare=runs/pcgrad

  Tasks written to a file, and read on another day or by another program:
    python -m tf_lwdgh.evaluate --run_dir=runs/lwdgh --write_tasks=tasks.json.gz
    python -m tf_lwdgh.evaluate --run_dir=runs/maml --read_tasks=tasks.json.gz

  As a server may be asked, one query at a time:
    python -m tf_lwdgh.evaluate --run_dir=runs/glyphs --gin_param='Evaluation.queries_per_call = 1'

Where BatchNorm is transductive, a second paragraph tells what is left of the accuracy when queries
come one by one or class by class, and what the same checkpoint has inductively (--noas_served: not).

The accuracy of every task goes into <run_dir>/evaluation/, with a table of all classes, one of which was
taken for which, and a picture of both and of the calibration, which TensorBoard shows too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import app, flags

from tf_lwdgh import command_line

if TYPE_CHECKING:  # both import TensorFlow
    from tf_lwdgh.data.task_files import Tasks
    from tf_lwdgh.outer.evaluation import EvaluationResult

PROGRAM = "tf_lwdgh.evaluate"
_EXAMPLE = "python -m tf_lwdgh.evaluate --run_dir=runs/glyphs"


def define_flags() -> None:
    """The flags of this program."""
    command_line.define_gin_file()
    command_line.define_gin_param()
    command_line.define_run_dir()
    command_line.define_data_dir()
    flags.DEFINE_multi_string(
        "compare",
        [],
        "A further run, evaluated on the same tasks, with the same files on top; repeatable. The table is "
        "written as CSV into <run_dir>/evaluation/.",
    )
    flags.DEFINE_list(
        "datasets",
        [],
        "Data sets to evaluate on, one after the other, with names between commas: makes a table, printed "
        "and written as CSV into <run_dir>/evaluation/.",
    )
    command_line.define_checkpoint()
    flags.DEFINE_string(
        "read_tasks",
        None,
        "A task list to use instead of drawing tasks; with --datasets a folder with <data set>.json.gz.",
    )
    flags.DEFINE_string("write_tasks", None, "Where to write the tasks: .json or .json.gz; with --datasets a folder.")
    flags.DEFINE_bool(
        "as_served",
        True,
        "Where BatchNorm is transductive, also judge the run as a server may be asked, on 200 of the "
        "tasks: with all queries in a call, with one, with those of one class; and inductively.",
    )
    flags.adopt_module_key_flags(command_line)  # --help shows those too


def evaluate(args: flags.FlagValues) -> None:
    """Evaluates as the flags say, and prints the results.

    Raises:
      ValueError: a flag or setting is wrong.
      FileNotFoundError: a run, checkpoint, task list or the data set is not there.
    """
    command_line.require_flag("run_dir", args.run_dir, _EXAMPLE)
    command_line.start_tensorflow()
    from tf_lwdgh.data import task_lists
    from tf_lwdgh.outer.task_execution import TaskExecution
    from tf_lwdgh.outer.threads import Threads
    from tf_lwdgh.runs import as_served
    from tf_lwdgh.runs.experiment import parse_run
    from tf_lwdgh.runs.judge import check_comparable

    parse_run(args.run_dir, args.gin_param, args.gin_file)
    Threads().apply(TaskExecution().at_once(None))
    shared = {
        "data_dir": args.data_dir,
        "gin_params": args.gin_param,
        "gin_files": args.gin_file,
        "which": args.checkpoint,
    }
    if args.compare:
        check_comparable([args.run_dir, *args.compare], args.datasets, **shared)
    if args.datasets:
        _each(args, shared)
        return
    first, tasks = _one(args, shared)
    if not args.compare and args.as_served and not shared.pop("gin_files"):  # else it is not what would be exported
        fixed = isinstance(tasks, task_lists.TaskList) and "queries_per_call" not in first.about
        if fixed and first.about["batch_norm"] == as_served.TRANSDUCTIVE:
            print(as_served.measure(args.run_dir, first, tasks, **shared))


def _one(args: flags.FlagValues, shared: dict[str, object]) -> tuple[EvaluationResult, Tasks]:
    """Evaluates all runs on the tasks of the first, whose result it returns with the tasks."""
    from tf_lwdgh.data import task_lists
    from tf_lwdgh.runs import dataset_table
    from tf_lwdgh.runs.judge import judge

    tasks, by_run = task_lists.read(args.read_tasks) if args.read_tasks else None, {}
    for run_dir in (args.run_dir, *args.compare):
        result, tasks = judge(run_dir, tasks=tasks, **shared)
        if not by_run and args.write_tasks:
            tasks.write(args.write_tasks)
        by_run[run_dir] = {result.about["dataset"]: result}
        _show(run_dir, result)
    if args.compare:
        folder = os.path.join(args.run_dir, "evaluation")
        written = dataset_table.write(by_run, folder, "compared")
        print(f"\n{dataset_table.runs_text(by_run)}\n\n{written}")
    (first,) = by_run[args.run_dir].values()
    return first, tasks


def _show(run_dir: str, result: EvaluationResult) -> None:
    """Prints a result and what it says of classes."""
    from tf_lwdgh.runs import class_tables, evaluation_files

    picture = evaluation_files.path(run_dir, result.about, ".png")
    print(f"{run_dir}: {result}\n{class_tables.text(result)}\n  {picture}", flush=True)


def _each(args: flags.FlagValues, shared: dict[str, object]) -> None:
    """Evaluates on every one of --datasets, and prints and writes the table."""
    from tf_lwdgh.data import task_lists
    from tf_lwdgh.runs import dataset_table
    from tf_lwdgh.runs.judge import judge_each

    def path(folder: str, name: str) -> str:
        return os.path.join(folder, f"{name}.json.gz")

    names, tasks, by_run = args.datasets, None, {}
    if args.read_tasks:
        tasks = {name: task_lists.read(path(args.read_tasks, name)) for name in names}
    for run_dir in (args.run_dir, *args.compare):
        found = judge_each(run_dir, names, tasks=tasks, **shared)
        by_run[run_dir] = {name: result for name, (result, _) in found.items()}
        tasks = {name: listed for name, (_, listed) in found.items()}
        for result in by_run[run_dir].values():
            _show(run_dir, result)
    if args.write_tasks:
        for name, listed in tasks.items():
            listed.write(path(args.write_tasks, name))
    written = dataset_table.write(by_run, os.path.join(args.run_dir, "evaluation"))
    print(f"\n{dataset_table.text(by_run)}\n\n{written}")


def main(argv: Sequence[str]) -> None:
    """The command line."""
    with command_line.clean_errors(PROGRAM):
        if len(argv) > 1:
            raise ValueError(f"no such argument: {' '.join(argv[1:])}. Example: {_EXAMPLE}")
        evaluate(flags.FLAGS)


if __name__ == "__main__":
    define_flags()
    app.run(main)
