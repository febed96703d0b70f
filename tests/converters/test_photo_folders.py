# SPDX-License-Identifier: Apache-2.0
"""Folders of photographs become records that train fast, and what was left out or is too little is said."""

import io
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from tests.converters import raw
from tf_lwdgh import command_line
from tf_lwdgh.converters import folders, pictures, ways
from tf_lwdgh.converters.commands import folder as command
from tf_lwdgh.converters.problems import Problems
from tf_lwdgh.data import store

SPLIT = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Smooth colours, with a mark in the middle."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([x, y, np.full_like(x, 40 * seed)], -1).astype(np.uint8)
    pixels[height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2] = 255
    return pixels


def tree(root: pathlib.Path, images: int = 2, width: int = 40, height: int = 30) -> pathlib.Path:
    for split, names in SPLIT.items():
        for name in names:
            for i in range(images):
                raw.save(root / split / name / f"{i}.jpg", photo(width, height, i))
    return root


def decoded(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def converted(root: pathlib.Path, out: pathlib.Path, **sizing) -> tuple[store.DatasetSpec, list[bytes]]:
    spec, _ = folders.convert(root, out, name="x", sizing=pictures.Sizing(**sizing))
    return spec, raw.records(out)["train"]["a"]


def test_large_photos_are_shrunk_and_small_ones_stay_byte_for_byte(tmp_path):
    root = tree(tmp_path / "in")
    large = raw.save(root / "train/a/1.jpg", photo(120, 90), quality=95)
    spec, (small, shrunk) = converted(root, tmp_path / "out", longest_side=60)
    assert small == (root / "train/a/0.jpg").read_bytes() and spec.image_size is None
    means = decoded(large).astype(float).reshape(45, 2, 60, 2, 3).mean(axis=(1, 3))
    assert decoded(shrunk).shape == (45, 60, 3) and np.abs(decoded(shrunk) - means).max() <= 1


def test_a_turned_photo_is_shrunk_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn clockwise
    raw.save(tmp_path / "a.jpg", photo(120, 60), exif=exif)
    (image,) = pictures.read_images([tmp_path / "a.jpg"], Problems(), longest_side=60)
    assert image.shape == (60, 30, 3)
    assert image[0, 0, 1] > 200 and image[0, -1, 1] < 60  # the lower left corner is now the upper left


def test_crop_keeps_the_middle_square_and_its_aspect_ratio(tmp_path):
    root = tree(tmp_path / "in", width=80, height=40)
    spec, (cropped, _) = converted(root, tmp_path / "out", image_size=20, crop=True)
    assert spec.image_size == 20
    whole = decoded((root / "train/a/0.jpg").read_bytes())
    middle = whole[:, 20:60].astype(float).reshape(20, 2, 20, 2, 3).mean(axis=(1, 3))
    assert np.abs(decoded(cropped) - middle).max() <= 1
    _, (stretched, _) = converted(root, tmp_path / "out2", image_size=20)
    assert decoded(stretched)[0, 0, 0] < 9 < 50 < decoded(cropped)[0, 0, 0]
    spec, _ = converted(root, tmp_path / "out3", crop=True)
    assert spec.image_size == 40


@pytest.mark.parametrize(
    "size, sizing, expected",
    [
        ((4000, 3000), {"longest_side": 256}, (256, 192)),
        ((3000, 4000), {"longest_side": 256, "crop": True}, (256, 256)),
        ((5000, 3), {"longest_side": 10}, (10, 1)),
        ((256, 100), {"longest_side": 256}, (256, 100)),
        ((256, 100), {"longest_side": 10, "image_size": 84}, (84, 84)),
        ((7, 4), {"crop": True}, (4, 4)),
    ],
)
def test_sizes(size, sizing, expected):
    assert pictures.Sizing(**sizing).of(*size) == expected


def test_what_was_left_out_is_counted_by_kind_and_nothing_only_where_there_is_nothing(tmp_path):
    root = tree(tmp_path / "in")
    _, found = folders.convert(root, tmp_path / "out", name="x")
    assert found.summary() == "nothing was skipped"
    (root / "train/a/notes.txt").write_text("x")
    (root / "train/b/more.TXT").write_text("x")
    (root / "train/a/raw.NEF").write_text("x")
    (root / "train/b/LICENSE").write_text("x")
    (root / "train/b/.hidden.txt").write_text("x")
    (root / "classes.csv").write_text("x")
    raw.save(root / "train/stray.png", photo(8, 8))
    (root / "unlabeled").mkdir()
    _, found = folders.convert(root, tmp_path / "out2", name="x")
    assert found.summary() == (
        "left out 1 .csv file, 1 .nef file, 2 .txt files, 1 file without a suffix, "
        "1 folder that is no class of a split, 1 image outside the classes' folders"
    )


def test_classes_that_no_list_names_are_counted(tmp_path):
    for name in "abcd":
        raw.save(tmp_path / "in" / name / "0.png", photo(8, 8))
        raw.save(tmp_path / "in" / name / "1.png", photo(8, 8, 1))
    for split, name in (("train", "a"), ("val", "b"), ("test", "c")):
        (tmp_path / f"{split}.txt").write_text(name)
    split = folders.SplitChoice(lists=tmp_path)
    _, found = folders.convert(tmp_path / "in", tmp_path / "out", name="x", split=split)
    assert found.summary() == "left out 1 folder that is no class of a split"


def spec(train: int, val: int, test: int, images: int = 20) -> store.DatasetSpec:
    n = train + val + test
    counts = {"train": train, "val": val, "test": test}
    return store.DatasetSpec("x", counts, (images,) * n, tuple(map(str, range(n))))


def test_the_largest_tasks_of_each_split_are_named():
    lines = list(ways.lines(spec(64, 16, 20)))
    assert lines == [
        "tasks of train: up to 64 ways, k_shot + n_query up to 20",
        "tasks of val: up to 16 ways, k_shot + n_query up to 20",
        "tasks of test: up to 20 ways, k_shot + n_query up to 20",
    ]


@pytest.mark.parametrize(
    "sizes, images, note",
    [
        ((64, 3, 20), 20, "val has 3 classes, fewer than the usual 5 ways.*N_WAY = 3"),
        ((64, 16, 1), 20, "test has one class, and a task needs two"),
        ((64, 16, 0), 20, "test has no class"),
        ((64, 5, 20), 20, "val has 5 classes: its 5-way tasks are of one set of classes"),
        ((64, 9, 20), 20, "val has 9 classes: its 5-way tasks are of 126 sets"),
        ((64, 16, 20), 6, "smallest class, '0', has 6 images, fewer than the usual 16.*N_QUERY = 5"),
    ],
)
def test_splits_that_are_too_small_are_noted(sizes, images, note):
    notes = [line for line in ways.lines(spec(*sizes, images)) if line.startswith("note: ")]
    assert any(re.search(note, line) for line in notes), notes


def run(tmp_path: pathlib.Path, monkeypatch, capsys, *flags: str) -> tuple[str, str]:
    monkeypatch.setattr(command_line, "start_tensorflow", lambda: None)
    command.main([f"--source={tmp_path / 'in'}", "--name=photos", f"--data_dir={tmp_path / 'data'}", *flags])
    return capsys.readouterr()


def test_the_command_shrinks_by_default_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    root = tree(tmp_path / "in")
    raw.save(root / "train/a/0.jpg", photo(600, 300))
    out, _ = run(tmp_path, monkeypatch, capsys)
    assert decoded(raw.records(tmp_path / "data/photos")["train"]["a"][0]).shape == (128, 256, 3)
    assert "train 2 classes / 4 images" in out and "; nothing was skipped\n" in out
    assert "tasks of train: up to 2 ways, k_shot + n_query up to 2\n" in out
    named = "--gin_param=\"DatasetConfig.name = 'photos'\""
    assert f"train: python -m tf_lwdgh.train --gin_file=gin/folder.gin {named}" in out
    assert "predict with" not in out
    out, _ = run(tmp_path, monkeypatch, capsys, "--overwrite", "--longest_side=0", "--resize=crop")
    assert decoded(raw.records(tmp_path / "data/photos")["train"]["a"][0]).shape == (300, 300, 3)
    assert "predict with --resize=crop too" in out


def test_a_negative_size_is_refused(tmp_path, monkeypatch, capsys):
    tree(tmp_path / "in")
    with pytest.raises(SystemExit) as left:
        run(tmp_path, monkeypatch, capsys, "--longest_side=-1")
    assert left.value.code == 2
    assert "--longest_side must be at least 0. Received: -1." in capsys.readouterr().err
