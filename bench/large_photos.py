# SPDX-License-Identifier: Apache-2.0
"""Tasks a second of a training on large photos: as they are, shrunk at the conversion, and decoded once.

    python -m bench.large_photos --folder /tmp/photos --out large_photos.json

Makes JPEG files of 12 megapixels (15 classes of 20 photos, 1.1 GB), converts them with and without
--longest_side, and trains gin/folder.gin for a few steps on each. What it made is removed in the end.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np
from PIL import Image

from bench.process import ROOT
from tf_lwdgh.runs.summaries import read_metrics

_CLASSES, _IMAGES = 15, 20
_WAYS = {
    "as they are": (0, "encoded"),
    "shrunk to 64 pixels": (64, "encoded"),
    "shrunk to 64 pixels, decoded": (64, "decoded"),
    "as the converter and gin/folder.gin have it": (256, "decoded"),
}


def make(folder: pathlib.Path, width: int, height: int) -> None:
    """A folder a class; the photos are smooth with some grain, of about as many bytes as a camera's."""
    rng = np.random.default_rng(0)
    grain = rng.integers(-12, 13, (height, width, 1), np.int8)
    for k in range(_CLASSES):
        (folder / f"class {k}").mkdir(parents=True)
        for i in range(_IMAGES):
            coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
            picture = Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
            picture.save(folder / f"class {k}" / f"{i}.jpg", quality=90)


def convert(folder: pathlib.Path, name: str, longest_side: int) -> dict[str, float]:
    """Makes records of the photos."""
    data = folder / "data"
    start = time.perf_counter()
    _run([
        sys.executable, "tools/convert_folder.py", f"--source={folder / 'photos'}", f"--name={name}",
        f"--data_dir={data}", "--fractions=0.34,0.33,0.33", f"--longest_side={longest_side}",
    ])  # fmt: skip
    seconds = time.perf_counter() - start
    size = sum(f.stat().st_size for f in (data / name).glob("*.tfrecords"))
    return {"conversion_seconds": seconds, "record_bytes": size}


def train(folder: pathlib.Path, name: str, storage: str, steps: int) -> dict[str, float]:
    """Trains on them; the median of the windows after the first."""
    run = folder / f"{name}_{storage}"
    _run([
        sys.executable, "-m", "tf_lwdgh.train", "--gin_file=gin/folder.gin", f"--data_dir={folder / 'data'}",
        f"--run_dir={run}", f"--gin_param=DatasetConfig.name = '{name}'",
        f"--gin_param=PipelineConfig.storage = '{storage}'", "--gin_param=EPOCHS = 1",
        f"--gin_param=STEPS_PER_EPOCH = {steps}", "--gin_param=IMAGE_SIZE = 64",
        "--gin_param=TrainerConfig.log_every = 2", "--gin_param=TrainerConfig.validate_every = 0",
    ])  # fmt: skip
    speeds = [m["speed/tasks_per_second"] for m in read_metrics(run) if "speed/tasks_per_second" in m]
    return {"tasks_per_second": statistics.median(speeds[1:])}


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True, help="a folder to be made, for all of it")
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--out", default="large_photos.json")
    args = parser.parse_args()
    folder = pathlib.Path(args.folder).resolve()
    folder.mkdir(parents=True)
    try:
        make(folder / "photos", args.width, args.height)
        report = {"cores": len(os.sched_getaffinity(0)), "width": args.width, "height": args.height}
        converted: dict[int, dict[str, float]] = {}
        for label, (side, storage) in _WAYS.items():
            name = f"side{side}"
            if side not in converted:
                converted[side] = convert(folder, name, side)
            report[label] = converted[side] | train(folder, name, storage, args.steps)
            print(label, report[label], flush=True)
        pathlib.Path(args.out).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
