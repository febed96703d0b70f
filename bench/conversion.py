# SPDX-License-Identifier: Apache-2.0
"""A converter at full size: images/s, CPU seconds, peak memory, bytes and files; killed midway, and again.

    python -m bench.conversion --set mini --form cache --folder /tmp/full --out mini.json
    python -m bench.conversion --set tiered --form png --folder /tmp/full --out tiered.json

Generates the data set with pictures of its own in the form that people hold (mini-ImageNet: 1.9 GB
and 1.1 GB of records; tiered-ImageNet: about 10 GB twice; tiered_train: its training images and few
others, 6 GB twice), converts it, kills a second conversion halfway, starts that again, and compares
every byte. What it made is removed in the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image

from bench.pipeline import _png
from bench.process import ROOT

SIZES = {
    "mini": {"train": (64, 38_400), "val": (16, 9_600), "test": (20, 12_000)},
    "tiered": {"train": (351, 448_695), "val": (97, 124_261), "test": (160, 206_209)},
    "tiered_train": {"train": (351, 448_695), "val": (97, 970), "test": (160, 1600)},
}
FORMS = {"mini": ("cache", "folders"), "tiered": ("png",), "tiered_train": ("png",)}
_CATEGORIES = {"train": 20, "val": 6, "test": 8}
_POOL = 512  # pictures that differ; every image is one of them with a corner of its own


def pool(size: int = 84, noise: int = 4) -> np.ndarray:
    """[512, size, size, 3] uint8: smooth random pictures with a little noise, as large in PNG as photographs."""
    rng = np.random.default_rng(0)
    made = np.empty((_POOL, size, size, 3), np.uint8)
    for picture in made:
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.int16)
        picture[:] = np.clip(smooth + rng.integers(-noise, noise + 1, smooth.shape), 0, 255)
    return made


def mini_cache(folder: pathlib.Path, sizes: dict[str, tuple[int, int]]) -> None:
    """mini-imagenet-cache-{train,val,test}.pkl: one array, and the rows of each class."""
    pictures = pool()
    for split, (classes, images) in sizes.items():
        pixels = pictures[np.arange(images) % _POOL]
        pixels[:, 0, 0, :2] = np.arange(images)[:, None] // (1, 256) % 256
        each = images // classes
        names = {f"{split}{c:03d}": list(range(c * each, (c + 1) * each)) for c in range(classes)}
        with open(folder / f"mini-imagenet-cache-{split}.pkl", "wb") as file:
            pickle.dump({"image_data": pixels, "class_dict": names}, file, protocol=2)


def mini_folders(folder: pathlib.Path, sizes: dict[str, tuple[int, int]]) -> None:
    """{split}/{class}/*.png."""
    encoded = [_png(Image.fromarray(p)) for p in pool()]
    for split, (classes, images) in sizes.items():
        for i in range(images):
            path = folder / split / f"{split}{i * classes // images:03d}" / f"{i:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded[i % _POOL])


def tiered_png(folder: pathlib.Path, sizes: dict[str, tuple[int, int]]) -> None:
    """{split}_images_png.pkl, a list of arrays of bytes as OpenCV makes them, and {split}_labels.pkl."""
    encoded = [np.frombuffer(_png(Image.fromarray(p)), np.uint8)[:, None] for p in pool(noise=2)]
    parts = [pickle.dumps(array, protocol=2)[2:-1] for array in encoded]  # without PROTO and STOP
    for split, (classes, images) in sizes.items():
        with open(folder / f"{split}_images_png.pkl", "wb") as file:
            file.write(b"\x80\x02](")  # a list, and its elements
            for i in range(images):
                file.write(parts[i % _POOL])
            file.write(b"e.")
        labels = np.arange(images) * classes // images
        general = labels * _CATEGORIES[split] // classes
        content = {
            "label_specific": labels, "label_general": general,
            "label_specific_str": [f"{split} class {c}" for c in range(classes)],
            "label_general_str": [f"{split} category {c}" for c in range(_CATEGORIES[split])],
        }  # fmt: skip
        (folder / f"{split}_labels.pkl").write_bytes(pickle.dumps(content, protocol=2))


def start(which: str, source: pathlib.Path, data_dir: pathlib.Path, name: str) -> subprocess.Popen:
    """The command that users type."""
    tool = ROOT / "tools" / f"convert_{which.split('_')[0]}_imagenet.py"
    line = [sys.executable, str(tool), f"--source={source}", f"--data_dir={data_dir}", f"--name={name}"]
    line += ["--overwrite"] + ["--skip_bad"] * (which == "tiered_train")  # which counts the images
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True)


def measured(process: subprocess.Popen) -> dict[str, float]:
    """Waits for a command: its seconds, CPU seconds and peak memory in MB.

    Raises:
      RuntimeError: it failed.
    """
    begin = time.perf_counter()
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the converter left with {process.returncode}: {said}")
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_megabytes": used.ru_maxrss / 1024,
    }


def content(folder: pathlib.Path) -> dict[str, str]:
    """The hash of every file."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with open(path, "rb") as file:
            found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def size(folder: pathlib.Path) -> int:
    """Bytes of all files below a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def killed(which: str, source: pathlib.Path, data_dir: pathlib.Path, seconds: float) -> dict:
    """A conversion killed after some seconds: what lies there then."""
    process = start(which, source, data_dir, "again")
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hidden = [p for p in data_dir.iterdir() if p.name.startswith(".")]
    return {
        "after_seconds": seconds,
        "data_set_there": (data_dir / "again").exists(),
        "left_hidden_bytes": sum(map(size, hidden)),
    }


def measure(which: str, form: str, folder: pathlib.Path, *, once: bool) -> dict:
    """The whole report of one data set in one form."""
    source, data_dir = folder / "source", folder / "data"
    source.mkdir(parents=True)
    {"cache": mini_cache, "folders": mini_folders, "png": tiered_png}[form](source, SIZES[which])
    images = sum(n for _, n in SIZES[which].values())
    report = {"set": which, "form": form, "images": images, "source_bytes": size(source)}
    report |= {"cores": len(os.sched_getaffinity(0)), "load": [os.getloadavg()]}
    report["whole"] = measured(start(which, source, data_dir, "whole"))
    report["whole"]["images_per_second"] = images / report["whole"]["seconds"]
    report["whole"]["images_per_cpu_second"] = images / report["whole"]["cpu_seconds"]
    report["load"].append(os.getloadavg())
    whole = content(data_dir / "whole")
    report |= {"files": len(whole), "bytes": size(data_dir / "whole")}
    if once:
        return report
    shutil.rmtree(data_dir / "whole")  # room for the next; its hashes are kept
    report["killed"] = killed(which, source, data_dir, report["whole"]["seconds"] / 2)
    report["again"] = measured(start(which, source, data_dir, "again"))
    report["again"]["hidden_folders_left"] = len([p for p in data_dir.iterdir() if p.name[0] == "."])
    again = content(data_dir / "again")
    named = dict.fromkeys(("dataset_spec.json", "croissant.json"), "")  # which hold the data set's name
    report["again"]["records_equal"] = {**again, **named} == {**whole, **named}
    report["load"].append(os.getloadavg())
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=SIZES, default="mini")
    parser.add_argument("--form", default="cache", help="mini: cache or folders; tiered: png")
    parser.add_argument("--folder", required=True, help="where to work; must not be there")
    parser.add_argument("--once", action="store_true", help="kill nothing")
    parser.add_argument("--out", default="conversion.json")
    args = parser.parse_args()
    if args.form not in FORMS[args.set]:
        known = ", ".join(FORMS[args.set])
        raise ValueError(f"--form must be one of {known} for {args.set}. Received: {args.form!r}.")
    folder = pathlib.Path(args.folder)
    try:
        report = measure(args.set, args.form, folder, once=args.once)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = json.dumps(report, indent=1)
    pathlib.Path(args.out).write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
