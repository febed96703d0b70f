# SPDX-License-Identifier: Apache-2.0
"""The built-in data set: characters drawn in many ways from the fonts that come with matplotlib.

A class is a character. Train, val and test take theirs from different scripts, and a character that
looks like an earlier one (the Cyrillic А beside the Latin A) is left out, so the test is truly new.
Every image is a function of (character, number) alone, given the versions of Pillow and matplotlib.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tf_lwdgh.data import store

NAME = "glyphs"
VERSION = "glyphs-3"
IMAGE_SIZE = 84
IMAGES_PER_CLASS = 24

# Chosen so that no two of them look alike in any of the fonts (tests/converters/test_glyphs.py measures it).
CHARACTERS = {
    "train": {
        "Latin": "ABCEHIJKLMOPQSTUVWXYZabdfgkmnprtyÞßƎƓƕƛƜƝƞơƢƣƤƥƦƧƩƪƫƯƳƷƸƻƾ",
        "Cyrillic": "ДЖЙЛФЦЧЩЪЫЭЮЯфѠѣѤѦѨѪѬѮѰѴѶѸѹѺѼѾҀҁ",
        "Syllabics": "ᐂᐃᐅᐆᐊᐋᐌᐍᐏᐐᐑᐒᐓᐔᐕᐗᐘᐙᐚᐝᐟᐠᐡᐢᐣᐤᐥᐨᐩᐫᐮᐲᐳᐴᐸᐹᑁᑂᑃᑄ",
    },
    "val": {"Armenian": "ԳԶԷԸԹԻԽԾԿՀՂՃՆՇՉՊՌՎՐՔՖէթխկձճմչպ"},
    "test": {
        "Georgian": "დვზოპჟრტფქშჭჯჱჴჶჹჺ",
        # Alef, bet, gimel, dalet, zayin, yod, final kaf, lamed, final mem, ayin, pe, final tsadi,
        # tsadi; by number, since editors show them from right to left.
        "Hebrew": "\u05d0\u05d1\u05d2\u05d3\u05d6\u05d9\u05da\u05dc\u05dd\u05e2\u05e4\u05e5\u05e6",
        "Tifinagh": "ⴰⴱⴳⴻⴼⴽⴾⴿⵁⵂⵃⵄⵆⵈⵋⵌⵍⵐⵒⵓ",
    },
}
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSansMono",
    "DejaVuSansMono-Bold",
)  # fmt: skip

# How hard it is: the ink is lighter than the ground in every image, else a learner of one example
# a class would be at chance for a long time.
ROTATION = 18.0  # degrees either way
SHEAR = 0.2
SCALE = (0.55, 0.85)  # of the image's height
SHIFT = 7.0  # pixels either way
GROUND = (15.0, 110.0)  # grey level of the background, of 255
CONTRAST = (60.0, 130.0)  # how much lighter the ink is
TINT = 45.0  # how far each channel of a colour may lie from its grey level
NOISE = (4.0, 18.0)  # standard deviation of the pixel noise, of 255
STROKES = 3  # at most, of clutter behind the character

_DRAWN = 120  # pixels of the font before it is transformed


def rng(*parts: object) -> np.random.Generator:
    """A generator that depends on every part."""
    digest = hashlib.sha256(repr((VERSION, *parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def font_path(name: str) -> str:
    """The file of one of matplotlib's fonts."""
    return os.path.join(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")


@functools.cache
def _covered(font: str) -> frozenset[int]:
    return frozenset(FT2Font(font_path(font)).get_charmap())


@functools.cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_path(name), _DRAWN, layout_engine=ImageFont.Layout.BASIC)


def fonts_of(character: str) -> list[str]:
    """The fonts that have a character."""
    return [name for name in FONTS if ord(character) in _covered(name)]


def ink(character: str, font: str) -> Image.Image:
    """A character's plain drawing, cropped to its ink: grey, 255 where there is ink."""
    canvas = Image.new("L", (3 * _DRAWN, 3 * _DRAWN))
    ImageDraw.Draw(canvas).text((_DRAWN, _DRAWN // 2), character, 255, font=_font(font))
    box = canvas.getbbox()
    return canvas.crop(box) if box else canvas.crop((0, 0, 1, 1))


def characters() -> dict[str, tuple[tuple[str, str], ...]]:
    """The (script, character) pairs of each split."""
    return {
        split: tuple((script, c) for script, listed in scripts.items() for c in listed)
        for split, scripts in CHARACTERS.items()
    }


def class_name(script: str, character: str) -> str:
    """Such as 'Georgian/U+10D0'."""
    return f"{script}/U+{ord(character):04X}"


def draw(character: str, number: int) -> np.ndarray:
    """Image `number` of a character: [84, 84, 3] uint8."""
    r = rng(character, number)
    names = fonts_of(character)
    mask = _mask(ink(character, names[r.integers(len(names))]), r)
    level = r.uniform(*GROUND)
    ground = _ground(level, r)
    colour = _tinted(level + r.uniform(*CONTRAST), r)
    opacity = mask[..., None] * r.uniform(0.75, 1.0)
    picture = ground * (1 - opacity) + _gradient(colour, 30.0, r) * opacity
    picture += r.normal(0.0, r.uniform(*NOISE), picture.shape[:2])[..., None]
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _mask(plain: Image.Image, r: np.random.Generator) -> np.ndarray:
    """The character turned, sheared, scaled and shifted: [84, 84] in [0, 1]."""
    angle = np.deg2rad(r.uniform(-ROTATION, ROTATION))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shear = np.array([[1.0, r.uniform(-SHEAR, SHEAR)], [0.0, 1.0]])
    stretch = np.diag(r.uniform(0.85, 1.15, 2))
    zoom = max(plain.size) / (IMAGE_SIZE * r.uniform(*SCALE))
    back = zoom * turn @ shear @ stretch  # from the image's pixels to the drawing's
    centre = np.array(plain.size) / 2 - back @ (IMAGE_SIZE / 2 + r.uniform(-SHIFT, SHIFT, 2))
    matrix = (back[0, 0], back[0, 1], centre[0], back[1, 0], back[1, 1], centre[1])
    soft = plain.filter(ImageFilter.GaussianBlur(0.35 * zoom))
    out = soft.transform((IMAGE_SIZE, IMAGE_SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(out, np.float64) / 255


def _gradient(colour: np.ndarray, spread: float, r: np.random.Generator) -> np.ndarray:
    """A colour that changes linearly over the image: [84, 84, 3]."""
    y, x = np.mgrid[-1 : 1 : IMAGE_SIZE * 1j, -1 : 1 : IMAGE_SIZE * 1j]
    angle = r.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * x + np.sin(angle) * y
    return colour + ramp[..., None] * r.uniform(-spread, spread, 3)


def _ground(level: float, r: np.random.Generator) -> np.ndarray:
    """A background: a gradient, soft blotches and a few strokes; [84, 84, 3]."""
    ground = _gradient(_tinted(level, r), 50.0, r)
    coarse = Image.fromarray(r.integers(0, 256, (7, 7), dtype=np.uint8))
    blotches = coarse.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    texture = np.asarray(blotches, np.float64)[..., None] / 255 - 0.5
    ground = ground + texture * r.uniform(-60, 60, 3)
    strokes = Image.new("L", (IMAGE_SIZE, IMAGE_SIZE))
    pen = ImageDraw.Draw(strokes)
    for _ in range(r.integers(0, STROKES + 1)):
        ends = r.uniform(-10, IMAGE_SIZE + 10, 4).tolist()
        pen.line(ends, fill=255, width=int(r.integers(1, 5)))
    cover = np.asarray(strokes, np.float64)[..., None] / 255 * r.uniform(0.2, 0.7)
    return ground * (1 - cover) + r.uniform(0, 255, 3) * cover


def _tinted(level: float, r: np.random.Generator) -> np.ndarray:
    """A colour that is `level` bright on average."""
    tint = r.uniform(-TINT, TINT, 3)
    return level + tint - tint.mean()


def images(character: str) -> Iterator[np.ndarray]:
    """All images of a class."""
    return (draw(character, number) for number in range(IMAGES_PER_CLASS))


def make(data_dir: str | os.PathLike, *, overwrite: bool = False) -> store.DatasetSpec:
    """Writes <data_dir>/glyphs, or does nothing where this version of it is there.

    Args:
      data_dir: the folder of data sets.
      overwrite: make it anew.

    Raises:
      FileExistsError: the folder holds something else, or another version.
    """
    folder = pathlib.Path(data_dir, NAME)
    if not overwrite and (folder / store.SPEC_FILE).exists():
        spec = store.DatasetSpec.load(folder)
        if spec.converter_version == VERSION:
            return spec
        raise FileExistsError(
            f"{folder} holds version {spec.converter_version!r}, this package makes {VERSION!r}: "
            "say --overwrite to make it anew."
        )
    pairs = [pair for split in store.SPLITS for pair in characters()[split]]
    return store.write_dataset(
        folder,
        NAME,
        {split: [(class_name(*pair), images(pair[1])) for pair in characters()[split]] for split in store.SPLITS},
        image_size=IMAGE_SIZE,
        converter_version=VERSION,
        superclasses={class_name(*pair): pair[0] for pair in pairs},
        overwrite=overwrite,
    )
