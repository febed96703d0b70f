# SPDX-License-Identifier: Apache-2.0
"""Trains an experiment that gin files describe; run again, it goes on where it stopped.

Examples:

  The built-in data set, a few minutes on a laptop:
    python -m tf_lwdgh.train --gin_file=gin/glyphs.gin

  The paper's Resnet12 on tiered-ImageNet, with the records under /data:
    python -m tf_lwdgh.train --gin_file=gin/tiered_resnet12.gin --data_dir=/data

  The same with other settings; names in capitals are set in gin/base.gin:
    python -m tf_lwdgh.train --gin_file=gin/tiered_resnet12.gin \\
        --gin_param='K_SHOT = 5' --gin_param='LWDGH.temperature = 0.5' --run_dir=runs/cooler

  Plain MAML on any experiment: a second file on top of the first.
    python -m tf_lwdgh.train --gin_file=gin/tiered_resnet12.gin --gin_file=gin/aggregators/mean.gin

  A profile of a few steps, for TensorBoard:
    python -m tf_lwdgh.train --gin_file=gin/glyphs.gin --profile --run_dir=runs/profiled

A run folder holds config.gin, operative.gin, metrics.jsonl, checkpoints/, best/ and TensorBoard's event files:
    tensorboard --logdir=runs

With Experiment.strategy = 'multi_worker' several processes share a run: docs/scaling.md.

Exit codes: 0 done or stopped and saved, 2 something to mend in the settings or data, 3 diverged,
4 the disk is full or cannot be written (the same command goes on then), 5 another process of the run
is gone (start all of them again), 130 interrupted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from absl import app, flags

from tf_lwdgh import command_line

PROGRAM = "tf_lwdgh.train"
_EXAMPLE = "python -m tf_lwdgh.train --gin_file=gin/glyphs.gin"


def define_flags() -> None:
    """The flags of this program."""
    command_line.define_gin_file()
    command_line.define_gin_param()
    command_line.define_run_dir()
    command_line.define_data_dir()
    flags.DEFINE_bool(
        "profile", False, "Write a profile of a few steps, once the first are over, to the run's "
        "folder. TensorBoard shows it where the package xprof is installed.",
    )  # fmt: skip
    flags.adopt_module_key_flags(command_line)  # --help shows those too


def train(
    gin_files: Sequence[str],
    gin_params: Sequence[str],
    run_dir: str | None,
    data_dir: str,
    *,
    profile: bool = False,
) -> None:
    """Trains as the flags say, and prints what came of it: see `runs.training.train`."""
    command_line.require_flag("gin_file", gin_files, _EXAMPLE)
    command_line.start_tensorflow()
    from tf_lwdgh.runs import training

    run_dir, at, is_chief = training.train(
        gin_files, gin_params, run_dir, data_dir, profile=profile, stop=command_line.stop_on_signal
    )
    if at.best_step and is_chief:
        print(
            f"best validation accuracy {100 * at.best_accuracy:.2f} % at step {at.best_step}\n"
            f"evaluate:    python -m tf_lwdgh.evaluate --run_dir={run_dir} --data_dir={data_dir}\n"
            f"TensorBoard: tensorboard --logdir={os.path.dirname(os.path.normpath(run_dir)) or '.'}"
        )


def main(argv: Sequence[str]) -> None:
    """The command line."""
    args = flags.FLAGS
    with command_line.clean_errors(PROGRAM):
        if len(argv) > 1:
            raise ValueError(f"no such argument: {' '.join(argv[1:])}. Example: {_EXAMPLE}")
        train(args.gin_file, args.gin_param, args.run_dir, args.data_dir, profile=args.profile)


if __name__ == "__main__":
    define_flags()
    app.run(main)
