# SPDX-License-Identifier: Apache-2.0
"""Photos are found by file, folder and pattern, and read as training would see them."""

import io
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.converters import raw
from tf_lwdgh.converters import photos
from tf_lwdgh.converters.problems import Problems


def find(folder: pathlib.Path, *patterns: str) -> tuple[list[str], Problems]:
    problems = Problems(skip_bad=True)
    found = photos.find([str(folder / p) for p in patterns], problems, flag="--query")
    return [p.relative_to(folder).as_posix() for p in found], problems


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    for name in ("b.png", "a.jpg", "deep/c.webp", "deep/er/d.PNG", "odd[1].png"):
        raw.save(tmp_path / name, raw.pixels(0))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "deep/.hidden.png").write_bytes(b"x")
    return tmp_path


def test_files_folders_and_patterns_name_photos_once_and_in_order(folder):
    assert find(folder, "deep", "b.png")[0] == ["deep/c.webp", "deep/er/d.PNG", "b.png"]
    assert find(folder, "*.png", "b.png", "b.png")[0] == ["b.png", "odd[1].png"]
    assert find(folder, "odd[1].png")[0] == ["odd[1].png"]
    assert find(folder, "**/*er/*")[0] == ["deep/er/d.PNG"]
    found, problems = find(folder, "*")
    assert found == ["a.jpg", "b.png", "deep/c.webp", "deep/er/d.PNG", "odd[1].png"]
    assert problems.summary() == "left out 1 .txt file"
    assert find(folder, "notes.txt")[0] == ["notes.txt"]  # who names it wants it tried


@pytest.mark.parametrize("pattern", ["no.png", "no/*", "*.txt", "empty"])
def test_what_names_no_photo_is_refused(folder, pattern):
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=f"--query must name image files.*{pattern.replace('*', '.')}"):
        find(folder, pattern)


def test_a_folder_is_a_class_and_what_lies_beside_is_counted(folder):
    raw.save(folder / "alder/x.png", raw.pixels(1))
    problems = Problems(skip_bad=True)
    found = photos.find_classes(folder, problems, flag="--support")
    assert {name: [p.name for p in paths] for name, paths in found.items()} == {
        "alder": ["x.png"], "deep": ["c.webp", "d.PNG"],
    }  # fmt: skip
    assert problems.summary() == "left out 1 .txt file, 3 images outside the classes' folders"


def test_a_support_set_needs_two_classes_with_photos(folder, tmp_path):
    for wrong, kind, message in (
        (folder / "no", FileNotFoundError, "--support must be a folder that holds a folder of images"),
        (folder, ValueError, "two or more. Received: 'deep' in "),
        (folder / "deep/er", ValueError, "two or more. Received: none in "),
    ):
        with pytest.raises(kind, match=message):
            photos.find_classes(wrong, Problems(skip_bad=True), flag="--support")
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="--support: every class must have an image.*none for 'empty'"):
        photos.find_classes(folder, Problems(skip_bad=True), flag="--support")


def shown(encoded: bytes) -> np.ndarray:
    return tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy()


def read(path: pathlib.Path, **options) -> tuple[list[photos.Photo], Problems]:
    problems = Problems(skip_bad=True)
    return list(photos.read([path], problems, **options)), problems


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_what_training_decodes_is_handed_on_as_it_is(tmp_path, name):
    content = raw.save(tmp_path / name, raw.pixels(0, 40))
    ((_, encoded),), problems = read(tmp_path / name)
    assert encoded == content and not problems.found


@pytest.mark.parametrize("name", ["a.webp", "a.tif", "a.gif", "a.bmp"])
def test_other_formats_become_what_they_show_to_the_bit(tmp_path, name):
    image = Image.fromarray(raw.pixels(0, 40)).quantize(64)  # as many colours as a GIF holds
    image = image if name == "a.gif" else image.convert("RGB")
    image.save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    ((_, encoded),), _ = read(tmp_path / name)
    np.testing.assert_array_equal(shown(encoded), np.asarray(image.convert("RGB")))


def test_a_turned_photo_stands_upright_and_a_large_bitmap_is_shrunk(tmp_path):
    exif = Image.Exif()
    exif[274] = 8  # a quarter turn anticlockwise
    pixels = np.zeros((600, 1400, 3), np.uint8)
    pixels[:, 700:] = 255  # white on the right, which comes to the top
    raw.save(tmp_path / "a.jpg", pixels, exif=exif)
    ((_, encoded),), _ = read(tmp_path / "a.jpg")
    upright = shown(encoded)
    assert upright.shape == (1024, 439, 3)
    assert upright[:500].min() > 240 and upright[-500:].max() < 15


def test_crop_keeps_the_middle(tmp_path):
    pixels = raw.pixels(0, 40)[:20]
    raw.save(tmp_path / "a.png", pixels)
    ((_, encoded),), _ = read(tmp_path / "a.png", crop=True)
    np.testing.assert_array_equal(shown(encoded), pixels[:, 10:30])
    square = raw.save(tmp_path / "b.png", pixels[:, :20])
    assert read(tmp_path / "b.png", crop=True)[0][0].encoded == square


def test_what_cannot_be_read_is_named_and_left_out(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(raw.pixels(0, 40)).save(buffer, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[:-300])
    found, problems = read(tmp_path / "cut.jpg")
    assert not found and "cut.jpg: the image is corrupt (" in problems.found[0]
    found, problems = read(tmp_path / "gone.jpg")
    assert not found and problems.found[0].endswith("gone.jpg: the file is missing")
