# SPDX-License-Identifier: Apache-2.0
"""The built-in data set: deterministic, new scripts in test, no look-alikes, made once."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tf_lwdgh.converters import glyphs
from tf_lwdgh.data import store


def test_images_depend_on_character_and_number_alone():
    a, b = glyphs.draw("Ж", 3), glyphs.draw("Ж", 3)
    assert a.shape == (84, 84, 3) and a.dtype == np.uint8
    np.testing.assert_array_equal(a, b)
    assert (a != glyphs.draw("Ж", 4)).mean() > 0.5
    assert (a != glyphs.draw("Д", 3)).mean() > 0.5


def test_splits_have_enough_classes_and_share_no_script():
    splits = glyphs.characters()
    assert [len(splits[split]) for split in store.SPLITS] == [130, 30, 51]
    scripts = {split: {script for script, _ in pairs} for split, pairs in splits.items()}
    assert not (scripts["train"] & scripts["val"] or scripts["train"] & scripts["test"])
    assert not scripts["val"] & scripts["test"]
    everything = [c for pairs in splits.values() for _, c in pairs]
    assert len(set(everything)) == len(everything)


def shape(character, font):
    """A blurred 32×32 drawing as a vector of length 1; size does not count."""
    plain = glyphs.ink(character, font)
    side = max(plain.size)
    square = Image.new("L", (side, side))
    square.paste(plain, ((side - plain.width) // 2, (side - plain.height) // 2))
    small = square.resize((32, 32), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(1.0))
    vector = np.asarray(small, np.float64).ravel()
    return vector / np.linalg.norm(vector)


def test_no_two_classes_look_alike_in_any_font():
    everything = [c for pairs in glyphs.characters().values() for _, c in pairs]
    drawings = [
        (c, shape(c, font))
        for c in everything
        for font in ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "DejaVuSans-Oblique")
        if font in glyphs.fonts_of(c)
    ]
    alike = np.stack([v for _, v in drawings]) @ np.stack([v for _, v in drawings]).T
    names = np.array([c for c, _ in drawings])
    alike[names[:, None] == names] = 0
    i, j = np.unravel_index(alike.argmax(), alike.shape)
    assert alike.max() < 0.89, (names[i], names[j])


def test_the_measure_tells_look_alikes():
    for twin, of in (("А", "A"), ("К", "K"), ("c", "C"), ("օ", "O")):
        assert max(shape(twin, f) @ shape(of, f) for f in ("DejaVuSans", "DejaVuSerif")) > 0.89


def test_every_class_can_be_drawn_by_a_font():
    for pairs in glyphs.characters().values():
        for _, character in pairs:
            plain = np.asarray(glyphs.ink(character, glyphs.fonts_of(character)[0]))
            assert min(plain.shape) > 5 and plain.max() == 255, character


@pytest.mark.parametrize("character", ["M", "ж", "Բ", "ა"])
def test_ink_is_lighter_than_ground(character):
    for number in range(10):
        r = glyphs.rng(character, number)  # the draws of `glyphs.draw` up to the mask
        names = glyphs.fonts_of(character)
        mask = glyphs._mask(glyphs.ink(character, names[r.integers(len(names))]), r)
        grey = glyphs.draw(character, number).mean(-1)
        assert grey[mask > 0.9].mean() - grey[mask < 0.01].mean() > 20, number


def test_making_writes_records_once(tmp_path, monkeypatch):
    few = {split: pairs[:2] for split, pairs in glyphs.characters().items()}
    monkeypatch.setattr(glyphs, "characters", lambda: few)
    monkeypatch.setattr(glyphs, "IMAGES_PER_CLASS", 3)
    spec = glyphs.make(tmp_path)
    folder = tmp_path / "glyphs"
    assert spec.images_per_class == (3,) * 6 and spec.image_size == 84
    assert spec.class_names[0] == "Latin/U+0041" and spec.encoding == "png"
    before = (folder / store.SPEC_FILE).stat().st_mtime_ns
    assert glyphs.make(tmp_path) == spec
    assert (folder / store.SPEC_FILE).stat().st_mtime_ns == before
    assert glyphs.make(tmp_path, overwrite=True).fingerprint == spec.fingerprint


def test_other_version_is_not_taken_for_this_one(tmp_path, monkeypatch):
    few = {split: pairs[:1] for split, pairs in glyphs.characters().items()}
    monkeypatch.setattr(glyphs, "characters", lambda: few)
    monkeypatch.setattr(glyphs, "IMAGES_PER_CLASS", 1)
    glyphs.make(tmp_path)
    monkeypatch.setattr(glyphs, "VERSION", "glyphs-x")
    with pytest.raises(FileExistsError, match="version 'glyphs-.', .* 'glyphs-x': say --over"):
        glyphs.make(tmp_path)
