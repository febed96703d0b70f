# SPDX-License-Identifier: Apache-2.0
"""Exports a run as a SavedModel that learns a new task inside its graph, without this package.

Examples:

  The best checkpoint:
    python -m tf_lwdgh.export --run_dir=runs/glyphs --output=exported/glyphs

  The last one, adapting in 5 steps, in place of an earlier export:
    python -m tf_lwdgh.export --run_dir=runs/glyphs --output=exported/glyphs --overwrite \\
        --checkpoint=last --gin_param='Evaluation.inner_steps = 5'

  A learner that needs no training of its own, on a classifier's network:
    python -m tf_lwdgh.export --run_dir=runs/pretrained --output=exported/simple_shot \\
        --gin_file=gin/learners/simple_shot.gin

  With BatchNorm over the queries of a call, as the run was trained and is evaluated:
    python -m tf_lwdgh.export --run_dir=runs/glyphs --output=exported/as_trained \\
        --batch_norm=as_trained

  As the next version of a model that TensorFlow Serving watches (exported/glyphs/1, 2, ...):
    python -m tf_lwdgh.export --run_dir=runs/glyphs --output=exported/glyphs --model_version=next

What was exported, and how to call it:
    saved_model_cli show --all --dir exported/glyphs
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import app, flags

from tf_lwdgh import command_line

PROGRAM = "tf_lwdgh.export"
_MEASURE = "python -m tf_lwdgh.evaluate"
_EXAMPLE = "python -m tf_lwdgh.export --run_dir=runs/glyphs --output=exported/glyphs"


def define_flags() -> None:
    """The flags of this program."""
    command_line.define_gin_file()
    command_line.define_gin_param()
    command_line.define_run_dir()
    flags.DEFINE_string("output", None, "The folder to write; its parents are made.")
    command_line.define_checkpoint()
    flags.DEFINE_string(
        "batch_norm",
        None,
        "Which statistics BatchNorm uses in the export. 'inductive': the support set's, so that an "
        "answer does not depend on the other queries of its call. 'transductive': those of the "
        "queries of a call, which needs many of all classes at once. 'global': averages over the "
        "training tasks. 'as_trained': the run's. By default 'inductive' where the run was trained "
        "transductively, else as it was trained; a binding of BatchNorm by --gin_param, such as "
        "BATCH_NORM = 'transductive', stands.",
    )
    flags.DEFINE_string(
        "model_version",
        None,
        "Write a numbered folder below --output, as TensorFlow Serving wants it: a whole number from "
        "1, or 'next' for one above all that are there.",
    )
    flags.DEFINE_bool("overwrite", False, "Replace an earlier export in --output.")
    flags.adopt_module_key_flags(command_line)  # --help shows those too


def export(
    run_dir: str | None,
    output: str | None,
    checkpoint: str,
    gin_params: Sequence[str],
    *,
    batch_norm: str | None,
    model_version: str | None = None,
    overwrite: bool,
    gin_files: Sequence[str] = (),
) -> None:
    """Exports as the flags say, and prints what came of it.

    Raises:
      ValueError: a flag or setting is wrong.
      FileNotFoundError: no such run or checkpoint.
      FileExistsError: something is at `output` that must not be replaced.
    """
    command_line.require_flag("run_dir", run_dir, _EXAMPLE)
    command_line.require_flag("output", output, _EXAMPLE)
    command_line.start_tensorflow()
    from tf_lwdgh.runs import as_served
    from tf_lwdgh.serving import saved_models

    output, told = saved_models.export(
        run_dir,
        output,
        checkpoint,
        gin_params,
        batch_norm=batch_norm,
        model_version=model_version,
        overwrite=overwrite,
        gin_files=gin_files,
    )
    measured = as_served.read(run_dir, checkpoint, told["step"], told["inner_steps"])
    print(f"{output}: {checkpoint} checkpoint, step {told['step']}, of {run_dir}")
    print(_summary(told))
    if told["trained_batch_norm"] == as_served.TRANSDUCTIVE:
        print(measured or f"not measured as a server may be asked: {_MEASURE} --run_dir={run_dir}")
    print(f"look at it: saved_model_cli show --all --dir {output}")
    if told["predictions_depend_on_the_other_queries"]:
        print(_note(told))


def _summary(told: dict[str, Any]) -> str:
    """What was exported, in two lines, from its metadata."""
    ways = "any number of" if told["largest_n_way"] is None else f"up to {told['largest_n_way']}"
    image, steps = told["image"], told["inner_steps"]
    shape = f"{image['image_size']} × {image['image_size']} × {image['channels']}"
    served, trained = told["batch_norm"], told["trained_batch_norm"]
    norm = f"BatchNorm {served}" + ("" if served == trained else f" (trained {trained})")
    return (
        f"{told['learner']} on {told['backbone']}"
        f"{'' if steps is None else f', {steps} inner steps'}, {norm}\n"
        f"takes {ways} ways, images of {shape}"
    )


def _note(told: dict[str, Any]) -> str:
    """What to know where an answer depends on the other queries."""
    note = "note: a prediction depends on the other queries of its call"
    if told["batch_norm"] != "transductive":
        return f"{note}: so {told['learner']} works."
    return (
        f"{note}, since BatchNorm is transductive: it needs many queries of all classes at once. "
        "With --batch_norm=inductive there is no such dependence."
    )


def main(argv: Sequence[str]) -> None:
    """The command line."""
    args = flags.FLAGS
    with command_line.clean_errors(PROGRAM):
        if len(argv) > 1:
            raise ValueError(f"no such argument: {' '.join(argv[1:])}. Example: {_EXAMPLE}")
        export(
            args.run_dir,
            args.output,
            args.checkpoint,
            args.gin_param,
            batch_norm=args.batch_norm,
            model_version=args.model_version,
            overwrite=args.overwrite,
            gin_files=args.gin_file,
        )


if __name__ == "__main__":
    define_flags()
    app.run(main)
