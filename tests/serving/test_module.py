"""Exported models: the same predictions without this package, clear refusals, whole files."""

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

from tf_lwdgh.networks import backbones
from tf_lwdgh.serving import module as serving, saved_models
from tf_lwdgh.learners import MAML
from tf_lwdgh.runs.checkpoints import CheckpointFolder, model_variables
from tf_lwdgh.outer.evaluation import Evaluator
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.data.images import ImageConfig, preprocess
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.types import Episode

SIZE, STEPS = 16, 3
CASES = {
    "transductive": ("convnet4", "transductive", "learned"),
    "inductive": ("convnet4", "inductive", "zero"),
    "global": ("convnet4", "global", "learned"),
    "residual": ("resnet12", "inductive", "learned"),
}


class Exported:
    """One learner, in this process and as a SavedModel."""

    def __init__(self, case: str, folder: str) -> None:
        backbone, batch_norm, head = CASES[case]
        sizes = {"filters": 8} if backbone == "convnet4" else {"widths": (4, 8)}
        keras_model = getattr(backbones, backbone)(image_size=SIZE, channels=3, n_way=5, **sizes)
        self.keras_model = keras_model
        self.model = FunctionalModel(keras_model)
        noise = tf.random.stateless_normal([20, SIZE, SIZE, 3], [1, 2])
        statistics = self.model.apply(
            self.model.values(), self.model.state(), noise, training=True
        )[1]
        for variable, value in zip(self.model.state_variables, statistics):
            variable.assign(value)
        self.algorithm = MAML(InnerLoop(inner_lr=0.1), batch_norm=batch_norm, head=head)
        self.images = ImageConfig(image_size=SIZE, normalisation="signed", invert=True)
        module = serving.ServingModule(
            self.model, self.algorithm, self.images, inner_steps=STEPS, metadata={"step": 7}
        )
        self.path = os.path.join(folder, case)
        saved_models.save(module, self.path)
        self.loaded = tf.saved_model.load(self.path)

    def in_process(self, support: np.ndarray, labels: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Probabilities by the way that training and evaluation go."""
        n_way = int(max(labels)) + 1
        logits = tf.function(self.algorithm.adapt_and_predict)(
            self.model,
            self.model.values(),
            self.model.state(),
            preprocess(tf.constant(support), self.images),
            tf.constant(labels, tf.int32),
            preprocess(tf.constant(query), self.images),
            n_way=n_way,
            steps=STEPS,
        )
        return tf.nn.softmax(logits).numpy()


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[str, Exported]:
    folder = str(tmp_path_factory.mktemp("exports"))
    return {case: Exported(case, folder) for case in CASES}


def task(n_way: int = 5, k_shot: int = 2, n_query: int = 9, seed: int = 0):
    random = np.random.default_rng(seed)
    shape = (SIZE, SIZE, 3)
    support = random.integers(0, 256, (n_way * k_shot, *shape), np.uint8)
    query = random.integers(0, 256, (n_query, *shape), np.uint8)
    return support, np.repeat(np.arange(n_way), k_shot), query


def close(a, b) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=False)


def test_a_fresh_process_without_the_package_predicts_as_this_one(exported, tmp_path):
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
    paths = [e.path for e in exported.values()]
    command = [sys.executable, "-I", "-c", textwrap.dedent(program), *paths]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outputs = np.load(tmp_path / "outputs.npz")
    for export in exported.values():
        expected = export.in_process(support, labels, query)
        close(outputs[export.path + "/probabilities"], expected)
        np.testing.assert_array_equal(outputs[export.path + "/labels"], expected.argmax(-1))


@pytest.mark.parametrize("case", CASES)
def test_predicted_labels_are_those_of_the_evaluation(exported, case):
    export, (support, labels, query) = exported[case], task(n_query=10)
    pixels = [preprocess(tf.constant(x), export.images)[None] for x in (support, query)]
    labels32 = tf.constant(labels, tf.int32)[None]
    episode = Episode(pixels[0], labels32, pixels[1], labels32)
    evaluator = Evaluator(export.keras_model, export.algorithm, inner_steps=STEPS)
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
    params = export.model.values()
    sliced = [*params[:-2], params[-2][:, :3], params[-1][:3]]
    inputs = [preprocess(tf.constant(episode[i]), export.images) for i in (0, 2)]
    logits = export.algorithm.adapt_and_predict(
        export.model, sliced, export.model.state(),
        inputs[0], tf.constant(episode[1], tf.int32), inputs[1], steps=STEPS,
    )  # fmt: skip
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
    assert (told["head"], told["trained_n_way"], told["largest_n_way"]) == ("zero", 5, None)
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
    "image size": (changed(query_images=QUERY[:, :9]), r"query_images.*\(16, 16, 3\).*\[9 16 3\]"),
    "channels": (changed(support_images=SUPPORT[..., :1]), r"support_images.*\[16 16 1\]"),
    "floats as uint8": (changed(support_images=SUPPORT / 255.0), "adapt_and_predict_float"),
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
    module = serving.ServingModule(export.model, export.algorithm, export.images, inner_steps=1)
    module.parameters[-1].assign(module.parameters[-1] * np.nan)
    with pytest.raises(tf.errors.InvalidArgumentError, match="diverged, some logits are NaN"):
        module.adapt_and_predict(SUPPORT, LABELS, QUERY)


def test_image_settings_that_are_not_the_models_are_refused(exported):
    export = exported["global"]
    with pytest.raises(ValueError, match=r"ImageConfig.image_size.*\(20, 20, 3\)"):
        serving.ServingModule(export.model, export.algorithm, ImageConfig(image_size=20))
    with pytest.raises(ValueError, match="inner_steps must be at least 0. Received: -1"):
        serving.ServingModule(export.model, export.algorithm, export.images, inner_steps=-1)


@pytest.fixture(scope="module")
def small_module() -> serving.ServingModule:
    model = backbones.convnet4(image_size=4, channels=1, n_way=2, filters=2, blocks=1)
    images = ImageConfig(image_size=4, channels=1)
    return serving.ServingModule(FunctionalModel(model), MAML(), images, inner_steps=1)


def test_an_export_replaces_another_only_when_told_to(small_module, tmp_path):
    output = tmp_path / "models" / "one"
    saved_models.save(small_module, str(output))
    before = (output / "fingerprint.pb").stat().st_ino
    with pytest.raises(FileExistsError, match="pass --overwrite.*models/one"):
        saved_models.save(small_module, str(output))
    assert (output / "fingerprint.pb").stat().st_ino == before
    saved_models.save(small_module, str(output), overwrite=True)
    assert (output / "fingerprint.pb").stat().st_ino != before
    assert os.listdir(tmp_path / "models") == ["one"]


def test_what_is_no_saved_model_is_never_overwritten(small_module, tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(FileExistsError, match="is no SavedModel"):
        saved_models.save(small_module, str(tmp_path), overwrite=True)
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_an_empty_folder_is_filled(small_module, tmp_path):
    saved_models.save(small_module, str(tmp_path))
    assert (tmp_path / "saved_model.pb").exists()


def test_a_failed_export_leaves_nothing(small_module, tmp_path, monkeypatch):
    def fail(module, path, signatures):
        os.makedirs(path)
        with open(os.path.join(path, "saved_model.pb"), "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        saved_models.save(small_module, str(tmp_path / "one"))
    assert os.listdir(tmp_path) == []


SETTINGS = """
DatasetConfig.name = 'glyphs'
Experiment.backbone = @convnet4
Experiment.algorithm = @MAML()
MAML.inner_loop = @InnerLoop()
MAML.batch_norm = 'inductive'
InnerLoop.steps = 2
convnet4.filters = 4
ImageConfig.image_size = 16
"""


@pytest.fixture
def run_dir(tmp_path):
    """A run folder with checkpoints of steps 3 (best) and 8 (last), whose weights are the step."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.gin").write_text(SETTINGS)
    model = backbones.convnet4(image_size=16, filters=4)
    for name, step in (("best", 3), ("checkpoints", 8)):
        model.layers[-1].bias.assign([float(step)] * 5)
        manifest = {"dataset": "glyphs", "fingerprint": "abc"}
        state = {"model": model_variables(model)}
        CheckpointFolder(folder / name).save(step, state, manifest)
    return str(folder)


@pytest.mark.parametrize(("checkpoint", "step"), [("best", 3), ("last", 8)])
def test_a_run_is_exported_with_its_settings_and_the_chosen_checkpoint(run_dir, checkpoint, step):
    module = saved_models.from_run(run_dir, checkpoint)
    told = json.loads(module.metadata)
    assert (told["checkpoint"], told["step"]) == (checkpoint, step)
    assert (told["dataset"], told["dataset_fingerprint"]) == ("glyphs", "abc")
    assert (told["batch_norm"], told["inner_steps"]) == ("inductive", 10)
    np.testing.assert_array_equal(module.parameters[-1], [step] * 5)


def test_inner_steps_of_an_export_are_the_evaluations(run_dir):
    module = saved_models.from_run(run_dir, "best", ["Evaluation.inner_steps = 4"])
    assert json.loads(module.metadata)["inner_steps"] == 4
    module = saved_models.from_run(run_dir, "best", ["Evaluation.inner_steps = None"])
    assert json.loads(module.metadata)["inner_steps"] == 2


def test_a_run_without_the_checkpoint_is_refused(run_dir, tmp_path):
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "config.gin").write_text(SETTINGS)
    with pytest.raises(FileNotFoundError, match="no best checkpoint in .*young"):
        saved_models.from_run(str(tmp_path / "young"), "best")
    with pytest.raises(ValueError, match="one of best, last. Received: 'newest'"):
        saved_models.from_run(run_dir, "newest")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        saved_models.from_run(str(tmp_path / "nowhere"), "best")
