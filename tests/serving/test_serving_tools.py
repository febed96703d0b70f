# SPDX-License-Identifier: Apache-2.0
"""Other programs take an export: TensorFlow Serving's requests, saved_model_cli, Keras, LiteRT."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.serving.exports import close, task
from tf_lwdgh.serving import saved_models, warmup
from tf_lwdgh.serving.functions import IMAGES, NAMES

MESSAGES = {  # of TensorFlow Serving's apis/: name -> fields (name, number, type)
    "ModelSpec": (("name", 1, "string"), ("signature_name", 3, "string")),
    "PredictRequest": (("model_spec", 1, "ModelSpec"), ("inputs", 2, "Input*")),
    "Input": (("key", 1, "string"), ("value", 2, "tensorflow.TensorProto")),  # a map's entry
    "PredictLog": (("request", 1, "PredictRequest"),),
    "PredictionLog": (("predict_log", 6, "PredictLog"),),
}


def prediction_log_class() -> type:
    """The message class, made of the fields above by protobuf itself."""
    protobuf = "google.protobuf."  # TensorFlow brings it
    descriptors = pytest.importorskip(protobuf + "descriptor_pb2")
    file = descriptors.FileDescriptorProto(name="log.proto", package="log", syntax="proto3")
    file.dependency.append(tf.make_tensor_proto(0).DESCRIPTOR.file.name)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            made = message.field.add(name=field, number=number)
            made.label = 3 if kind.endswith("*") else 1
            kind = kind.rstrip("*")
            made.type = 9 if kind == "string" else 11
            if kind != "string":
                made.type_name = f".{kind}" if "." in kind else f".log.{kind}"
    pool = pytest.importorskip(protobuf + "descriptor_pool").Default()
    pool.AddSerializedFile(file.SerializeToString())
    messages = pytest.importorskip(protobuf + "message_factory")
    return messages.GetMessageClass(pool.FindMessageTypeByName("log.PredictionLog"))


def test_every_warm_up_request_is_one_that_the_model_answers(exported):
    export = exported["inductive"]
    log, found = prediction_log_class(), []
    for record in tf.data.TFRecordDataset(os.path.join(export.path, warmup.PATH)):
        request = log.FromString(record.numpy()).predict_log.request
        assert request.model_spec.name == "inductive"
        name = request.model_spec.signature_name
        inputs = {i.key: tf.constant(tf.make_ndarray(i.value)) for i in request.inputs}
        answer = export.loaded.signatures[name](**inputs)
        assert set(answer) >= ({"n_way"} if name.startswith("adapt") and "predict" not in name else {"labels"})
        found.append(name)
    assert sorted(found) == sorted(name + kind for name in NAMES for kind in IMAGES)


def test_versions_are_numbered_folders(tmp_path):
    model = str(tmp_path / "model")
    assert saved_models.versioned(model, None) == model
    assert saved_models.versioned(model, "next") == os.path.join(model, "1")
    for name in ("2", "10", "notes"):
        (tmp_path / "model" / name).mkdir(parents=True)
    assert saved_models.versioned(model, "next") == os.path.join(model, "11")
    assert saved_models.versioned(model, "7") == os.path.join(model, "7")
    for wrong in ("0", "-1", "v1", "01", ""):
        with pytest.raises(ValueError, match=f"--model_version must be .* Received: '{wrong}'"):
            saved_models.versioned(model, wrong)


def test_saved_model_cli_runs_a_signature(exported, tmp_path):
    export, (support, labels, query) = exported["inductive"], task()
    np.savez(tmp_path / "task.npz", s=support, l=labels.astype(np.int32), q=query)
    done = subprocess.run(
        [
            sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "run",
            "--dir", export.path, "--tag_set", "serve", "--signature_def", "adapt_and_predict",
            "--inputs",
            "support_images=task.npz[s];support_labels=task.npz[l];query_images=task.npz[q]",
            "--outdir", str(tmp_path),
        ],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = export.loaded.adapt_and_predict(support, labels, query)
    close(np.load(tmp_path / "probabilities.npy"), expected["probabilities"])
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), expected["labels"])


def test_a_keras_layer_calls_an_export(exported):
    export, (support, labels, query) = exported["inductive"], task()
    expected = export.loaded.adapt_and_predict(support, labels, query)["probabilities"]
    layer = keras.layers.TFSMLayer(export.path, call_endpoint="adapt_and_predict")
    answer = layer(support, support_labels=labels.astype(np.float32), query_images=query)
    np.testing.assert_array_equal(answer["probabilities"], expected)
    classifier = export.loaded.adapt(support, labels)
    layer = keras.layers.TFSMLayer(export.path, call_endpoint="predict")
    answer = layer(dict(classifier), query_images=query)
    np.testing.assert_array_equal(answer["probabilities"], expected)


def test_predict_becomes_a_litert_model(exported):
    export, (support, labels, query) = exported["inductive"], task()
    predict = export.loaded.signatures["predict_unchecked"]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([predict], export.loaded)
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    classifier = export.loaded.adapt(support, labels)
    answer = interpreter.get_signature_runner()(
        query_images=np.float32(query / 255), **{n: x.numpy() for n, x in classifier.items()}
    )
    expected = export.loaded.predict(classifier, query)
    close(answer["probabilities"], expected["probabilities"])
