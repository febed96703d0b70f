# SPDX-License-Identifier: Apache-2.0
"""Draws the README's picture: a task answered, the speed beside other libraries, where tasks disagree.

python tools/draw_front.py --run_dir=runs/demo --data_dir=data --output=docs/front.png
"""

import argparse
import io
import json
import pathlib
import sys

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # runs without installation

import tf_lwdgh as fs
from tf_lwdgh.data import store

ROOT = pathlib.Path(__file__).resolve().parents[1]
N_WAY, N_QUERY = 5, 4
LIBRARIES = {
    "torchopt": "TorchOpt", "higher": "higher", "learn2learn_algorithm": "learn2learn's way",
    "torch_func": "torch.func",
}  # fmt: skip


def task(data_dir: str, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture to learn from and some to ask about, of test classes of glyphs: [N, H, W, C] and [N, Q, H, W, C]."""
    random = np.random.default_rng(seed)
    folder, spec = store.open_dataset(data_dir, "glyphs")
    found = []
    for class_id in random.choice(spec.classes("test"), N_WAY, replace=False):
        encoded = random.permutation(np.array(store.read_class(folder, spec, class_id), object))[: 1 + N_QUERY]
        opened = (Image.open(io.BytesIO(x)).convert("RGB").resize((size, size), Image.Resampling.BOX) for x in encoded)
        found.append([np.asarray(image) for image in opened])
    pictures = np.array(found)
    return pictures[:, 0], pictures[:, 1:]


def draw_task(figure: Figure, cells, run_dir: str, data_dir: str, seed: int) -> None:
    run = fs.load_run(run_dir, data_dir=data_dir)
    support, query = task(data_dir, 28, seed)
    answer = run.adapt(support, np.arange(N_WAY)).predict(query.reshape(-1, *query.shape[2:]))
    said = answer["labels"].reshape(N_WAY, N_QUERY)
    sure = answer["probabilities"].max(1).reshape(N_WAY, N_QUERY)
    grid = cells.subgridspec(N_WAY, N_QUERY + 1, hspace=0.45, wspace=0.1)
    for label in range(N_WAY):
        for column in range(N_QUERY + 1):
            axis = figure.add_subplot(grid[label, column])
            axis.imshow(support[label] if column == 0 else query[label, column - 1])
            axis.set(xticks=[], yticks=[])
            if column == 0:
                for side in axis.spines.values():
                    side.set(color="black", linewidth=2)
                if label == 0:
                    axis.set_title("learned from", fontsize=8)
                continue
            right = said[label, column - 1] == label
            axis.set_title(f"{sure[label, column - 1]:.0%}", fontsize=8, color="tab:green" if right else "tab:red")
            for side in axis.spines.values():
                side.set(color="tab:green" if right else "tab:red", linewidth=1.5)


def draw_speed(axis) -> None:
    report = json.loads((ROOT / "docs/benchmark.json").read_text(encoding="utf-8"))
    rivals = next(w for w in report["workloads"] if w["name"] == "W1")["rivals"]
    pairs = {label: rivals[name] for name, label in LIBRARIES.items()}
    seconds = {"tf_lwdgh": np.median([p["ours"]["seconds"] for p in pairs.values()])}
    seconds |= {label: p["rival"]["seconds"] for label, p in pairs.items()}
    bars = axis.barh(list(seconds), list(seconds.values()), color=["tab:green", *["tab:gray"] * len(pairs)])
    axis.bar_label(bars, [f"{s:.2f} s" for s in seconds.values()], padding=3, fontsize=8)
    axis.set_xlim(0, 1.2 * max(seconds.values()))
    axis.invert_yaxis()
    axis.set_title(f"a second-order meta-step, {report['cores']} CPU cores", fontsize=9)


def draw_conflict(axis, run_dir: str) -> None:
    lines = pathlib.Path(run_dir, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "gci/conv1/kernel" in row]
    for name in [n for n in rows[0] if n.startswith("gci/") and n.endswith("kernel")]:
        axis.plot([r["step"] for r in rows], [r[name] for r in rows], label=name.split("/")[1])
    axis.set_xlabel("meta-step", fontsize=8)
    axis.set_title("gradient conflict index by layer", fontsize=9)
    axis.legend(fontsize=7, ncols=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run_dir", default="runs/demo")
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--seed", type=int, default=0, help="which test task is shown")
    parser.add_argument("--output", default="docs/front.png")
    args = parser.parse_args()
    figure = Figure(figsize=(13, 4))
    cells = figure.add_gridspec(1, 3, width_ratios=(1, 1, 1.1), left=0.02, right=0.98, wspace=0.3, bottom=0.13, top=0.9)
    draw_task(figure, cells[0], args.run_dir, args.data_dir, args.seed)
    draw_speed(figure.add_subplot(cells[1]))
    draw_conflict(figure.add_subplot(cells[2]), args.run_dir)
    for axis in figure.axes:
        axis.tick_params(labelsize=8)
    figure.savefig(args.output, dpi=110)


if __name__ == "__main__":
    main()
