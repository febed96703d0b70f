# SPDX-License-Identifier: Apache-2.0
"""Warm-up requests: TensorFlow Serving runs them as it loads a model, so that no user waits for it.

They are records of tensorflow.serving.PredictionLog in assets.extra/tf_serving_warmup_requests, one
for each signature of one task, of a support set of noise with one image a way, and one query. Of a
message nothing is written but fields that hold bytes: on the wire a tag, a length, the bytes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.serving.functions import IMAGES, NAMES

PATH = os.path.join("assets.extra", "tf_serving_warmup_requests")
# Field numbers, of apis/prediction_log.proto, predict.proto and model.proto of TensorFlow Serving.
_PREDICT_LOG, _REQUEST, _MODEL_SPEC, _INPUTS, _KEY, _VALUE = 6, 1, 1, 2, 1, 2
_NAME, _SIGNATURE_NAME = 1, 3
_log = logging.getLogger(__name__)

Inputs = Mapping[str, np.ndarray]


def write(
    folder: str,
    signatures: Mapping[str, Callable[..., dict[str, tf.Tensor]]],
    image_config: ImageConfig,
    n_way: int,
    name: str,
) -> None:
    """Writes the requests into a SavedModel; none where the model fails on noise.

    Args:
      folder: the SavedModel's.
      signatures: the model's, by which each request is tried.
      image_config: the images' size.
      n_way: ways of the task.
      name: of the model.
    """
    try:
        tried = list(requests(lambda n, x: _tried(signatures[n], x), image_config.shape, n_way))
    except tf.errors.InvalidArgumentError as error:  # a request that fails would keep it from loading
        _log.warning("no warm-up requests, since the model fails on noise: %s", error.message)
        return
    path = os.path.join(folder, PATH)
    os.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for signature, inputs in tried:
            writer.write(prediction_log(name, signature, inputs))


def requests(
    call: Callable[[str, Inputs], dict[str, np.ndarray]], shape: tuple[int, int, int], n_way: int
) -> Iterator[tuple[str, Inputs]]:
    """A request for each signature of one task, once the model has answered it.

    Args:
      call: asks a signature, by its name, with arrays by the names of its inputs.
      shape: height, width and channels of the images.
      n_way: ways of the task.

    Yields:
      The signature's name and its inputs.
    """
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (n_way + 1, *shape), np.uint8)
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    kinds = {"": images, "_float": np.float32(images / 255), "_bytes": np.array(encoded, object)}
    labels = np.arange(n_way, dtype=np.int32)
    for kind in IMAGES:
        end = "_bytes" if kind == "_bytes" else ""
        support = {f"support_images{end}": kinds[kind][:-1], "support_labels": labels}
        query = {f"query_images{end}": kinds[kind][-1:]}
        learned = call("adapt" + kind, support)
        asked = (support, {**learned, **query}, {**support, **query})
        for name, inputs in zip(NAMES, asked, strict=True):
            call(name + kind, inputs)
            yield name + kind, inputs


def _tried(signature: Callable, inputs: Inputs) -> dict[str, np.ndarray]:
    outputs = signature(**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def prediction_log(model: str, signature: str, inputs: Inputs) -> bytes:
    """A tensorflow.serving.PredictionLog of one Predict request, serialized.

    Args:
      model: the model's name.
      signature: the signature's.
      inputs: arrays by the signature's names.
    """
    spec = _field(_NAME, model.encode()) + _field(_SIGNATURE_NAME, signature.encode())
    request = _field(_MODEL_SPEC, spec)
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(_INPUTS, _field(_KEY, name.encode()) + _field(_VALUE, tensor))
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content  # 2: of a stated length


def _varint(value: int) -> bytes:
    found = b""
    while value >= 128:
        found += bytes([value % 128 + 128])
        value //= 128
    return found + bytes([value])
