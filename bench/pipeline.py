# SPDX-License-Identifier: Apache-2.0
"""P1: images/s of the input pipeline alone, of a torchvision-style loader, and the share of time a step waits.

    python -m bench.pipeline --peers_python PATH --out docs/pipeline.json

A data set of tiered-ImageNet's size, made where it is not there (2.7 GB), streamed from disk: how long it
takes to open, the memory, the speed beside the step's.

    python -m bench.pipeline --full_size FOLDER --out docs/pipeline_full_size.json
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import psutil
import tensorflow as tf
from PIL import Image

from bench.process import ROOT
from tf_lwdgh.aggregators import LWDGH
from tf_lwdgh.aggregators.explore_exploit import ExploreExploit
from tf_lwdgh.data import pipeline, store
from tf_lwdgh.data.batches import Batches
from tf_lwdgh.data.episodes import EpisodeConfig
from tf_lwdgh.data.image_source import STORAGES, ImageSource
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.learners import MAML
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks import backbones
from tf_lwdgh.outer.meta_step import MetaStep, OuterLoop
from tf_lwdgh.outer.threads import Threads

CLASSES, IMAGES = 20, 60
TASKS = 4


def stored(data_dir: str, name: str, size: int) -> list[list[bytes]]:
    """Images of a converted data set, as PNG of the size."""
    folder, spec = store.open_dataset(data_dir, name)
    made = []
    for c in spec.classes("train")[:CLASSES]:
        made.append([])
        for encoded in store.read_class(folder, spec, c)[:IMAGES]:
            made[-1].append(_png(Image.open(io.BytesIO(encoded)).convert("RGB").resize((size, size))))
    return made


def pictures(size: int) -> list[list[bytes]]:
    """Smooth random RGB pictures with some noise, as PNG: about as large as photographs."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(CLASSES):
        made.append([])
        for _ in range(IMAGES):
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.int16)
            noisy = np.clip(smooth + rng.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)
            made[-1].append(_png(Image.fromarray(noisy)))
    return made


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write(folder: pathlib.Path, made: list[list[bytes]], size: int) -> store.DatasetSpec:
    """The pictures as records, and as a folder tree for the peer."""
    for c, images in enumerate(made):
        (folder / "tree" / f"{c:02}").mkdir(parents=True)
        for i, image in enumerate(images):
            (folder / "tree" / f"{c:02}" / f"{i:03}.png").write_bytes(image)
    named = [(f"{c:02}", images) for c, images in enumerate(made)]
    splits = {"train": named, "val": named[:1], "test": named[1:2]}
    splits |= {k: [(f"{k}{n}", i) for n, i in splits[k]] for k in ("val", "test")}
    return store.write_dataset(folder / "records", "noise", splits, image_size=size)


TIERED = {"train": (351, 448_695), "val": (97, 124_261), "test": (160, 206_209)}  # classes, images


def write_full_size(folder: str) -> None:
    """As many small JPEGs as tiered-ImageNet has, each of its own bytes, from a pool of some thousand."""
    rng, pool = np.random.default_rng(0), []
    for _ in range(3000):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((84, 84), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=93)
        pool.append(buffer.getvalue())

    def images(first: int, count: int):
        for number in range(first, first + count):
            comment = b"\xff\xfe\x00\x06" + number.to_bytes(4, "big")  # after the start of the image
            jpeg = pool[number * 7919 % len(pool)]
            yield jpeg[:2] + comment + jpeg[2:]

    splits, first = {}, 0
    for split, (classes, total) in TIERED.items():
        splits[split] = []
        for c in range(classes):
            count = total // classes + (c < total % classes)
            splits[split].append((f"{split}-{c}", images(first, count)))
            first += count
    store.write_dataset(folder, "full_size", splits, image_size=84)


def forget(folder: str, *, index: bool) -> None:
    """Drops the records from the page cache, and the index too if so asked."""
    for path in pathlib.Path(folder).iterdir():
        if index and path.name in store.INDEX_FILES:
            path.unlink()
            continue
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def full_size(folder: str, seconds: float, steps: int) -> dict:
    """Opening, memory and speed of the training split of a full-size set on disk."""
    if not os.path.exists(os.path.join(folder, store.SPEC_FILE)):
        write_full_size(folder)
    spec, images = store.DatasetSpec.load(folder), ImageConfig(image_size=84)
    cores = len(os.sched_getaffinity(0))
    report = {"cores": cores, "load": [os.getloadavg()], "opening_seconds": {}, "images_per_second": {}}
    report["megabytes_before"] = megabytes()
    openings = {"no index": True, "index": False, "index and files in the page cache": None}
    for how, index in openings.items():
        if index is not None:
            forget(folder, index=index)
        start = time.perf_counter()
        source = ImageSource(folder, spec, "train", images, "disk")
        report["opening_seconds"][how] = time.perf_counter() - start
    report["images"], report["megabytes_opened"] = len(source), megabytes()
    for threads in sorted({1, cores}):
        iterator = iter(tasks_of(source, threads))
        report["images_per_second"][f"disk, {threads} threads"] = images_per_second(iterator, seconds)
    report["megabytes_streamed"] = megabytes()
    report["step"] = waiting(iter(tasks_of(source, None)), 84, steps)
    report["megabytes_trained"] = megabytes()
    report["load"].append(os.getloadavg())
    return report


def megabytes() -> float:
    """This process's resident memory."""
    return psutil.Process().memory_info().rss / 1e6


def tasks_of(source: ImageSource, threads: int | None) -> Batches:
    """Endless meta-batches of 5-way 1-shot tasks with 15 queries."""
    settings = pipeline.PipelineConfig(storage=source.storage, threads=threads)
    return pipeline.meta_batches(source, EpisodeConfig(), meta_batch_size=TASKS, seed=0, pipeline_config=settings)


def batches(spec, folder: pathlib.Path, size: int, storage: str, threads: int | None):
    """Endless meta-batches from a storage."""
    images = ImageConfig(image_size=size)
    source = ImageSource(str(folder / "records"), spec, "train", images, storage)
    return iter(tasks_of(source, threads))


def images_per_second(iterator, seconds: float) -> float:
    """After a short warm-up."""
    for _ in range(5):
        images = next(iterator).query_images.shape[:2].num_elements()
    images = images * 16 // 15
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(iterator)
        count += images
    return count / (time.perf_counter() - start)


def waiting(iterator, size: int, steps: int) -> dict[str, float]:
    """Convnet4's meta-step fed by the pipeline: seconds a step, and the share of them spent waiting."""
    step = MetaStep(
        parameters=MetaParameters(backbones.convnet4(image_size=size), MAML()),
        aggregator=LWDGH(),
        explore=ExploreExploit(),
        optimizer=keras.optimizers.Adam(0.001),
        settings=OuterLoop(meta_batch_size=TASKS),
        seed=0,
    )
    waited = 0.0
    for i in range(steps + 2):
        if i == 2:  # After tracing and a warm-up.
            begin, waited = time.perf_counter(), 0.0
        start = time.perf_counter()
        episode = next(iterator)
        waited += time.perf_counter() - start
        step(episode, tf.constant(i, tf.int64))["train/loss"].numpy()
    total = time.perf_counter() - begin
    return {
        "seconds": total / steps,
        "waiting_share": waited / total,
        "images_per_second_needed": TASKS * 80 * steps / total,
    }


def peer(python: str, tree: pathlib.Path, seconds: float) -> dict:
    """The loader of peers/folder_loader.py in its own environment."""
    line = [python, "-m", "bench.peers.folder_loader", "--tree", str(tree)]
    done = subprocess.run([*line, "--seconds", str(seconds)], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers_python", default=".venv-peers/bin/python")
    parser.add_argument("--dataset", help="a converted data set whose images to use; else made ones")
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--size", type=int, default=84)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--full_size", help="the folder of a set of tiered-ImageNet's size")
    parser.add_argument("--out", default="pipeline.json")
    args = parser.parse_args()
    Threads().apply()
    if args.full_size:
        write_report(full_size(args.full_size, args.seconds, args.steps), args.out)
        return
    cores = len(os.sched_getaffinity(0))
    report = {"size": args.size, "cores": cores, "load": [os.getloadavg()], "images_per_second": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        made = stored(args.data_dir, args.dataset, args.size) if args.dataset else pictures(args.size)
        spec = write(folder, made, args.size)
        rates = report["images_per_second"]
        for storage in STORAGES:
            for threads in (1, cores):
                iterator = batches(spec, folder, args.size, storage, threads)
                rates[f"{storage}, {threads} threads"] = images_per_second(iterator, args.seconds)
        report["peer"] = peer(args.peers_python, folder / "tree", args.seconds)
        report["step"] = waiting(batches(spec, folder, args.size, "encoded", None), args.size, args.steps)
    report["load"].append(os.getloadavg())
    write_report(report, args.out)


def write_report(report: dict, out: str) -> None:
    """As a file, and on the terminal."""
    text = json.dumps(report, indent=1)
    pathlib.Path(out).write_text(text + "\n", encoding="utf-8")
    print(text, file=sys.stdout)


if __name__ == "__main__":
    main()
