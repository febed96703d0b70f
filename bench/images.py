# SPDX-License-Identifier: Apache-2.0
"""Real images for the benchmark: the training split of a converted data set as one .npy file.

From the root of the repository:

    python -m bench.images --dataset=tiny_imagenet --out=tiny_imagenet.npy
    python -m bench.images --dataset=omniglot --image_size=28 --channels=1 --each=20 --out=omniglot.npy
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from tf_lwdgh.data import store
from tf_lwdgh.data.image_source import ImageSource
from tf_lwdgh.data.images import ImageConfig, preprocess


def read(folder: str, spec: store.DatasetSpec, config: ImageConfig, classes: int, each: int):
    """[classes, each, S, S, C] float32 in [-1, 1]: the first images of the first classes."""
    source = ImageSource(folder, spec, "train", config, "disk")
    large = [c for c in spec.classes("train") if spec.images_per_class[c] >= each][:classes]
    if not large:
        raise ValueError(f"no class of {spec.name!r} has as many images as --each. Received: {each}.")
    rows = source.rows(tf.constant(large), tf.tile(tf.range(each)[None], [len(large), 1]))
    images = preprocess(source.gather(tf.reshape(rows, [-1])), config)
    return images.numpy().reshape(len(large), each, *config.shape)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, help="a converted data set")
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--image_size", type=int, default=84)
    parser.add_argument("--channels", type=int, default=3, choices=(1, 3))
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--each", type=int, default=40, help="images a class")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    settings = ImageConfig(image_size=args.image_size, channels=args.channels, normalisation="signed")
    found = store.open_dataset(args.data_dir, args.dataset)
    np.save(args.out, read(*found, settings, args.classes, args.each))
