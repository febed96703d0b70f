"""The built-in data set: deterministic, new scripts in test, no look-alikes, made once."""

import numpy as np
import pytest

from tf_lwdgh import store
from tf_lwdgh.converters import glyphs


def test_images_depend_on_character_and_number_alone():
    a, b = glyphs.draw("Ж", 3), glyphs.draw("Ж", 3)
    assert a.shape == (84, 84, 3) and a.dtype == np.uint8
    np.testing.assert_array_equal(a, b)
    assert (a != glyphs.draw("Ж", 4)).mean() > 0.5
    assert (a != glyphs.draw("Д", 3)).mean() > 0.5


def test_splits_have_enough_classes_and_share_no_script():
    splits = glyphs.characters()
    assert [len(splits[split]) for split in store.SPLITS] == [140, 30, 50]
    scripts = {split: {script for script, _ in pairs} for split, pairs in splits.items()}
    assert not (scripts["train"] & scripts["val"] or scripts["train"] & scripts["test"])
    assert not scripts["val"] & scripts["test"]
    everything = [c for pairs in splits.values() for _, c in pairs]
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize(
    "twin, of", [("А", "A"), ("О", "O"), ("c", "C"), ("օ", "O"), ("ס", "O")]
)
def test_look_alikes_are_left_out(twin, of):
    everything = [c for pairs in glyphs.characters().values() for _, c in pairs]
    assert of in everything and twin not in everything


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
