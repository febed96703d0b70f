# SPDX-License-Identifier: Apache-2.0
"""Classifiers by names: learned from forms, asked, listed, let go; nobody's support set is another's."""

from __future__ import annotations

import concurrent.futures

import numpy as np
import pytest

from tests.server import served
from tf_lwdgh.server.models import Models
from tf_lwdgh.serving.loaded import load

PETS = {"cat": served.noise(1, 2), "dog": served.noise(2, 1), 'bird "x"; ü': served.noise(3, 1)}


@pytest.fixture(scope="module")
def client(models):
    with served.client(models) as asking:
        yield asking


@pytest.fixture(scope="module")
def loaded(exported):
    return load(exported.path)


def learn(client, name, classes):
    return client.put(f"/v1/classifiers/{name}", files=served.form(classes))


def expected(loaded, classes, queries):
    """Probabilities of queries [Q, N], by the model itself."""
    images = [x for files in classes.values() for x in files]
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    return loaded.adapt_and_predict(images, labels, queries)["probabilities"]


def shares(answer):
    return np.array([list(p["probabilities"].values()) for p in answer.json()["predictions"]])


def test_a_classifier_is_learned_once_and_answers_with_its_classes(client, loaded):
    told = learn(client, "pets", PETS)
    assert told.status_code == 200, told.text
    assert told.json()["classes"] == list(PETS)
    assert told.json()["images"] == {"cat": 2, "dog": 1, 'bird "x"; ü': 1}
    assert told.json()["bytes"] == client.service.store.get("pets").n_bytes > 1000
    queries = served.noise(4, 3)
    answer = client.post("/v1/classifiers/pets:predict", files=served.form({"query": queries}))
    np.testing.assert_allclose(shares(answer), expected(loaded, PETS, queries), rtol=1e-6)
    for prediction in answer.json()["predictions"]:
        most = max(prediction["probabilities"], key=prediction["probabilities"].get)
        assert prediction["class"] == most
    assert [p["file"] for p in answer.json()["predictions"]] == ["0.png", "1.png", "2.png"]
    assert "model;dur=" in answer.headers["server-timing"]


@pytest.mark.parametrize("kind", ["image/png", "application/x-www-form-urlencoded", None])
def test_one_picture_may_be_the_body(client, loaded, kind):
    learn(client, "pets", PETS)
    (query,) = served.noise(5)
    headers = {} if kind is None else {"Content-Type": kind}
    answer = client.post("/v1/classifiers/pets:predict", content=query, headers=headers)
    np.testing.assert_allclose(shares(answer), expected(loaded, PETS, [query]), rtol=1e-6)


def test_a_file_that_ends_in_zeros_stays_whole(client, loaded):
    """A BMP file that is black at its end."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[-1] = 200  # BMP begins with the last row
    bmp, png = (served.encoded(pixels, kind) for kind in ("BMP", "PNG"))
    assert bmp.endswith(b"\0" * 100)
    learn(client, "pets", PETS)
    found = [shares(client.post("/v1/classifiers/pets:predict", content=x)) for x in (bmp, png)]
    np.testing.assert_array_equal(*found)


def test_classifiers_are_listed_and_let_go(client):
    learn(client, "pets", PETS)
    learn(client, "others", PETS)
    names = [c["name"] for c in client.get("/v1/classifiers").json()["classifiers"]]
    assert {"pets", "others"} <= set(names)
    assert client.get("/v1/classifiers/others").json()["classes"] == list(PETS)
    assert client.delete("/v1/classifiers/others").json() == {"removed": "others"}
    for method, end in (("get", ""), ("delete", ""), ("post", ":predict")):
        answer = getattr(client, method)(f"/v1/classifiers/others{end}")
        assert (answer.status_code, "'others'" in answer.json()["error"]) == (404, True)


def test_the_store_is_bounded_and_says_what_went(models):
    with served.client(models, max_classifiers=2) as client:
        assert learn(client, "a", PETS).json()["evicted"] == []
        learn(client, "b", PETS)
        client.post("/v1/classifiers/a:predict", content=served.noise(1)[0])
        assert learn(client, "c", PETS).json()["evicted"] == ["b"]
        assert client.post("/v1/classifiers/b:predict", content=b"").status_code == 404
    with served.client(models, max_classifier_bytes=100) as client:
        assert learn(client, "a", PETS).status_code == 413


def test_a_classifier_expires(models):
    now = [0.0]
    with served.client(models, lambda: now[0], classifier_ttl=10) as client:
        learn(client, "a", PETS)
        now[0] = 9.0
        assert client.get("/v1/classifiers/a").status_code == 200
        now[0] = 10.0
        assert client.get("/v1/classifiers/a").status_code == 404
        assert "tf_lwdgh_classifiers 0.0" in client.get("/metrics").text


FORMS = {
    "one class": ({"cat": served.noise(1)}, "at least 2 classes. Received: 1"),
    "a blank name": ({" ": served.noise(1), "dog": served.noise(2)}, "1 to 100 characters"),
    "a long name": ({"x" * 101: served.noise(1), "dog": served.noise(2)}, "1 to 100 characters"),
    "an empty file": ({"cat": [b""], "dog": served.noise(2)}, "cat: 0.png must be one of JPEG, PNG, BMP, GIF"),
    "no image": ({"cat": [b"<svg/>"], "dog": served.noise(2)}, "cat: 0.png must be one of"),
}  # fmt: skip


@pytest.mark.parametrize("classes, told", FORMS.values(), ids=FORMS)
def test_a_wrong_support_set_is_refused(client, classes, told):
    answer = learn(client, "wrong", classes)
    assert answer.status_code == 400
    assert told in answer.json()["error"]
    assert client.get("/v1/classifiers/wrong").status_code == 404


def test_a_body_that_is_no_form_is_refused(client):
    address, kind = "/v1/classifiers/wrong", "multipart/form-data; boundary=x"
    part = b'--x\r\nContent-Disposition: form-data; name="cat"; filename="a"\r\n\r\nabc'
    for content, headers, told in (
        (b"abc", {}, "must be multipart/form-data"),
        (b"abc", {"Content-Type": "multipart/form-data"}, "with a boundary"),
        (b"abc", {"Content-Type": kind}, "must be a form"),
        (part, {"Content-Type": kind}, "ends too early"),
        (part.replace(b'name="cat"; ', b"") + b"\r\n--x--", {"Content-Type": kind}, "must have a name"),
        (part.replace(b'; filename="a"', b"") + b"\r\n--x--", {"Content-Type": kind}, "text in 'cat'"),
        (part.replace(b"cat", b"\xff") + b"\r\n--x--", {"Content-Type": kind}, "UTF-8"),
    ):
        answer = client.put(address, content=content, headers=headers)
        assert answer.status_code == 400, content
        assert told in answer.json()["error"]


@pytest.mark.parametrize("name", ["-x", "a b", "a%0Ab", "a" * 101, "ü"])
def test_a_classifiers_name_is_checked(client, name):
    answer = learn(client, name, PETS)
    assert answer.status_code == 400
    assert "a classifier's name must be" in answer.json()["error"]


def test_no_more_classes_than_the_model_tells_apart(models, exported):
    _, loaded = models.version()
    limited = Models(exported.path, "demo")
    limited.state = models.state
    few = type("Few", (), {"signatures": loaded.signatures, "metadata": {"largest_n_way": 2}})
    limited._loaded = {1: few}
    with served.client(limited) as client:
        answer = learn(client, "pets", PETS)
    assert answer.status_code == 400
    assert "the model tells at most 2 classes apart. Received: 3" in answer.json()["error"]


def test_no_support_set_is_ever_anothers(models, loaded):
    """Callers at once, each with its own classes and queries, learn and ask again and again."""
    n_callers, queries = 6, served.noise(99, 2)
    sets = [{f"{i}-{c}": served.noise(100 * i + c, 1) for c in range(2 + i % 3)} for i in range(n_callers)]
    right = [expected(loaded, s, queries) for s in sets]

    def ask(client, i: int) -> None:
        for _ in range(3):
            assert learn(client, f"set-{i}", sets[i]).json()["classes"] == list(sets[i])
            for _ in range(2):
                answer = client.post(f"/v1/classifiers/set-{i}:predict", files=served.form({"q": queries}))
                np.testing.assert_allclose(shares(answer), right[i], rtol=1e-6)
                assert set(answer.json()["predictions"][0]["probabilities"]) == set(sets[i])

    with served.client(models) as client, concurrent.futures.ThreadPoolExecutor(n_callers) as pool:
        list(pool.map(lambda i: ask(client, i), range(n_callers)))
