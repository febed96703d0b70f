# SPDX-License-Identifier: Apache-2.0
"""The measurement of exported models: the same queries, asked for in three ways."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import tensorflow as tf

from bench import served_accuracy
from tests import tiny
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.learners import MAML
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks import backbones
from tf_lwdgh.serving import saved_models
from tf_lwdgh.serving.module import ServingModule


@pytest.mark.parametrize(("way", "calls"), zip(served_accuracy.WAYS, ([6], [1] * 6, [3, 3])))
def test_every_way_asks_for_every_query_once_and_keeps_their_places(way, calls):
    queries = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1)
    asked = []

    def labels_of(images: np.ndarray) -> np.ndarray:
        asked.append(len(images))
        return images[:, 0, 0, 0] * 2

    labels = served_accuracy.WAYS[way](labels_of, queries)
    np.testing.assert_array_equal(labels, [[0, 2, 4], [6, 8, 10]])
    assert asked == calls


@pytest.mark.slow
def test_a_table_of_models_is_printed(tmp_path, monkeypatch, capsys):
    tiny.write_patterns(tmp_path / "data")
    keras_model = backbones.convnet4(image_size=12, n_way=3, filters=4, blocks=1)
    learner = MAML(inner_loop=InnerLoop(steps=1, inner_lr=0.5), head="zero")
    module = ServingModule(
        MetaParameters(keras_model, learner), ImageConfig(image_size=12), batch_norm="inductive",
        metadata={"dataset": "patterns"},
    )  # fmt: skip
    path = str(tmp_path / "model")
    saved_models.save(module, path)
    options = [f"--data_dir={tmp_path / 'data'}", "--tasks=4", "--n_query=5"]
    monkeypatch.setattr(sys, "argv", ["served_accuracy", path, *options])
    served_accuracy.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("|") for line in lines] == [5, 5, 5]
    assert lines[2].startswith("| BatchNorm inductive | ")
    figures = re.findall(r"([\d.]+) ± [\d.]+", lines[2])
    assert len(figures) == 3 and len(set(figures)) == 1  # no query depends on the others

    args = served_accuracy.parse()
    model, hits = tf.saved_model.load(path), []
    for task in served_accuracy.tasks(args, served_accuracy.described(path)):
        images = task.query_images.reshape(-1, 12, 12, 3)
        labels = model.adapt_and_predict(task.support_images, task.support_labels, images)["labels"]
        hits.append(np.mean(labels.numpy() == np.repeat([0, 1, 2], 5)))
    assert figures[0] == f"{100 * np.mean(hits):.1f}"
    assert np.mean(hits) > 0.5  # chance is a third
