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
    assert {split: len(pairs) for split, pairs in splits.items()} == {"train": 140, "val": 30, "test": 50}
    scripts = {split: {script for script, _ in pairs} for split, pairs in splits.items()}
    assert not (scripts["train"] & scripts["val"] or scripts["train"] & scripts["test"])
    assert not scripts["val"] & scripts["test"]
    everything = [c for pairs in splits.values() for _, c in pairs]
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("twin, of", [("А", "A"), ("О", "O"), ("c", "C"), ("օ", "O"), ("ס", "O")])
def test_look_alikes_are_left_out(twin, of):
    everything = [c for pairs in glyphs.characters().values() for _, c in pairs]
    assert of in everything and twin not in everything


def test_every_class_can_be_drawn_by_a_font():
    for pairs in glyphs.characters().values():
        for _, character in pairs:
            plain = np.asarray(glyphs.ink(character, glyphs.fonts_of(character)[0]))
            assert min(plain.shape) > 5 and plain.max() == 255, character


def test_ink_can_be_told_from_ground():
    """The character's own pixels differ from an image drawn without it."""
    for number in range(5):
        r = glyphs.rng("M", number)
        ground = glyphs._ground(r)
        assert np.linalg.norm(glyphs._ink_colour(ground.mean((0, 1)), r) - ground.mean((0, 1))) >= 70


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
