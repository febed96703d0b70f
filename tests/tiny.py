# SPDX-License-Identifier: Apache-2.0
"""A tiny experiment for tests: a data set of noisy patterns, and gin text that trains in moments."""

from __future__ import annotations

import pathlib

import numpy as np

from tf_lwdgh import config
from tf_lwdgh.data import store
from tf_lwdgh.runs.experiment import Assembly, Experiment

TINY = """
include 'gin/base.gin'
include 'gin/learners/maml.gin'
include 'gin/backbones/convnet4.gin'
include 'gin/aggregators/lwdgh_ee.gin'
DatasetConfig.name = 'patterns'
IMAGE_SIZE = 12
N_WAY = 3
N_QUERY = 3
INNER_STEPS = 1
TEST_INNER_STEPS = 2
META_BATCH_SIZE = 3
EPOCHS = 3
STEPS_PER_EPOCH = 4
VAL_TASKS = 5
convnet4.filters = 4
convnet4.blocks = 2
TrainerConfig.log_every = 1
"""


def write_patterns(
    data_dir: pathlib.Path, name: str = "patterns", classes: int = 6, images: int = 12, size: int = 12
) -> None:
    """Writes a data set whose every class is a random pattern, seen under noise."""
    generator = np.random.default_rng(0)

    def one(split: str, i: int):
        pattern = np.kron(generator.integers(0, 256, (size // 4, size // 4, 3)), np.ones((4, 4, 1)))
        noisy = pattern + generator.normal(0, 30, (images, *pattern.shape))
        return f"{split}-{i}", list(np.clip(noisy, 0, 255).astype(np.uint8))

    listed = {s: [one(s, i) for i in range(classes)] for s in store.SPLITS}
    store.write_dataset(data_dir / name, name, listed, image_size=size)


def write_gin(folder: pathlib.Path, text: str = TINY) -> str:
    """Writes a gin file."""
    path = folder / "tiny.gin"
    path.write_text(text, encoding="utf-8")
    return str(path)


def build(folder: pathlib.Path, *gin_params: str) -> Assembly:
    """The tiny experiment; `folder` holds data/ (made when it is not there) and tiny.gin."""
    if not (folder / "data").exists():
        write_patterns(folder / "data")
    config.parse([write_gin(folder)], gin_params)
    return Experiment().build(folder / "data")
