# SPDX-License-Identifier: Apache-2.0
"""torchvision-style loading: PNG files opened by PIL one by one, as `ImageFolder` and `ToTensor` do.

torchvision itself is not needed: `ImageFolder` is PIL's open and convert, `ToTensor` a division by 255.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import time

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

WAY, EACH, TASKS = 5, 16, 4


class Episodes(Dataset):
    """Task i: 16 images of each of 5 classes."""

    def __init__(self, tree: pathlib.Path) -> None:
        self.classes = [sorted(folder.iterdir()) for folder in sorted(tree.iterdir())]

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, index: int) -> torch.Tensor:
        rng = np.random.default_rng(index)
        images = []
        for c in rng.choice(len(self.classes), WAY, replace=False):
            for path in rng.choice(self.classes[c], EACH, replace=False):
                with Image.open(path) as image:
                    pixels = np.array(image.convert("RGB"))
                images.append(torch.from_numpy(pixels).permute(2, 0, 1).float().div(255))
        return torch.stack(images)


def measure(tree: pathlib.Path, workers: int, seconds: float) -> float:
    """Images a second after a short warm-up."""
    batches = iter(DataLoader(Episodes(tree), batch_size=TASKS, num_workers=workers))
    for _ in range(5):
        next(batches)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        count += next(batches).shape[:2].numel()
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tree", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=5)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    rates = {f"{n} workers": measure(args.tree, n, args.seconds) for n in (1, cores)}
    json.dump(rates, sys.stdout)
