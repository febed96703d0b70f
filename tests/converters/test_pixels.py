# SPDX-License-Identifier: Apache-2.0
"""Every kind of image file becomes what it shows, byte for byte where training sees that, or is refused."""

import io
import struct
import sys
import types
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFile, ImageOps

from tests.converters import raw
from tf_lwdgh.converters import pictures, pixels, problems


def _encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _read(content: bytes, size: int | None = None):
    return pictures.read_image("x", lambda: content, problems.Problems(), image_size=size)


def _seen_in_training(stored) -> np.ndarray:
    """[H, W, 3]: of bytes, what the input pipeline decodes; of pixels, what their PNG does."""
    encoded = stored if isinstance(stored, bytes) else tf.io.encode_png(
        stored if stored.ndim == 3 else stored[..., None]
    ).numpy()  # fmt: skip
    return tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy()


def _deep(channels: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, (size, size, channels)).astype(np.uint16)


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_scaled_to_8_and_rounded(channels):
    deep = _deep(channels)
    content = tf.io.encode_png(deep).numpy()
    expected = np.rint(deep.astype(np.float64) / 65535 * 255)
    got = _read(content)
    np.testing.assert_array_equal(got.reshape(expected.shape), expected)
    small = _read(content, 4).astype(np.float64)
    assert abs(small.mean() - expected.mean()) < 0.6  # it was 254
    means = expected.reshape(4, 2, 4, 2, channels).mean(axis=(1, 3)).squeeze()
    assert np.abs(small - means).max() <= 0.501


def test_16_bits_of_a_tiff_are_scaled_and_32_are_refused():
    deep = _deep(1)[..., 0]
    got = _read(_encoded(Image.fromarray(deep), "TIFF"))
    np.testing.assert_array_equal(got, np.rint(deep / 257.0))
    with pytest.raises(ValueError, match="32 bits a pixel, and no scale that says what is white"):
        _read(_encoded(Image.fromarray(deep.astype(np.float32)), "TIFF"))


def test_16_bits_with_transparency_stand_on_white():
    deep = _deep(4)
    alpha, paper = deep[..., 3:] / 65535, 255.0
    expected = deep[..., :3] / 257.0 * alpha + paper * (1 - alpha)
    assert np.abs(_read(tf.io.encode_png(deep).numpy()) - expected).max() < 2


def test_what_is_transparent_stands_on_white_and_opaque_alpha_changes_nothing():
    rgba = raw.pixels(0, 8, 4)
    alpha = rgba[..., 3:] / 255.0
    got = _read(_encoded(Image.fromarray(rgba), "PNG"))
    assert np.abs(got - (rgba[..., :3] * alpha + 255 * (1 - alpha))).max() < 1.01
    rgba[..., 3] = 255
    content = _encoded(Image.fromarray(rgba), "PNG")
    assert _read(content) == content
    np.testing.assert_array_equal(_seen_in_training(content), rgba[..., :3])
    grey = Image.fromarray(rgba[..., 2:], "LA")
    assert _read(_encoded(grey, "PNG")) == _encoded(grey, "PNG") and _read(_encoded(grey, "PNG"), 4).ndim == 2


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("kind", ["1", "L", "P", "RGB", "interlaced"])
def test_plain_png_files_are_kept_and_seen_as_they_are(kind, kept):
    image = Image.fromarray(raw.pixels(1, 8))
    if kind == "interlaced":
        content, expected = _interlaced(raw.pixels(1, 8)), raw.pixels(1, 8)
    else:
        image = image.quantize(16) if kind == "P" else image.convert(kind)
        content, expected = _encoded(image, "PNG"), np.asarray(image.convert("RGB"))
    stored = _read(content, 8 if kept else 4)
    assert isinstance(stored, bytes) == kept
    if kept:
        np.testing.assert_array_equal(_seen_in_training(stored), expected)
    else:
        means = expected.reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
        assert np.abs(_seen_in_training(stored) - means).max() <= 0.501


def _interlaced(pixels: np.ndarray) -> bytes:
    """Adam7's seven passes, written out."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    lines = b"".join(
        b"\0" + line.tobytes() for y, x, dy, dx in passes for line in pixels[y::dy, x::dx]
    )  # fmt: skip
    height, width = pixels.shape[:2]
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)),
        (b"IDAT", zlib.compress(lines)), (b"IEND", b""),
    )  # fmt: skip
    whole = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_camera_s_orientation_is_carried_out(orientation, form):
    exif = Image.Exif()
    exif[274] = orientation
    content = _encoded(Image.fromarray(raw.pixels(2, 16)), form, exif=exif)
    stored = _read(content)
    assert isinstance(stored, bytes) == (orientation == 1)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    if form == "PNG":
        np.testing.assert_array_equal(_seen_in_training(stored), upright)
    else:  # two decoders of JPEG, which differ by little
        assert np.abs(_seen_in_training(stored).astype(int) - upright).mean() < 3


def test_cmyk_becomes_rgb():
    cmyk = Image.fromarray(np.full((8, 8, 4), (0, 200, 200, 20), np.uint8), "CMYK")
    red, green, blue = _read(_encoded(cmyk, "JPEG", quality=100)).mean(axis=(0, 1))
    assert red > 200 and green < 90 and blue < 90


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_picture_is_read_and_pages_are_refused(form):
    frames = [Image.fromarray(raw.pixels(i, 8)) for i in range(3)]
    if form == "GIF":
        frames = [frame.quantize(16) for frame in frames]
    options = {"lossless": True} if form == "WEBP" else {}
    several = _encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(several)).n_frames == 3
    expected = np.asarray(frames[0].convert("RGB"))
    np.testing.assert_array_equal(_seen_in_training(_read(_encoded(frames[0], form, **options))), expected)
    if form == "TIFF":
        with pytest.raises(ValueError, match="it holds 3 pictures, where one is wanted"):
            _read(several)
    else:
        np.testing.assert_array_equal(_seen_in_training(_read(several)), expected)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.fixture
def formats_anew():
    pixels.formats.cache_clear()
    yield
    pixels.formats.cache_clear()


def test_heic_without_its_plugin_is_no_damage_and_says_what_is_needed(monkeypatch, formats_anew):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # an import of it fails
    with pytest.raises(ValueError, match=r"x: the image cannot be read \(it is HEIC.*pip install pillow-heif"):
        _read(HEIC)


def test_heic_is_read_where_its_plugin_is(monkeypatch, formats_anew):
    """A stand-in for the plugin: it registers a format, as the real one does."""

    class Heif(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._size, self._mode, self.tile = (2, 2), "RGB", []

        def load(self):
            return Image.Image.load(Image.new("RGB", self.size, "red"))

        def convert(self, mode, *_):
            return Image.new(mode, self.size, "red")

    def register() -> None:
        Image.register_open("HEIF", Heif, lambda prefix: prefix[4:12] == b"ftypheic")

    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    try:
        np.testing.assert_array_equal(_read(HEIC), np.full((2, 2, 3), (255, 0, 0)))
    finally:
        Image.OPEN.pop("HEIF", None)
        Image.ID[:] = [name for name in Image.ID if name != "HEIF"]


@pytest.mark.skipif("AVIF" not in pixels.formats(), reason="this Pillow has no AVIF")
def test_avif_is_read():
    got = _read(_encoded(Image.new("RGB", (16, 16), (200, 30, 60)), "AVIF"))
    assert np.abs(got.astype(int) - (200, 30, 60)).max() < 8


DAMAGED = {
    "png without its end": (lambda c: c[:-12], "the PNG file is cut short"),
    "png cut in its end": (lambda c: c[:-1], "the PNG file is cut short"),
    "png with wrong pixels": (lambda c: _changed(c, c.index(b"IDAT") + 9), "checksum of .* IDAT is wrong"),
    "png with a wrong checksum": (lambda c: _changed(c, len(c) - 13), "checksum of .* IDAT is wrong"),
    "png with a wrong header": (lambda c: _changed(c, 19), "checksum of .* IHDR is wrong"),
    "png of no kind": (lambda c: c[:12] + b"\xff\xff" + c[14:], "it is none of PNG, JPEG"),
    "nothing": (lambda c: b"", "it is none of PNG, JPEG"),
    "text": (lambda c: b"GIF? no", "it is none of PNG, JPEG"),
}


def _changed(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("size", [None, 4])
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_png_files_are_refused_whether_kept_or_resized(name, size):
    change, message = DAMAGED[name]
    content = change(_encoded(Image.fromarray(raw.pixels(3, 8)), "PNG"))
    with pytest.raises(ValueError, match=f"x: the image is corrupt .*{message}"):
        _read(content, size)


@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize("cut", [2, 10, 300])
def test_truncated_jpeg_files_are_refused(cut, size):
    content = _encoded(Image.fromarray(raw.pixels(4, 16)), "JPEG")
    with pytest.raises(ValueError, match="x: the image is corrupt"):
        _read(content[:-cut], size)


def test_an_unreadable_disk_is_no_corrupt_image():
    def read() -> bytes:
        raise OSError(5, "Input/output error", "x.png")

    with pytest.raises(OSError, match="Input/output error"):
        pictures.read_image("x", read, problems.Problems(skip_bad=True))
