"""Every aggregator with MAML, and every learner with the mean: one table, made cell by cell.

    python -m bench.methods --data_dir=data --work=runs/methods --steps=6000 --seeds=0,1 --out=docs/methods_table

A cell is a run folder: started again, the command goes on where it was stopped, and trains what is missing.
All cells have the same data, number of meta-steps, tasks a step, initial weights and tasks by seed; rates and
inner steps are those of each fragment. Each is judged on the same test tasks, so that differences from MAML with
the mean are paired. A cell that fails or diverges is reported as such and holds up no other. Seconds a step are
those of a report of bench.method_speed, if --speed names one.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np

from tf_lwdgh.outer.evaluation import mean_and_interval
from tf_lwdgh.runs import conflict_ranking

ROOT = pathlib.Path(__file__).resolve().parents[1]
BASELINE = "MAML + mean"
_FAILED = "failed.txt"
_STEPS_PER_EPOCH = 200
_MOVED_LAYERS = 2


@dataclasses.dataclass(frozen=True)
class Cell:
    """One method: gin fragments on top of the experiment."""

    group: str  # 'aggregator' or 'learner'
    name: str
    fragments: tuple[str, ...]
    ranked: bool = False  # moves the layers in which the baseline's tasks conflicted most

    @property
    def folder(self) -> str:
        """A file name of the cell."""
        return self.name.lower().replace(" + ", "-").replace(", ", "_")


def cells(only: str) -> list[Cell]:
    """The baseline first, then a cell for each fragment in gin/aggregators and gin/learners."""
    mean = "gin/aggregators/mean.gin"
    found = [Cell("aggregator", BASELINE, (mean,))]
    for path in sorted((ROOT / "gin/aggregators").glob("*.gin")):
        if path.stem not in ("mean", "explore_exploit"):
            relative = str(path.relative_to(ROOT))
            found.append(Cell("aggregator", f"MAML + {path.stem}", (relative,)))
    for path in sorted((ROOT / "gin/learners").glob("*.gin")):
        if path.stem != "maml":
            fragments = (str(path.relative_to(ROOT)), mean)
            found.append(Cell("learner", f"{path.stem} + mean", fragments))
            if path.stem == "recon":
                found.append(Cell("learner", "recon, ranked + mean", fragments, ranked=True))
    return [c for c in found if c.name == BASELINE or fnmatch.fnmatch(c.name, only)]


def settings(args: argparse.Namespace, seed: int) -> list[str]:
    """The bindings that all cells share."""
    bindings = [
        f"IMAGE_SIZE = {args.image_size}",
        f"META_BATCH_SIZE = {args.meta_batch_size}",
        f"EPOCHS = {args.steps // _STEPS_PER_EPOCH}",
        f"SEED = {seed}",
        "TrainerConfig.validate_every = 0",
        "Threads.inter_op = 1",
    ]
    return [f"--gin_param={b}" for b in bindings]


def run(cell: Cell, seed: int, args: argparse.Namespace) -> pathlib.Path:
    """Trains and judges a cell where that is missing; returns its folder."""
    folder = pathlib.Path(args.work) / cell.folder / f"seed{seed}"
    if (folder / _FAILED).exists() or list(folder.glob("evaluation/*.json")):
        return folder
    python = [sys.executable, "-m"]
    files = [f"--gin_file={f}" for f in (args.experiment, *cell.fragments)]
    shared = [f"--run_dir={folder}", f"--data_dir={args.data_dir}"]
    bindings = settings(args, seed)
    if cell.ranked:
        try:
            bindings += _most_conflicting(args, seed)
        except (ValueError, OSError) as error:  # the baseline failed
            return _failed(folder, str(error))
    train = [*python, "tf_lwdgh.train", *files, *bindings, *shared]
    judge = [*python, "tf_lwdgh.evaluate", *shared, "--checkpoint=last"]
    judge += [f"--gin_param=Evaluation.n_tasks = {args.tasks}"]
    for command in (train, judge):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        # A run that is stopped from outside ends well at the end of a window: to be gone on with.
        if done.returncode < 0 or "the same command goes on from there" in done.stderr:
            raise KeyboardInterrupt
        if done.returncode:
            return _failed(folder, done.stderr[-2000:])
    return folder


def _failed(folder: pathlib.Path, why: str) -> pathlib.Path:
    """Keeps the reason, which the table shows."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _FAILED).write_text(why, encoding="utf-8")
    return folder


def _most_conflicting(args: argparse.Namespace, seed: int) -> list[str]:
    """The bindings that move as many layers as gin/learners/recon.gin, by the baseline's conflicts."""
    baseline = cells(BASELINE)[0]
    ranking = conflict_ranking.of_run(pathlib.Path(args.work) / baseline.folder / f"seed{seed}")
    chosen = conflict_ranking.bindings([layer.name for layer in ranking.layers[:_MOVED_LAYERS]])
    return [f"--gin_param={line}" for line in chosen]


@dataclasses.dataclass
class Result:
    """What a cell's folder tells."""

    accuracies: np.ndarray  # [n] of one checkpoint
    gci: float
    conflict_rate: float
    steps: int
    inner_steps: int | None


def read(folder: pathlib.Path) -> Result | None:
    """None where the cell failed or is not there yet."""
    found = sorted(folder.glob("evaluation/*.json"))
    if not found:
        return None
    judged = json.loads(found[-1].read_text(encoding="utf-8"))
    with open(folder / "metrics.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    mean = lambda key: float(np.mean([x[key] for x in lines if x.get(key) is not None]))  # noqa: E731
    return Result(
        np.array(judged["accuracies"]), mean("gci/total"), mean("conflict_rate/total"),
        lines[-1]["step"], judged["inner_steps"],
    )  # fmt: skip


def relative_seconds(cell: Cell, speed: dict) -> str:
    """Of a meta-step, beside the baseline's, by bench.method_speed's report."""
    if cell.group == "learner":
        found = speed.get("learners", {}).get(pathlib.Path(cell.fragments[0]).stem)
    else:
        text = (ROOT / cell.fragments[0]).read_text(encoding="utf-8")
        made = re.search(r"Experiment\.aggregator = @(\w+)", text)
        found = made and speed.get("aggregators", {}).get(made[1])
    return f"{found['ratio']:.2f}" if found and "ratio" in found else ""


def table(chosen: list[Cell], seeds: list[int], work: str, speed: dict) -> str:
    """Markdown rows; a seed's accuracies and differences are means over the same tasks."""
    folders = {(c.name, s): pathlib.Path(work) / c.folder / f"seed{s}" for c in chosen for s in seeds}
    results = {key: read(folder) for key, folder in folders.items()}
    rows = [
        "| method | accuracy by seed, % | difference from MAML + mean, points | mean GCI | conflict rate | "
        "test inner steps | seconds a step, relative |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in chosen:
        found = {s: r for s in seeds if (r := results[cell.name, s]) is not None}
        failed = [f for s in seeds if (f := folders[cell.name, s] / _FAILED).exists()]
        if not found:
            why = failed[0].read_text(encoding="utf-8").strip().splitlines()[-1] if failed else "not run"
            rows.append(f"| {cell.name} | {why[:200]} | | | | | |")
            continue
        accuracy = " · ".join(_percent(r.accuracies) for r in found.values())
        both = [(r, b) for s, r in found.items() if (b := results[BASELINE, s]) is not None]
        same = cell.name == BASELINE
        difference = "" if same else " · ".join(_points(r.accuracies - b.accuracies) for r, b in both)
        gci = np.mean([r.gci for r in found.values()])
        rate = np.mean([r.conflict_rate for r in found.values()])
        steps = next(iter(found.values())).inner_steps
        rows.append(
            f"| {cell.name} | {accuracy} | {difference} | {gci:.2f} | {100 * rate:.0f} % | {steps} | "
            f"{relative_seconds(cell, speed)} |"
        )
    return "\n".join(rows) + "\n"


def _percent(values: np.ndarray) -> str:
    mean, interval = mean_and_interval(values)
    return f"{100 * mean:.2f} ± {100 * interval:.2f}"


def _points(values: np.ndarray) -> str:
    mean, interval = mean_and_interval(values)
    return f"{100 * mean:+.2f} ± {100 * interval:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="gin/tiny_imagenet.gin")
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--work", default="runs/methods", help="the folder of all run folders")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6000, help="meta-steps of every cell")
    parser.add_argument("--meta_batch_size", type=int, default=4, help="tasks of a meta-step")
    parser.add_argument("--tasks", type=int, default=1000, help="test tasks")
    parser.add_argument("--seeds", default="0", help="by commas")
    parser.add_argument("--only", default="*", help="a pattern of names, such as 'MAML + *'")
    parser.add_argument("--speed", help="a report of bench.method_speed")
    parser.add_argument("--out", default="methods_table", help="without .md")
    args = parser.parse_args()
    seeds, chosen = [int(s) for s in args.seeds.split(",")], cells(args.only)
    speed = json.loads(pathlib.Path(args.speed).read_text(encoding="utf-8")) if args.speed else {}
    args.work, args.data_dir = os.path.abspath(args.work), os.path.abspath(args.data_dir)
    for seed in seeds:
        for cell in chosen:
            print(f"{cell.name}, seed {seed}", flush=True)
            run(cell, seed, args)
            text = table(cells("*"), seeds, args.work, speed)
            pathlib.Path(f"{args.out}.md").write_text(text, encoding="utf-8")
    print(pathlib.Path(f"{args.out}.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
