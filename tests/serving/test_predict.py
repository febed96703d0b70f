# SPDX-License-Identifier: Apache-2.0
"""From folders of photos to answers: the table, the page, a kept classifier, and what is refused."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import pathlib
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_lwdgh import command_line, predict
from tf_lwdgh.serving import answers, kept_classifier
from tf_lwdgh.serving.loaded import load

COLOURS = {"green": (20, 200, 40), "red": (220, 30, 10), "violet & <b>": (120, 20, 200)}


def photo(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (60, 40)) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, 25, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> pathlib.Path:
    """support/ with three classes of two photos, and unknown/ with a photo of each and a broken one."""
    folder = tmp_path_factory.mktemp("photos")
    for n, (name, colour) in enumerate(COLOURS.items()):
        (folder / "support" / name).mkdir(parents=True)
        photo(colour, n).save(folder / "support" / name / "0.jpg")
        photo(colour, n + 9, (30, 50)).save(folder / "support" / name / "1.webp", lossless=True)
    (folder / "unknown").mkdir()
    photo(COLOURS["red"], 20).save(folder / "unknown/a.png")
    photo(COLOURS["green"], 21, (90, 30)).save(folder / "unknown/b.jpg")
    photo(COLOURS["violet & <b>"], 22).save(folder / "unknown/c.tif")
    (folder / "unknown/d.jpg").write_bytes((folder / "unknown/b.jpg").read_bytes()[:-300])
    (folder / "unknown/notes.txt").write_text("no photo")
    return folder


@pytest.fixture(autouse=True)
def _loaded_once(exported, monkeypatch):
    """The session's model, which is at hand, and copies of it are not loaded again."""
    model = exported["inductive"].loaded
    monkeypatch.setattr(tf.saved_model, "load", lambda path: model)


@pytest.fixture
def other(exported, tmp_path):
    """Makes a copy of the model that tells something else of itself."""

    def make(**told) -> str:
        copy = shutil.copytree(exported["inductive"].path, tmp_path / "other", dirs_exist_ok=True)
        notes = copy / "assets/metadata.json"
        notes.write_text(json.dumps({**json.loads(notes.read_text()), **told}))
        return str(copy)

    return make


@pytest.fixture
def run(exported, photos, monkeypatch, capsys):
    """Predicts with flags, by default those of the folders above: standard output and error."""
    monkeypatch.setattr(command_line, "start_tensorflow", lambda: None)
    monkeypatch.chdir(photos)
    usual = {
        "model": exported["inductive"].path, "support": "support", "query": ["unknown"], "csv": None, "html": None,
        "save": None, "load": None, "resize": None, "max_pixels": 10**6,
    }  # fmt: skip

    def call(**flags):
        predict.predict(types.SimpleNamespace(**{**usual, **flags}))
        return capsys.readouterr()

    return call


def test_folders_become_a_table_of_answers(run):
    out, err = run()
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["file", "answer", "probability", *COLOURS]
    assert [row[0] for row in rows[1:]] == ["unknown/a.png", "unknown/b.jpg", "unknown/c.tif"]
    for row in rows[1:]:
        values = [float(cell) for cell in row[3:]]
        assert abs(sum(values) - 1) < 1e-5
        assert row[1] == rows[0][3 + int(np.argmax(values))] and float(row[2]) == max(values)
    assert "skipped 1:\n  unknown/d.jpg: the image is corrupt" in err and "left out 1 .txt file" in err


def test_an_answer_is_that_of_the_function_of_encoded_images_on_the_same_files(run, exported, photos, tmp_path):
    for name in COLOURS:
        (tmp_path / "s" / name).mkdir(parents=True)
        shutil.copy(photos / "support" / name / "0.jpg", tmp_path / "s" / name)
        photo(COLOURS[name], 5).save(tmp_path / "s" / name / "1.png")
    files = [sorted((tmp_path / "s" / name).iterdir()) for name in COLOURS]
    support = [path.read_bytes() for of_class in files for path in of_class]
    queries = [(photos / "unknown" / name).read_bytes() for name in ("a.png", "b.jpg")]
    model = exported["inductive"].loaded
    encoded = (np.array(images, object) for images in (support, queries))
    support, queries = encoded
    expected = model.adapt_and_predict_bytes(support, np.repeat([0, 1, 2], 2), queries)["probabilities"]
    out, _ = run(support=str(tmp_path / "s"), query=["unknown/a.png", "unknown/b.jpg"])
    got = [[float(cell) for cell in row[3:]] for row in list(csv.reader(io.StringIO(out)))[1:]]
    np.testing.assert_allclose(got, expected, atol=1.5e-6)


def test_many_photos_are_asked_for_in_small_calls_with_the_same_answers(exported, photos, monkeypatch):
    model = load(exported["inductive"].path)
    read = {n: [(photos / "support" / n / "0.jpg").read_bytes()] for n in COLOURS}
    classifier = answers.learn(model, list(read.values()))
    queries = [(str(i), (photos / "unknown/a.png").read_bytes()) for i in range(7)]
    whole = list(answers.ask(model, classifier, queries))
    monkeypatch.setattr(answers, "AT_ONCE", 3)
    calls = []
    monkeypatch.setattr(model, "predict", lambda c, q, call=model.predict: calls.append(len(q)) or call(c, q))
    parts = list(answers.ask(model, classifier, iter(queries)))
    assert calls == [3, 3, 1] and [a.name for a in parts] == [a.name for a in whole]
    for a, b in zip(parts, whole):
        np.testing.assert_allclose(a.probabilities, b.probabilities, rtol=1e-4)
    model.metadata["predictions_depend_on_the_other_queries"] = True
    calls.clear()
    list(answers.ask(model, classifier, iter(queries)))
    assert calls == [7]


class Page(html.parser.HTMLParser):
    """What a page shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images, self.words, self.widths, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "img":
            self.images.append(attrs)
        elif tag not in ("meta", "br"):
            self.open.append(tag)
        if "width:" in attrs.get("style", ""):
            self.widths.append(float(attrs["style"].removeprefix("width:").removesuffix("%")))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_needs_no_other_file_and_shows_every_photo_and_answer(run, tmp_path):
    out, _ = run(csv=str(tmp_path / "a.csv"), html=str(tmp_path / "a.html"))
    assert "a.csv: 3 answers, 3 classes" in out and "a.html: 3 answers, 3 classes" in out
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open and "http" not in text and "<b>" not in text
    names = [image["alt"] for image in page.images]
    support = [f"support/{name}/{i}" for name in COLOURS for i in ("0.jpg", "1.webp")]
    assert names == [*support, "unknown/a.png", "unknown/b.jpg", "unknown/c.tif"]
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.images)
    rows = list(csv.reader((tmp_path / "a.csv").open(encoding="utf-8")))[1:]
    expected = [100 * float(cell) for row in rows for cell in row[3:]]
    np.testing.assert_allclose(page.widths, expected, atol=0.006)
    for row in rows:
        assert row[1] in page.words
    assert any("unknown/d.jpg: the image is corrupt" in word for word in page.words)


def test_a_kept_classifier_gives_the_same_answers_on_another_day(run, tmp_path, exported):
    path = str(tmp_path / "classifier.npz")
    first, _ = run(save=path)
    assert run(support=None, load=path)[0] == first
    only_saved, _ = run(query=[], save=path)
    assert only_saved == f"{path}: a classifier of 3 classes\n"
    with np.load(path, allow_pickle=False) as content:
        about = json.loads(str(content["about"]))
    assert about["class_names"] == list(COLOURS) and about["model"]["step"] == 7
    page = str(tmp_path / "a.html")
    run(support=None, load=path, html=page)
    text = pathlib.Path(page).read_text(encoding="utf-8")
    assert "Learned from" not in text and "learned before, in " in text and text.count("<img") == 3


def test_a_classifier_of_another_model_is_refused_with_both_named(run, tmp_path, exported, other):
    path = str(tmp_path / "classifier.npz")
    run(save=path, query=[])
    copy = shutil.copytree(exported["inductive"].path, tmp_path / "copy")
    assert run(support=None, load=path, model=str(copy))[0]  # the same, elsewhere
    with pytest.raises(ValueError, match=r"--load: a classifier belongs.*on convnet4, step 7.*Received: .*, step 8 "):
        run(support=None, load=path, model=other(step=8))
    variables = next((copy / "variables").glob("variables.data*"))
    variables.write_bytes(variables.read_bytes()[:-1] + b"x")  # of other weights
    with pytest.raises(ValueError, match=r"--load: a classifier belongs.*step 7.*Received: .*, step 7 "):
        run(support=None, load=path, model=str(copy))


@pytest.mark.parametrize("fault", ["text", "cut", "array", "npz", "pickle"])
def test_what_is_no_classifier_is_refused(run, tmp_path, fault, exported):
    path = tmp_path / "classifier.npz"
    run(save=str(path), query=[])
    if fault == "text":
        path.write_text("no classifier")
    elif fault == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif fault == "array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif fault == "npz":
        np.savez(path, a=np.zeros(3))
    else:
        np.savez(path, about=np.array([{}], object))
    with pytest.raises(ValueError, match="--load must be a classifier that .* --save` wrote"):
        run(support=None, load=str(path))


def test_a_classifier_whose_tensors_were_changed_is_refused(run, tmp_path, exported):
    path = str(tmp_path / "classifier.npz")
    run(save=path, query=[])
    metadata = load(exported["inductive"].path).metadata
    kept = kept_classifier.read(path, exported["inductive"].path, metadata)
    kept.tensors.pop("params_head_bias")
    kept_classifier.write(path, kept, exported["inductive"].path, metadata)
    with pytest.raises(ValueError, match="--query: classifier must have the tensors .*params_head_bias"):
        run(support=None, load=path)


def test_crop_is_kept_with_the_classifier(run, tmp_path):
    path = str(tmp_path / "classifier.npz")
    first, _ = run(save=path, resize="crop")
    assert first != run()[0]
    assert run(support=None, load=path)[0] == first == run(support=None, load=path, resize="crop")[0]
    rule = "--resize must be 'crop', as .*classifier.npz was learned. Received: 'stretch'"
    with pytest.raises(ValueError, match=rule):
        run(support=None, load=path, resize="stretch")


def test_more_classes_than_the_head_has_ways_are_refused_by_name(run, tmp_path, other):
    limited = other(largest_n_way=5)
    for i in range(6):
        (tmp_path / f"s/class {i}").mkdir(parents=True)
        photo((0, 99, 200), i).save(tmp_path / f"s/class {i}/0.png")
    with pytest.raises(ValueError, match="--support must hold at most 5 classes: .* 5 ways. Received: 6, 'class 0', "):
        run(model=limited, support=str(tmp_path / "s"))
    out, err = run(support=str(tmp_path / "s"))  # a head that starts at zero takes any number
    assert out.count("class ") >= 6 and "depends on the other photos" not in err


def test_answers_that_depend_on_each_other_are_noted(run, other):
    model = other(predictions_depend_on_the_other_queries=True)
    assert "an answer depends on the other photos of --query" in run(model=model)[1]


REFUSED = {
    "no model": ({"model": None}, "--model is missing"),
    "no export": ({"model": "support"}, "--model must be a folder that tf_lwdgh.export wrote"),
    "nothing to learn": ({"support": None}, "one of --support .* and --load .* Received: neither"),
    "two to learn": ({"load": "x.npz"}, "Received: both"),
    "nothing to ask": ({"query": []}, "--query is missing"),
    "nothing to keep": ({"support": None, "load": "x.npz", "save": "y.npz"}, "--save belongs to --support"),
    "no photos": ({"query": ["none"]}, "--query must name image files"),
    "no readable photo": ({"query": ["unknown/d.jpg"]}, "--query: no photo could be read, of 1.\nskipped 1:"),
    "no such classifier": ({"support": None, "load": "x.npz"}, "No such file.*x.npz"),
    "no pixels": ({"max_pixels": 0}, "--max_pixels must be at least 1"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_wrong_flags_are_one_message(run, fault):
    flags, message = REFUSED[fault]
    with pytest.raises((ValueError, OSError), match=message):
        run(**flags)


def test_a_class_without_a_readable_photo_is_refused_and_its_files_are_named(run, photos, tmp_path):
    shutil.copytree(photos / "support", tmp_path / "s")
    for path in (tmp_path / "s/red").iterdir():
        path.write_bytes(b"broken")
    rule = "(?s)--support: every class .*none for 'red'.*skipped 2:.*0.jpg: the image is"
    with pytest.raises(ValueError, match=rule):
        run(support=str(tmp_path / "s"))


def test_an_image_of_too_many_pixels_is_left_out(run):
    out, err = run(max_pixels=2500)
    assert "unknown/b.jpg: the image is corrupt (an image must have at most 2,500 pixels" in err
    assert "--max_pixels=2700 allows it" in err and "unknown/b.jpg" not in out
