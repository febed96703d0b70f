# SPDX-License-Identifier: Apache-2.0
"""Ranks the layers of a run by its tasks' conflicts, and prints the bindings that move the leaders.

python tools/rank_layers.py --run_dir=runs/maml --count=2            the 2 with the most conflicts
python tools/rank_layers.py --run_dir=runs/maml --count=2 --random   the control: 2 at random

The bindings go on top of gin/learners/recon.gin.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # runs without installation

from tf_lwdgh import command_line

PROGRAM = "rank_layers"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run_dir", required=True, help="a run of MAML that train wrote")
    parser.add_argument("--count", type=int, required=True, help="how many layers shall move")
    parser.add_argument("--share", type=float, default=0.25, help="of the run's steps that counts")
    parser.add_argument("--random", action="store_true", help="print the control's bindings")
    parser.add_argument("--seed", type=int, default=0, help="of the control")
    return parser.parse_args(argv)


def rank(args: argparse.Namespace) -> str:
    """The ranking and the bindings, as text.

    Raises:
      ValueError: a flag is wrong, or the run's metrics can't be ranked.
      FileNotFoundError: no such run.
    """
    from tf_lwdgh.runs import conflict_ranking

    ranking = conflict_ranking.of_run(args.run_dir, share=args.share)
    names = [layer.name for layer in ranking.layers]
    if not 1 <= args.count <= len(names):
        raise ValueError(
            f"--count must be 1 to {len(names)}, the layers that the inner loop moves. Received: {args.count}."
        )
    lines = [
        f"pairs of tasks with a cosine below {ranking.threshold:g}, in {ranking.steps} meta-steps:",
        *(f"  {x.name:<16} {x.pairs:>12.0f}  {100 * x.rate:6.2f} %" for x in ranking.layers),
    ]
    if args.random:
        chosen = conflict_ranking.random_bindings(args.count, args.seed)
    else:
        chosen = conflict_ranking.bindings(names[: args.count])
    return "\n".join([*lines, "", *(f'--gin_param="{line}"' for line in chosen)])


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the ranking."""
    args = parse(argv)
    with command_line.clean_errors(PROGRAM):
        command_line.start_tensorflow()
        print(rank(args))


if __name__ == "__main__":
    main()
