# SPDX-License-Identifier: Apache-2.0
"""Exported models: the same predictions without this package, and clear refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.serving.exports import CASES, SIZE, STEPS, close, task
from tf_lwdgh.data.images import ImageConfig, preprocess
from tf_lwdgh.learners.context import Context
from tf_lwdgh.outer.evaluation import Evaluator
from tf_lwdgh.serving import module as serving
from tf_lwdgh.types import Episode


@pytest.mark.parametrize("cases", [("transductive", "residual"), pytest.param(tuple(CASES), marks=pytest.mark.slow)])
def test_a_fresh_process_without_the_package_predicts_as_this_one(exported, tmp_path, cases):
    support, labels, query = task()
    np.savez(tmp_path / "task.npz", support=support, labels=labels, query=query)
    program = """
        import sys
        sys.modules["tf_lwdgh"] = None  # importing it fails, even where it is installed
        import numpy as np, tensorflow as tf
        task = np.load("task.npz")
        outputs = {}
        for path in sys.argv[1:]:
            model = tf.saved_model.load(path)
            output = model.adapt_and_predict(task["support"], task["labels"], task["query"])
            outputs[path + "/probabilities"] = output["probabilities"].numpy()
            outputs[path + "/labels"] = output["labels"].numpy()
        np.savez("outputs.npz", **outputs)
        assert not [name for name in sys.modules if name.startswith("tf_lwdgh.")]
    """
    exports = [exported[case] for case in cases]
    paths = [e.path for e in exports]
    command = [sys.executable, "-I", "-c", textwrap.dedent(program), *paths]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outputs = np.load(tmp_path / "outputs.npz")
    for export in exports:
        expected = export.in_process(support, labels, query)
        close(outputs[export.path + "/probabilities"], expected)
        np.testing.assert_array_equal(outputs[export.path + "/labels"], expected.argmax(-1))


@pytest.mark.parametrize("case", CASES)
def test_predicted_labels_are_those_of_the_evaluation(exported, case):
    export, (support, labels, query) = exported[case], task(n_query=10)
    pixels = [preprocess(tf.constant(x), export.images)[None] for x in (support, query)]
    labels32 = tf.constant(labels, tf.int32)[None]
    episode = Episode(pixels[0], labels32, pixels[1], labels32)
    evaluator = Evaluator(export.parameters, inner_steps=STEPS)
    expected = evaluator(episode)["predictions"][0]
    got = export.loaded.adapt_and_predict(support, labels, query)["labels"]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("n_way", "k_shot", "n_query"), [(2, 1, 1), (5, 3, 4), (7, 2, 20)])
def test_a_zero_head_takes_any_number_of_ways_shots_and_queries(exported, n_way, k_shot, n_query):
    export, episode = exported["inductive"], task(n_way, k_shot, n_query)
    output = export.loaded.adapt_and_predict(*episode)
    assert output["probabilities"].shape == (n_query, n_way)
    close(output["probabilities"], export.in_process(*episode))


def test_fewer_ways_than_a_learned_head_has_use_its_first_ways(exported):
    export, episode = exported["transductive"], task(n_way=3)
    meta = export.parameters.values()
    kernel, bias = meta.network[-2:]
    sliced = meta._replace(network=[*meta.network[:-2], kernel[:, :3], bias[:3]])
    support, query = (preprocess(tf.constant(episode[i]), export.images) for i in (0, 2))
    context = Context(export.model, steps=STEPS)
    labels = tf.constant(episode[1], tf.int32)
    adapted = export.learner.adapt(context, sliced, support, labels)
    logits, _ = export.learner.predict(context, sliced, adapted, query)
    output = export.loaded.adapt_and_predict(*episode)
    assert output["probabilities"].shape == (9, 3)
    close(output["probabilities"], tf.nn.softmax(logits))


def test_the_order_and_balance_of_the_support_set_are_free(exported):
    export, (support, labels, query) = exported["inductive"], task(n_way=3, k_shot=3)
    order = np.random.default_rng(0).permutation(9)[:-1]
    episode = support[order], labels[order], query
    close(export.loaded.adapt_and_predict(*episode)["probabilities"], export.in_process(*episode))


@pytest.mark.parametrize("case", CASES)
def test_float_images_give_what_their_uint8_pixels_give(exported, case):
    support, labels, query = task()
    model = exported[case].loaded
    whole = model.adapt_and_predict(support, labels, query)["probabilities"]
    floats = [(x / 255.0).astype(np.float32) for x in (support, query)]
    close(model.adapt_and_predict_float(floats[0], labels, floats[1])["probabilities"], whole)
    signature = model.signatures["adapt_and_predict_float"]
    output = signature(
        support_images=tf.constant(floats[0]),
        support_labels=tf.constant(labels, tf.int32),
        query_images=tf.constant(floats[1]),
    )
    close(output["probabilities"], whole)


@pytest.mark.parametrize("case", ["inductive", "global", "residual"])
def test_a_query_does_not_depend_on_the_others_unless_transductive(exported, case):
    support, labels, query = task()
    model = exported[case].loaded
    together = model.adapt_and_predict(support, labels, query)["probabilities"]
    alone = model.adapt_and_predict(support, labels, query[:1])["probabilities"]
    close(alone, together[:1])


def test_transductive_predictions_depend_on_the_other_queries_and_the_metadata_say_so(exported):
    support, labels, query = task()
    model = exported["transductive"].loaded
    together = model.adapt_and_predict(support, labels, query)["probabilities"]
    alone = model.adapt_and_predict(support, labels, query[:1])["probabilities"]
    assert np.abs(alone - together[:1]).max() > 1e-3
    told = json.loads(model.signatures["metadata"]()["json"].numpy())
    assert told["predictions_depend_on_the_other_queries"] is True


def test_the_metadata_are_a_signature_and_a_file(exported):
    export = exported["inductive"]
    told = json.loads(export.loaded.signatures["metadata"]()["json"].numpy())
    with open(os.path.join(export.path, "assets", "metadata.json"), encoding="utf-8") as file:
        assert json.load(file) == told
    assert told["step"] == 7
    assert told["batch_norm"] == "inductive"
    assert told["predictions_depend_on_the_other_queries"] is False
    assert told["trained_batch_norm"] == "inductive"
    assert (told["learner"], told["trained_n_way"], told["largest_n_way"]) == ("MAML", 5, None)
    assert told["inner_steps"] == STEPS
    assert (told["image"]["image_size"], told["image"]["channels"]) == (SIZE, 3)
    assert told["versions"]["tensorflow"] == tf.__version__


def test_the_signatures_name_their_inputs_outputs_and_sizes(exported):
    signatures = exported["transductive"].loaded.signatures
    for name, dtype in (
        ("serving_default", tf.uint8),
        ("adapt_and_predict", tf.uint8),
        ("adapt_and_predict_float", tf.float32),
    ):
        inputs = signatures[name].structured_input_signature[1]
        assert {k: (v.shape.as_list(), v.dtype) for k, v in inputs.items()} == {
            "support_images": ([None, SIZE, SIZE, 3], dtype),
            "support_labels": ([None], tf.int32),
            "query_images": ([None, SIZE, SIZE, 3], dtype),
        }
        outputs = signatures[name].structured_outputs
        assert {k: (v.shape.as_list(), v.dtype) for k, v in outputs.items()} == {
            "probabilities": ([None, None], tf.float32),
            "labels": ([None], tf.int32),
        }


@pytest.mark.parametrize("case", CASES)
def test_nothing_in_the_graph_needs_python_or_xla(exported, case):
    proto = saved_model_pb2.SavedModel()
    with open(os.path.join(exported[case].path, "saved_model.pb"), "rb") as file:
        proto.ParseFromString(file.read())
    library = proto.meta_graphs[0].graph_def.library
    nodes = [node for function in library.function for node in function.node_def]
    assert len(nodes) > 100
    assert not {n.op for n in nodes} & {"PyFunc", "EagerPyFunc", "PyFuncStateless"}
    assert not [n.name for n in nodes if "_gradient_op_type" in n.attr]
    compiled = [f for f in library.function if f.attr["_XlaMustCompile"].b]
    assert not compiled


def changed(**changes):
    episode = dict(zip(("support_images", "support_labels", "query_images"), task()))
    return {**episode, **changes}


SUPPORT, LABELS, QUERY = task()
REFUSALS = {
    "label below 0": (changed(support_labels=LABELS - 1), r"must be 0, 1, .*-1"),
    "label beyond the head": (changed(support_labels=LABELS + 1), r"head has 5 ways, 0\.\.4"),
    "label without example": (changed(support_labels=LABELS // 2 * 2), "must have an example"),
    "count mismatch": (changed(support_labels=LABELS[:4]), r"of one length.*\[10 4\]"),
    "no support": (
        changed(support_images=SUPPORT[:0], support_labels=LABELS[:0]),
        "support_images: there must be at least one",
    ),
    "no query": (changed(query_images=QUERY[:0]), "query_images: there must be at least one"),
    "image size": (changed(query_images=QUERY[:, :9]), r"query_images.*\[any, 16, 16, 3\].*\[9 9 16"),
    "channels": (changed(support_images=SUPPORT[..., :1]), r"support_images.*\[10 16 16 1\]"),
    "floats as uint8": (changed(support_images=SUPPORT / 255.0), "name ends in _float"),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_a_wrong_task_is_refused_with_what_is_wrong(exported, fault):
    arguments, message = REFUSALS[fault]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        exported["transductive"].loaded.adapt_and_predict(**arguments)


@pytest.mark.parametrize("fault", ["label below 0", "count mismatch", "image size"])
def test_the_signatures_refuse_it_too(exported, fault):
    arguments, message = REFUSALS[fault]
    tensors = {k: tf.constant(v, tf.int32 if v.ndim == 1 else tf.uint8) for k, v in arguments.items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        exported["transductive"].loaded.signatures["serving_default"](**tensors)


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "support_images.*finite"), (np.inf, "finite"), (2.0, r"lie in \[0, 1\]")],
)
def test_wrong_float_images_are_refused(exported, value, message):
    images = (SUPPORT / 255.0).astype(np.float32)
    images[0, 0, 0, 0] = value
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        exported["transductive"].loaded.adapt_and_predict_float(images, LABELS, images)


def test_predictions_that_are_not_finite_are_an_error(exported):
    export = exported["transductive"]
    module = serving.ServingModule(export.parameters, export.images, inner_steps=1)
    module.network[-1].assign(module.network[-1] * np.nan)
    with pytest.raises(tf.errors.InvalidArgumentError, match="diverged, some logits are NaN"):
        module.adapt_and_predict(SUPPORT, LABELS, QUERY)


def test_settings_that_do_not_fit_are_refused(exported):
    export = exported["global"]
    with pytest.raises(ValueError, match=r"ImageConfig.image_size.*\(20, 20, 3\)"):
        serving.ServingModule(export.parameters, ImageConfig(image_size=20))
    with pytest.raises(ValueError, match="inner_steps must be at least 0. Received: -1"):
        serving.ServingModule(export.parameters, export.images, inner_steps=-1)
    with pytest.raises(ValueError, match="MAML.batch_norm must be one of .*'none'"):
        serving.ServingModule(export.parameters, export.images, batch_norm="none")
