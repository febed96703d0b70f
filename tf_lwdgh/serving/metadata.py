# SPDX-License-Identifier: Apache-2.0
"""What every exported model tells of itself."""

from __future__ import annotations

import dataclasses
import platform

import keras
import tensorflow as tf

import tf_lwdgh
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.learners import Learner
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.serving.graphs import TaskGraphs

_IMAGE_SETTINGS = ("image_size", "channels", "normalisation", "mean", "std", "invert")


def describe(
    parameters: MetaParameters,
    learner: Learner,
    image_config: ImageConfig,
    graphs: TaskGraphs,
    inner_steps: int | None,
) -> dict[str, object]:
    """What is known of a served model, as JSON values.

    Args:
      parameters: the learner as it was trained, and its variables.
      learner: the learner as it is served.
      image_config: how pixels become the network's input.
      graphs: what learns and answers, and the tensors of a learned classifier.
      inner_steps: asked for; None: as in training.
    """
    model = parameters.model
    image = dataclasses.asdict(image_config)
    return {
        "learner": type(learner).__name__,
        "reference": learner.reference,
        "backbone": model.keras_model.name,
        "trainable_parameters": sum(v.shape.num_elements() for v in map(_tensor, model.variables)),
        "trained_variables": list(parameters.names),
        "own_parameters": {name: list(v.shape) for name, v in parameters.own.items()},
        "batch_norm": learner.batch_norm,
        "trained_batch_norm": parameters.learner.batch_norm,
        "predictions_depend_on_the_other_queries": learner.depends_on_queries,
        "most_queries_in_a_call": graphs.most_queries,
        "trained_n_way": model.n_way,
        "largest_n_way": None if learner.any_way else model.n_way,
        "inner_steps": learner.inner_steps(inner_steps),
        "classifier": graphs.form.describe(),
        "image": {
            **{name: image[name] for name in _IMAGE_SETTINGS},
            "input": "uint8 in 0..255, float32 in [0, 1], or encoded (JPEG, PNG, BMP, GIF)",
        },
        "versions": {
            "tf_lwdgh": tf_lwdgh.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "python": platform.python_version(),
        },
    }


def _tensor(variable: keras.Variable) -> tf.Tensor:
    return tf.convert_to_tensor(variable)
