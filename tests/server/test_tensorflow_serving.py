# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Serving's REST contract, with the real model."""

from __future__ import annotations

import base64
import json
import math
import shutil

import numpy as np
import pytest

from tests.server import served
from tests.serving.exports import SIZE, task
from tf_lwdgh.server.models import Models

PREDICT = "/v1/models/demo:predict"


@pytest.fixture(scope="module")
def client(models):
    with served.client(models) as asking:
        yield asking


def b64(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


def a_task(kind: str = "") -> dict[str, object]:
    """Inputs of adapt_and_predict as JSON values."""
    support, labels, query = task(n_way=3, n_query=2)
    if kind == "_bytes":
        return {
            "support_images_bytes": [b64(served.png(x)) for x in support],
            "support_labels": labels.tolist(),
            "query_images_bytes": [b64(served.png(x)) for x in query],
        }
    scale = 255 if kind == "_float" else 1
    images = {"support_images": support, "query_images": query}
    return {
        **{n: (x / scale if scale > 1 else x).tolist() for n, x in images.items()},
        "support_labels": labels.tolist(),
    }


def ask(client, signature, inputs, address=PREDICT):
    return client.post(address, json={"signature_name": signature, "inputs": inputs})


def test_status_of_all_versions_and_of_one(client):
    version = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for address in ("/v1/models/demo", "/v1/models/demo/versions/1"):
        assert client.get(address).json() == {"model_version_status": [version]}


def test_metadata_has_every_signature_in_protobufs_form(client, models):
    for address in ("/v1/models/demo/metadata", "/v1/models/demo/versions/1/metadata"):
        found = client.get(address).json()
    assert found["model_spec"] == {"name": "demo", "signature_name": "", "version": "1"}
    definitions = found["metadata"]["signature_def"]["signature_def"]
    assert set(models.version()[1].signatures) <= set(definitions)
    support = definitions["adapt"]["inputs"]["support_images"]
    assert support["dtype"] == "DT_UINT8"
    assert [d["size"] for d in support["tensor_shape"]["dim"]] == ["-1", str(SIZE), str(SIZE), "3"]
    assert definitions["adapt"]["method_name"] == "tensorflow/serving/predict"


@pytest.mark.parametrize("kind", ["", "_float", "_bytes"])
def test_every_kind_of_image_gives_what_the_model_gives(client, exported, kind):
    answer = ask(client, "adapt_and_predict" + kind, a_task(kind)).json()["outputs"]
    support, labels, query = task(n_way=3, n_query=2)
    expected = exported.loaded.adapt_and_predict(support, np.float32(labels), query)
    np.testing.assert_allclose(answer["probabilities"], expected["probabilities"], atol=1e-5)
    assert answer["labels"] == expected["labels"].numpy().tolist()


@pytest.mark.parametrize("end", ["", "_bytes"])
def test_a_learned_classifier_goes_out_as_json_and_comes_back_to_the_same_bits(client, end):
    inputs = a_task(end)
    whole = ask(client, "adapt_and_predict" + end, inputs).json()["outputs"]
    query = inputs.pop("query_images" + end)
    learned = ask(client, "adapt" + end, inputs).json()["outputs"]
    again = ask(client, "predict" + end, {**learned, "query_images" + end: query}).json()["outputs"]
    assert again == whole


def test_every_signature_answers(client, models):
    """All names of the export: with its own outputs as inputs where it takes a classifier."""
    learned = {}
    for kind in ("", "_float", "_bytes"):
        for batch in ("", "_tasks"):
            inputs = {n: [x] if batch else x for n, x in a_task(kind).items()}
            name = "adapt" + batch + kind
            query = {n: x for n, x in inputs.items() if n.startswith("query")}
            support = {n: x for n, x in inputs.items() if n not in query}
            learned[name] = ask(client, name, support).json()["outputs"]
            for other, given in (
                ("predict", {**learned[name], **query}),
                ("adapt_and_predict", inputs),
            ):
                answer = ask(client, other + batch + kind, given)
                assert answer.status_code == 200, answer.text
                assert len(answer.json()["outputs"]["labels"]) == (1 if batch else 2)
    assert client.post(PREDICT, json={"inputs": a_task()}).json()["outputs"]["labels"]
    told = client.post(PREDICT, json={"signature_name": "metadata"}).json()["outputs"]
    assert json.loads(told)["learner"] == "MAML"  # of one output the value alone
    signature = models.version()[1].signatures["predict_unchecked"]
    given = {**learned["adapt_float"], "query_images": a_task("_float")["query_images"]}
    unchecked = ask(client, "predict_unchecked", {n: given[n] for n in signature.inputs})
    assert unchecked.status_code == 200, unchecked.text
    asked = {"metadata", "serving_default", "predict_unchecked"} | {
        n + b + k for n in ("adapt", "predict", "adapt_and_predict") for b in ("", "_tasks")
        for k in ("", "_float", "_bytes")
    }  # fmt: skip
    assert asked == set(models.version()[1].signatures)


def test_the_row_form_is_refused_with_the_reason(client):
    answer = client.post(PREDICT, json={"instances": [1]})
    assert answer.status_code == 400
    assert "would mix the support sets of several callers" in answer.json()["error"]


def deep(depth: int) -> bytes:
    return b'{"inputs": ' + b"[" * depth + b"]" * depth + b"}"


BODIES = {
    "no JSON": (b"hello", "Expecting value"),
    "cut short": (b'{"inputs": {"support_im', "Unterminated string"),
    "empty": (b"", "Expecting value"),
    "NaN": (b'{"inputs": NaN}', "every number must be finite. Received: NaN"),
    "-Infinity": (b'{"inputs": [-Infinity]}', "every number must be finite. Received: -Infinity"),
    "no text": (b"\xff\xfe", "UTF-8"),
    "a list": (b"[1]", "must be a JSON object"),
    "too deep": (deep(100_000), "nested too deeply"),
    "deep": (deep(200), "inputs must be an object"),
    "a long number": (b'{"inputs": ' + b"9" * 5000 + b"}", "must be JSON"),
    "unknown key": (b'{"input": 1, "inputs": {}}', "Received: 'input'"),
    "no such signature": (b'{"signature_name": "train", "inputs": {}}', "Received: 'train'"),
    "no name": (b'{"signature_name": [1], "inputs": {}}', "signature_name must be one of"),
    "no inputs": (b"{}", "inputs is missing"),
}


@pytest.mark.parametrize("body, told", BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_request_is_refused_in_a_line(client, body, told):
    answer = client.post(PREDICT, content=body)
    assert answer.status_code == 400
    assert told in answer.json()["error"] and "\n" not in answer.json()["error"]


def faults() -> dict[str, tuple[str, dict, str]]:
    """Wrong inputs: of what kind, what is changed, and what is said of it."""
    good = a_task()
    support, labels = good["support_images"], good["support_labels"]
    image = support[0]
    return {
        "a fraction for uint8": ("", {"query_images": [[[[0.5] * 3] * SIZE] * SIZE]}, "whole numbers"),
        "256": ("", {"query_images": [[[[256] * 3] * SIZE] * SIZE]}, "values of uint8. Received: 256"),
        "negative": ("", {"query_images": [[[[-1] * 3] * SIZE] * SIZE]}, "values of uint8. Received: -1"),
        "beyond float32": ("_float", {"query_images": [[[[1e300] * 3] * SIZE] * SIZE]}, "float32"),
        "1e999": ("_float", {"query_images": [[[[math.inf] * 3] * SIZE] * SIZE]}, "float32. Received: inf"),
        "text": ("", {"query_images": "cat"}, "Received: text"),
        "true": ("", {"query_images": True}, "true or false"),
        "null": ("", {"query_images": None}, "other things"),
        "an object": ("", {"query_images": {"b64": ""}}, "other things"),
        "ragged": ("", {"query_images": [image, image[:3]]}, "rows differ in length"),
        "too deep an array": ("", {"query_images": json.loads("[" * 90 + "1" + "]" * 90)}, "query_images must"),
        "rank": ("", {"query_images": image}, f"shape [any, {SIZE}, {SIZE}, 3]"),
        "size": ("", {"query_images": [[[[1] * 3] * 9] * 9]}, "Received: [1, 9, 9, 3]"),
        "none": ("", {"query_images": []}, "query_images must have shape"),
        "labels' length": ("", {"support_labels": labels[:2]}, "of one length"),
        "labels with a gap": ("", {"support_labels": [2 * n for n in labels]}, "must have an example"),
        "labels in fractions": ("", {"support_labels": [0.5] * len(labels)}, "whole numbers (int32)"),
        "labels beyond int32": ("", {"support_labels": [2**40] * len(labels)}, "values of int32"),
        "wrong base64": ("_bytes", {"query_images_bytes": [{"b64": "a===!"}]}, "no base64"),
        "no b64": ("_bytes", {"query_images_bytes": ["abc"]}, '{"b64"'),
        "a number as b64": ("_bytes", {"query_images_bytes": [{"b64": 3}]}, '{"b64"'),
        "no image": ("_bytes", {"query_images_bytes": [b64(b"hello")]}, "query_images_bytes[0] must be one of"),
        "half an image": ("_bytes", {"query_images_bytes": [b64(served.noise(1)[0][:300])]}, "PNG"),
    }  # fmt: skip


FAULTS = faults()


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_inputs_are_refused_in_a_line_and_the_next_request_is_answered(client, fault):
    kind, change, told = FAULTS[fault]
    inputs = {**a_task(kind), **change}
    body = json.dumps({"signature_name": "adapt_and_predict" + kind, "inputs": inputs})
    answer = client.post(PREDICT, content=body.replace("Infinity", "1e999"))
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert told.lower() in error.lower() and len(error) < 600
    assert ask(client, "adapt_and_predict", a_task()).status_code == 200


def test_missing_and_unknown_names_are_refused(client):
    inputs = a_task()
    del inputs["support_labels"]
    answer = ask(client, "adapt_and_predict", {**inputs, "labels": [0]})
    assert answer.status_code == 400
    assert "inputs must be query_images, support_images, support_labels" in answer.json()["error"]


@pytest.mark.parametrize(
    "method, address, status",
    [
        ("get", "/v1/models/other", 404),
        ("get", "/v1/models/demo/versions/2", 404),
        ("get", "/v1/models/demo/versions/one", 404),
        ("get", "/v1/models/demo/versions/99999999999999999999999/metadata", 404),
        ("post", "/v1/models/other:predict", 404),
        ("post", "/v1/models/demo/versions/2:predict", 404),
        ("post", "/v1/models/demo:classify", 405),
        ("get", "/v1/models", 404),
        ("get", "/page/../app.py", 404),
    ],
)
def test_what_is_not_there_is_said_as_json(client, method, address, status):
    answer = getattr(client, method)(address)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_versions_are_addressable_and_the_highest_is_served(models, exported, tmp_path):
    for number in ("1", "12", "notes"):
        shutil.copytree(exported.path, tmp_path / "glyphs" / number)
    found = Models(str(tmp_path / "glyphs"))
    assert (found.name, sorted(found.versions)) == ("glyphs", [1, 12])
    found.state, found._loaded = models.state, {n: models.version()[1] for n in (1, 12)}
    with served.client(found) as asking:
        states = asking.get("/v1/models/glyphs").json()["model_version_status"]
        assert [s["version"] for s in states] == ["12", "1"]
        assert asking.get("/v1/models/glyphs/metadata").json()["model_spec"]["version"] == "12"
        address = "/v1/models/glyphs/versions/1:predict"
        assert ask(asking, "adapt_and_predict", a_task(), address).status_code == 200
    alone = Models(str(tmp_path / "glyphs" / "12"))
    assert (alone.name, list(alone.versions)) == ("glyphs", [12])


def test_no_export_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="--model must be a folder that tf_lwdgh.export wrote"):
        Models(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="Received: --model="):
        Models(str(tmp_path / "nowhere"))
