# SPDX-License-Identifier: Apache-2.0
"""Converters: every form of a data set, made small, gives the right records; damage is named."""

import os
import pathlib
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.converters import raw
from tf_lwdgh.converters import (
    arguments,
    folders,
    listed_splits,
    mini_imagenet,
    omniglot,
    pictures,
    problems,
    ravi_split,
    safe_pickle,
)
from tf_lwdgh.converters.__main__ import COMMANDS
from tf_lwdgh.data import store

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"


def _area_oracle(pixels: np.ndarray, size: int) -> np.ndarray:
    """Every pixel repeated `size` times along each axis, then plain block means."""
    n = len(pixels)
    fine = pixels.astype(np.float64).repeat(size, 0).repeat(size, 1)
    return fine.reshape(size, n, size, n, *pixels.shape[2:]).mean(axis=(1, 3))


@pytest.mark.parametrize(("old", "new", "channels"), [(105, 28, 1), (12, 5, 3), (10, 10, 1), (9, 3, 3)])
def test_shrinking_averages_exact_areas(old, new, channels):
    pixels = raw.pixels(0, old, channels)
    got = pictures.resize(pixels, new)
    assert got.dtype == np.uint8 and got.shape == (new, new) + pixels.shape[2:]
    assert np.abs(got - _area_oracle(pixels, new)).max() <= 0.501


def test_enlarging_keeps_dtype_and_shape():
    assert pictures.resize(raw.pixels(0, 4), 9).shape == (9, 9, 3)


# Omniglot


@pytest.fixture
def small_omniglot(tmp_path, monkeypatch):
    """The official layout with 3 alphabets a part, 2 or 3 characters, 4 drawings."""
    background, evaluation = (
        {"Greek": 3, "Hebrew": 2, "Latin": 2},
        {"Angelic": 2, "Gurmukhi": 3, "ULOG": 2},
    )
    monkeypatch.setattr(omniglot, "BACKGROUND", background)
    monkeypatch.setattr(omniglot, "EVALUATION", evaluation)
    monkeypatch.setattr(omniglot, "_LAKE_VAL", ("Latin",))
    monkeypatch.setattr(omniglot, "_VINYALS_CUT_TRAINS", 1)
    monkeypatch.setattr(omniglot, "DRAWINGS", 4)
    source = tmp_path / "official"
    for part, alphabets in zip(omniglot.PARTS, (background, evaluation), strict=True):
        for alphabet, count in alphabets.items():
            for number in range(1, count + 1):
                for drawing in range(1, 5):
                    name = f"{part}/{alphabet}/character{number:02d}/{number:04d}_{drawing:02d}.png"
                    ink = np.ones((105, 105), bool)  # white paper
                    ink[10 * drawing : 10 * drawing + 8, 8 * number : 80] = False
                    raw.save(source / name, ink)
    return source


def _zipped(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    target.mkdir()
    for part in omniglot.PARTS:
        with zipfile.ZipFile(target / f"{part}.zip", "w") as file:
            for name, content in raw.files(source / part).items():
                file.writestr(f"{part}/{name}", content)
    return target


def test_omniglot_zips_and_folders_give_the_same_records(small_omniglot, tmp_path):
    zips = _zipped(small_omniglot, tmp_path / "zips")
    before = raw.files(zips), raw.files(small_omniglot)
    spec, _ = omniglot.convert(zips, tmp_path / "data" / "a", split="vinyals")
    other, _ = omniglot.convert(small_omniglot, tmp_path / "data" / "b", split="vinyals")
    assert spec.content_checksum == other.content_checksum
    assert (spec.split_name, spec.image_size, spec.encoding) == ("vinyals", 28, "png")
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["a", "b"]
    assert (raw.files(zips), raw.files(small_omniglot)) == before
    records = raw.records(tmp_path / "data" / "a")
    assert list(records["train"]) == [
        "Greek/character01", "Greek/character02", "Greek/character03", "Latin/character01",
        "Latin/character02", "Angelic/character01", "Angelic/character02", "Gurmukhi/character01",
    ]  # fmt: skip
    assert list(records["val"]) == ["Hebrew/character01", "Hebrew/character02"]
    assert [c.split("/")[0] for c in records["test"]] == ["Gurmukhi"] * 2 + ["ULOG"] * 2
    names = [spec.superclass_names[i] for i in spec.superclasses]
    assert names == [c.split("/")[0] for c in spec.class_names]


def test_omniglot_drawings_are_white_on_black_and_area_averaged(small_omniglot, tmp_path):
    omniglot.convert(small_omniglot, tmp_path / "out", split="lake")
    drawing = raw.records(tmp_path / "out")["train"]["Greek/character02"][2]
    ink = np.zeros((105, 105))
    ink[30:38, 16:80] = 255
    assert np.abs(raw.decode(drawing)[..., 0] - _area_oracle(ink, 28)).max() <= 0.501


def test_omniglot_splits_have_the_published_sizes():
    vinyals, lake, meta_dataset = map(omniglot.characters, ("vinyals", "lake", "meta_dataset"))
    assert [len(vinyals[s]) for s in store.SPLITS] == [1028, 172, 423]
    assert [len(lake[s]) for s in store.SPLITS] == [813, 151, 659]
    assert [len(meta_dataset[s]) for s in store.SPLITS] == [883, 81, 659]
    for split in (vinyals, lake, meta_dataset):
        assert len({c for s in split.values() for c in s}) == 1623
    assert {a for a, _ in lake["train"] + lake["val"]} == set(omniglot.BACKGROUND)
    assert ("Gurmukhi", 41) in vinyals["train"] and ("Gurmukhi", 42) in vinyals["test"]
    smallest = {"Alphabet_of_the_Magi", "Tagalog"} | {a for a in omniglot.BACKGROUND if "Abor" in a}
    assert {a for a, _ in meta_dataset["val"]} == smallest
    with pytest.raises(ValueError, match="one of vinyals, lake, meta_dataset. Received: 'mine'"):
        omniglot.characters("mine")


def test_omniglot_damage_is_named_or_counted(small_omniglot, tmp_path):
    (small_omniglot / "images_background/Greek/character01/0001_02.png").write_bytes(b"\x89PNG nothing")
    (small_omniglot / "images_evaluation/ULOG/character02/0002_01.png").unlink()
    out = tmp_path / "data" / "out"
    with pytest.raises(ValueError, match=r"ULOG/character02: a character has 4 drawings, found 3"):
        omniglot.convert(small_omniglot, out, split="lake")
    spec, found = omniglot.convert(small_omniglot, out, split="lake", skip_bad=True)
    assert found.summary().startswith("skipped 2:\n")
    assert "Greek/character01/0001_02.png: the image is corrupt" in found.summary()
    assert sorted(spec.images_per_class)[:3] == [3, 3, 4]
    (small_omniglot / "images_evaluation").rename(small_omniglot / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"holds images_evaluation\.zip or the folder"):
        omniglot.convert(small_omniglot, tmp_path / "other", split="lake")


def test_corrupt_image_leaves_no_output_behind(small_omniglot, tmp_path):
    last = small_omniglot / "images_evaluation/ULOG/character02/0002_04.png"
    last.write_bytes(last.read_bytes()[:-30])
    zips = _zipped(small_omniglot, tmp_path / "zips")
    with pytest.raises(ValueError, match=r"ULOG/character02/0002_04\.png: the image is corrupt"):
        omniglot.convert(zips, tmp_path / "data" / "out", split="lake")
    assert list((tmp_path / "data").iterdir()) == []


# Folder trees


def _tree(root: pathlib.Path, names: dict[str, list[str]], images: int = 3) -> dict[str, list[bytes]]:
    """split -> classes; JPEG of two sizes and PNG. Gives each class's bytes."""
    out = {}
    for split, classes in names.items():
        for number, name in enumerate(classes):
            suffixes = [".JPEG", ".png", ".jpg"]
            out[name] = [
                raw.save(root / split / name / f"{i}{suffixes[i % 3]}", raw.pixels(100 * number + i))
                for i in range(images)
            ]
    return out


SPLIT = {"train": ["a", "b", "c"], "valid": ["d"], "test": ["e", "f"]}


@pytest.mark.parametrize("packed", ["folder", "tar.xz", "zip"])
def test_split_folders_keep_every_byte(tmp_path, packed):
    root = tmp_path / "top" / "photos"
    expected = _tree(root, SPLIT)
    (root / "classes.csv").write_text("a,b")
    source = root
    if packed == "zip":
        source = tmp_path / "photos.zip"
        with zipfile.ZipFile(source, "w") as file:
            for name, content in raw.files(tmp_path / "top").items():
                file.writestr(name, content)
    elif packed == "tar.xz":
        source = tmp_path / "photos.tar.xz"
        with tarfile.open(source, "w:xz") as file:
            file.add(root, arcname="photos")
    spec, _ = folders.convert(source, tmp_path / "data" / "photos", name="photos")
    got = raw.records(tmp_path / "data" / "photos")
    assert {s: list(c) for s, c in got.items()} == {
        "train": ["a", "b", "c"],
        "val": ["d"],
        "test": ["e", "f"],
    }
    assert {c: images for by_class in got.values() for c, images in by_class.items()} == expected
    assert (spec.image_size, spec.encoding, spec.split_name) == (12, "mixed", "folders")
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["photos"]


def test_images_are_resized_to_png_only_where_their_size_differs(tmp_path):
    _tree(tmp_path / "in", SPLIT)
    kept = raw.save(tmp_path / "in/train/a/9.jpg", raw.pixels(9, 6))
    spec, _ = folders.convert(tmp_path / "in", tmp_path / "out", name="x", sizing=pictures.Sizing(6))
    images = raw.records(tmp_path / "out")["train"]["a"]
    assert images[3] == kept and spec.image_size == 6
    np.testing.assert_array_equal(raw.decode(images[1]), pictures.resize(raw.pixels(1), 6))


def test_sizes_that_differ_are_recorded_as_none(tmp_path):
    _tree(tmp_path / "in", SPLIT)
    raw.save(tmp_path / "in/test/f/9.png", raw.pixels(9, 6))
    assert folders.convert(tmp_path / "in", tmp_path / "out", name="x")[0].image_size is None


def test_other_formats_become_png(tmp_path):
    _tree(tmp_path / "in", SPLIT)
    raw.save(tmp_path / "in/train/a/8.bmp", raw.pixels(8))
    (tmp_path / "in/train/a/9.jpg").write_bytes(b"")
    Image.fromarray(raw.pixels(3)).convert("CMYK").save(tmp_path / "in/train/a/9.jpg")
    folders.convert(tmp_path / "in", tmp_path / "out", name="x")
    images = raw.records(tmp_path / "out")["train"]["a"]
    assert images[4][:4] == b"\x89PNG" and raw.decode(images[4]).shape == (12, 12, 3)
    np.testing.assert_array_equal(raw.decode(images[3]), raw.pixels(8))


def test_fractions_split_by_seed_alone(tmp_path):
    names = [f"c{i:02d}" for i in range(25)]
    _tree(tmp_path, {"in": names}, images=2)
    chosen = []
    for seed, out in ((0, "a"), (0, "b"), (1, "c")):
        choice = folders.SplitChoice((0.64, 0.16, 0.2), seed)
        spec, _ = folders.convert(tmp_path / "in", tmp_path / out, name="x", split=choice)
        assert [len(spec.classes(s)) for s in store.SPLITS] == [16, 4, 5]
        assert sorted(spec.class_names) == names
        chosen.append(spec.class_names)
    assert chosen[0] == chosen[1] != chosen[2]
    assert spec.split_name == "fractions 0.64,0.16,0.2 seed 1"


def test_lists_name_the_classes_of_each_split(tmp_path):
    _tree(tmp_path, {"in": list("abcde")})
    for split, names in {"train": "e\nb\n", "val": "a/\n", "test": "d"}.items():
        (tmp_path / f"{split}.txt").write_text(names)
    choice = folders.SplitChoice(lists=tmp_path)
    spec, _ = folders.convert(tmp_path / "in", tmp_path / "out", name="x", split=choice)
    assert spec.class_names == ("e", "b", "a", "d")
    (tmp_path / "test.txt").write_text("d\nz")
    with pytest.raises(ValueError, match="in/z: the folder of this test class is missing"):
        folders.convert(tmp_path / "in", tmp_path / "out2", name="x", split=choice)
    (tmp_path / "test.txt").write_text("d\nb")
    with pytest.raises(ValueError, match="class 'b' stands in both train and test"):
        folders.convert(tmp_path / "in", tmp_path / "out2", name="x", split=choice)


def test_wrong_layouts_are_named(tmp_path):
    _tree(tmp_path / "two", {"train": ["a"], "test": ["b"]})
    with pytest.raises(ValueError, match="needs one folder val or valid or validation, found none"):
        folders.convert(tmp_path / "two", tmp_path / "out", name="x")
    _tree(tmp_path / "both", {**SPLIT, "val": ["x"]})
    with pytest.raises(ValueError, match="found val and valid"):
        folders.convert(tmp_path / "both", tmp_path / "out", name="x")
    with pytest.raises(ValueError, match="leave out --fractions"):
        choice = folders.SplitChoice((0.5, 0.25, 0.25))
        folders.convert(tmp_path / "two", tmp_path / "out", name="x", split=choice)
    with pytest.raises(ValueError, match=r"sum to 1. Received: \(0.5, 0.5, 0.5\)"):
        folders.SplitChoice((0.5, 0.5, 0.5))
    _tree(tmp_path / "leak", {"train": ["a"], "val": ["a"], "test": ["b"]})
    with pytest.raises(ValueError, match="class 'a' stands in both train and val"):
        folders.convert(tmp_path / "leak", tmp_path / "out", name="x")
    assert not (tmp_path / "out").exists()


def test_short_class_and_corrupt_image_stop_or_are_counted(tmp_path):
    _tree(tmp_path / "in", SPLIT)
    raw.save(tmp_path / "in/train/short/0.png", raw.pixels(0))
    with pytest.raises(ValueError, match="train class 'short': a class needs at least 2 images, found 1"):
        folders.convert(tmp_path / "in", tmp_path / "out", name="x")
    bad = tmp_path / "in/train/b/1.png"
    bad.write_bytes(bad.read_bytes()[:-1])  # which Pillow reads, and TensorFlow does not
    with pytest.raises(ValueError, match=r"b/1\.png: the image is corrupt"):
        folders.convert(tmp_path / "in", tmp_path / "out", name="x", min_images=1)
    assert not (tmp_path / "out").exists()
    before = raw.files(tmp_path / "in")
    spec, found = folders.convert(tmp_path / "in", tmp_path / "out", name="x", skip_bad=True)
    assert len(found.found) == 2 and spec.class_names[:3] == ("a", "b", "c")
    assert spec.images_per_class[:3] == (3, 2, 3)
    assert raw.files(tmp_path / "in") == before


# mini-ImageNet


@pytest.fixture
def small_mini(monkeypatch):
    """3 / 1 / 2 classes of 4 images of 12x12, by split and class."""
    monkeypatch.setattr(mini_imagenet, "CLASSES", {"train": 3, "val": 1, "test": 2})
    monkeypatch.setattr(mini_imagenet, "IMAGES", 4)
    names = {"train": ["n01532829", "n01558993", "n01704323"], "val": ["n01855672"],
             "test": ["n01930112", "n01981276"]}  # fmt: skip
    return {
        split: {c: np.stack([raw.pixels(int(c[1:]) + i) for i in range(4)]) for c in classes}
        for split, classes in names.items()
    }


def _convert_mini(source, out, **options):
    return mini_imagenet.convert(source, out, image_size=12, **options)


def _assert_equal(folder: pathlib.Path, expected: dict) -> None:
    got = raw.records(folder)
    for split, by_class in expected.items():
        assert list(got[split]) == list(by_class)
        for name, pixels in by_class.items():
            np.testing.assert_array_equal(np.stack([raw.decode(e) for e in got[split][name]]), pixels)


def _cache(root, data, *, keys=str, val="val"):
    root.mkdir(exist_ok=True)
    for split, by_class in data.items():
        rows = np.arange(4 * len(by_class)).reshape(-1, 4).tolist()
        content = {
            keys("image_data"): np.concatenate(list(by_class.values())),
            keys("class_dict"): {keys(c): r for c, r in zip(by_class, rows, strict=True)},
        }
        name = f"mini-imagenet-cache-{val if split == 'val' else split}.pkl"
        (root / name).write_bytes(pickle.dumps(content, 2))
    return root


@pytest.mark.parametrize(("keys", "val"), [(str, "val"), (str.encode, "validation")])
def test_mini_imagenet_cache(small_mini, tmp_path, keys, val):
    source = _cache(tmp_path / "in", small_mini, keys=keys, val=val)
    spec, _ = _convert_mini(source, tmp_path / "out")
    _assert_equal(tmp_path / "out", small_mini)
    assert (spec.encoding, spec.image_size, spec.split_name) == ("png", 12, "ravi")


def _category(root, data, *, prefix="miniImageNet_category_split_", phase="train_phase_train", listed=False):
    root.mkdir(exist_ok=True)
    first = 0
    for split, by_class in data.items():
        labels = np.repeat(first + np.arange(len(by_class)), 4)
        first += len(by_class)
        pixels = np.concatenate(list(by_class.values()))
        order = np.random.default_rng(0).permutation(len(labels)) if listed else np.arange(len(labels))
        content = {
            "data": list(pixels[order]) if listed else pixels,
            "labels": labels[order].tolist(),
        }
        name = f"{prefix}{phase if split == 'train' else split}.pickle"
        (root / name).write_bytes(pickle.dumps(content, 2))
    return root


@pytest.mark.parametrize(
    "options",
    [{}, {"prefix": ""}, {"phase": "train"}, {"listed": True, "prefix": "", "phase": "train"}],
)
def test_mini_imagenet_category(small_mini, tmp_path, options):
    _convert_mini(_category(tmp_path / "in", small_mini, **options), tmp_path / "out")
    got = raw.records(tmp_path / "out")
    assert list(got["train"]) == ["train-00", "train-01", "train-02"]
    assert list(got["val"]) == ["val-03"] and list(got["test"]) == ["test-04", "test-05"]
    for split, by_class in small_mini.items():
        for name, pixels in zip(got[split], by_class.values(), strict=True):
            images = {raw.decode(e).tobytes() for e in got[split][name]}
            assert images == {p.tobytes() for p in pixels}


def _lists(root, data, places):
    root.mkdir(exist_ok=True)
    for split, by_class in data.items():
        rows = [f"{c}000{p:05d}.jpg,{c}" for c in by_class for p in places]
        (root / f"{split}.csv").write_text("\n".join(["filename,label", *rows]) + "\n")
    return root


def test_mini_imagenet_images_with_lists(small_mini, tmp_path):
    source, places = tmp_path / "in", (5, 17, 600, 1290)
    _lists(source, small_mini, places)
    for by_class in small_mini.values():
        for name, pixels in by_class.items():
            for place, image in zip(places, pixels, strict=True):
                raw.save(source / f"images/{name}000{place:05d}.jpg", image, format="PNG")
    _convert_mini(source, tmp_path / "out")
    _assert_equal(tmp_path / "out", small_mini)
    (source / "images/n0155899300000017.jpg").unlink()
    with pytest.raises(ValueError, match=r"n0155899300000017\.jpg: the file that train\.csv names is missing"):
        _convert_mini(source, tmp_path / "out2")
    spec, found = _convert_mini(source, tmp_path / "out2", skip_bad=True)
    assert len(found.found) == 2 and spec.images_per_class[1] == 3  # the file and its short class


@pytest.mark.parametrize("home", ["", "train"])
def test_mini_imagenet_from_ilsvrc_counts_numerically_sorted_files(small_mini, tmp_path, home):
    lists = _lists(tmp_path / "lists", small_mini, (2, 3, 5, 6))
    numbers = (3, 10, 20, 100, 1000, 9999)  # as text, 10 < 100 < 1000 < 20 < 3 < 9999
    expected = {}
    for split, by_class in small_mini.items():
        expected[split] = {}
        for name in by_class:
            images = [raw.pixels(int(name[1:]) + n, 24) for n in numbers]
            for number, image in zip(numbers, images, strict=True):
                raw.save(tmp_path / "in" / home / name / f"{name}_{number}.JPEG", image, format="PNG")
            chosen = [pictures.resize(images[place - 1], 12) for place in (2, 3, 5, 6)]
            expected[split][name] = np.stack(chosen)
    _convert_mini(tmp_path / "in", tmp_path / "out", splits=lists)
    _assert_equal(tmp_path / "out", expected)
    (tmp_path / "in" / home / "n01855672/n01855672_3.JPEG").unlink()
    with pytest.raises(ValueError, match="n01855672: val.csv asks for its file 6, the folder has 5"):
        _convert_mini(tmp_path / "in", tmp_path / "out2", splits=lists)


def test_mini_imagenet_folders_in_an_archive(small_mini, tmp_path):
    for split, by_class in small_mini.items():
        for name, pixels in by_class.items():
            for i, image in enumerate(pixels):
                raw.save(tmp_path / "mini" / split / name / f"{i}.png", image)
    with tarfile.open(tmp_path / "mini.tgz", "w:gz") as file:
        file.add(tmp_path / "mini", arcname="some/mini")
    _convert_mini(tmp_path / "mini.tgz", tmp_path / "out")
    _assert_equal(tmp_path / "out", small_mini)


def test_mini_imagenet_counts_are_checked_unless_a_subset_is_asked_for(small_mini, tmp_path, monkeypatch):
    source = _cache(tmp_path / "in", small_mini)
    monkeypatch.setattr(mini_imagenet, "IMAGES", 600)
    with pytest.raises(ValueError, match="'n01532829': mini-ImageNet's classes have 600 images, found 4"):
        _convert_mini(source, tmp_path / "out")
    monkeypatch.setattr(mini_imagenet, "CLASSES", {"train": 64, "val": 16, "test": 20})
    with pytest.raises(ValueError, match="has 64 train classes, found 3.* --subset"):
        _convert_mini(source, tmp_path / "out")
    assert _convert_mini(source, tmp_path / "out", subset=True)[0].split_name == "ravi (subset)"


def test_mini_imagenet_of_another_split_is_refused(small_mini, tmp_path):
    assert [list(ravi_split.SPLIT_OF.values()).count(s) for s in store.SPLITS] == [64, 16, 20]
    swapped = {**small_mini, "val": {"n01930112": small_mini["val"]["n01855672"]}}
    swapped["test"] = {c: p for c, p in small_mini["test"].items() if c != "n01930112"}
    source = _cache(tmp_path / "in", swapped)
    with pytest.raises(ValueError, match="val class 'n01930112': in Ravi .* it is in test. Say"):
        _convert_mini(source, tmp_path / "out")
    unknown = {**small_mini, "val": {"n00000001": small_mini["val"]["n01855672"]}}
    with pytest.raises(ValueError, match="'n00000001': in Ravi .* it is not among its classes"):
        _convert_mini(_cache(tmp_path / "in", unknown), tmp_path / "out")


def test_mini_imagenet_refuses_to_guess_between_forms(small_mini, tmp_path):
    _category(_cache(tmp_path / "in", small_mini), small_mini)
    with pytest.raises(ValueError, match="several forms: say --form=cache or category"):
        _convert_mini(tmp_path / "in", tmp_path / "out")
    _convert_mini(tmp_path / "in", tmp_path / "out", form="cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no mini-ImageNet in a known form .cache: mini-imagenet"):
        _convert_mini(tmp_path / "empty", tmp_path / "out2")
    with pytest.raises(ValueError, match="--form must be one of cache, .* Received: 'npz'"):
        _convert_mini(tmp_path / "in", tmp_path / "out2", form="npz")


def test_mini_imagenet_pickles_with_wrong_content_are_named(small_mini, tmp_path):
    source = _cache(tmp_path / "in", small_mini)
    path = source / "mini-imagenet-cache-val.pkl"
    good = pickle.loads(path.read_bytes())
    cases = {
        "must hold a dictionary. Received: list": [1],
        "has no key 'image_data'. Received the keys: data": {"data": 1},
        r"Received at 0: float64 \[4, 12, 12, 3\]": good | {"image_data": good["image_data"] / 255},
        "each of the 4 rows .* at most once": good | {"class_dict": {"a": [0, 1], "b": [1, 2]}},
        "each of the 4 rows .* from 2 to 7": good | {"class_dict": {"a": [2, 7]}},
    }
    for text, content in cases.items():
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=f"cache-val.pkl.*{text}"):
            _convert_mini(source, tmp_path / "out")
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(safe_pickle.UnsafePickle, match=r"cache-val.pkl is refused: it asks for os\.system"):
        _convert_mini(source, tmp_path / "out")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="file of split val is missing: mini-imagenet-cache-val.pkl"):
        _convert_mini(source, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_lists_with_paths_are_refused(tmp_path):
    lists = {"train": {"n1": ["../secret.jpg"]}}
    with pytest.raises(ValueError, match="must name plain files"):
        listed_splits.from_images(tmp_path, lists, problems.Problems())


# Entry points


def _run(tool: str, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOLS / tool), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("tool", ["convert_omniglot.py", "convert_folder.py", "convert_mini_imagenet.py"])
def test_help_teaches_with_an_example(tool):
    done = _run(tool, "--help")
    assert done.returncode == 0 and f"python tools/{tool} --source=" in done.stdout
    assert done.stderr == "" and "--skip_bad" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_installed_package_converts_without_the_tools(tmp_path, name):
    command = [sys.executable, "-m", "tf_lwdgh.converters", name, "--help"]
    environment = {**os.environ, "PYTHONPATH": str(TOOLS.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0 and f"usage: python -m tf_lwdgh.converters {name}" in done.stdout
    tools = set(re.findall(r"python\s+(tools/\w+\.py)\s", done.stdout))
    odd = {"glyphs": "make_glyphs", "build_tfds": "build_tfds"}
    assert tools == {f"tools/{odd.get(name, f'convert_{name}')}.py"}
    assert all((TOOLS.parent / tool).is_file() for tool in tools)


def test_omniglot_split_is_never_guessed():
    done = _run("convert_omniglot.py", "--source=x")
    assert done.returncode == 2 and "required: --split" in done.stderr


def test_tool_converts_once_and_then_asks_for_overwrite(tmp_path):
    _tree(tmp_path / "in", SPLIT)
    flags = f"--source={tmp_path / 'in'}", f"--data_dir={tmp_path / 'data'}", "--name=photos"
    done = _run("convert_folder.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "train 3 classes / 9 images, val 1 classes / 3 images" in done.stdout
    again = _run("convert_folder.py", *flags)
    assert again.returncode == 2 and "photos exists and is not empty. Say --overwrite" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_data_set_names_are_names_of_folders(tmp_path, name):
    with pytest.raises(ValueError, match="--name must be the name of a folder"):
        arguments.output_folder(tmp_path, name, overwrite=True)


def test_problem_summary_is_short():
    found = problems.Problems(skip_bad=True)
    for i in range(30):
        found.add(f"file{i:02d}", "bad")
    assert found.summary().count("\n") == 21 and "and 10 more" in found.summary()
