# SPDX-License-Identifier: Apache-2.0
"""From an image file's bytes to what it shows: 8-bit pixels, grey or RGB; or its bytes, where they do.

16 bits are divided by 257 and rounded, what is transparent stands on white, CMYK becomes RGB, a camera's
orientation (EXIF) is carried out, and of an animation its first picture is taken. What has no such form is
refused: several pages in one TIFF, numbers of 32 bits, and files that are damaged in any part that matters.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from PIL import ExifTags, Image, UnidentifiedImageError, features

from tf_lwdgh.converters import limits

Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two are outside

DAMAGE = (  # all that Pillow and TensorFlow raise on damaged files
    OSError, SyntaxError, ValueError, EOFError, struct.error, OverflowError, TypeError, KeyError,
    IndexError, Image.DecompressionBombError, tf.errors.InvalidArgumentError,
)  # fmt: skip
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
_PAGES = ("TIFF",)  # may hold several pictures of equal rank; an animation begins with its still
_HEIF_PLUGIN = "pillow_heif"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif")
_KEPT = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA"), "JPEG": ("L", "RGB"), "MPO": ("L", "RGB")}
_GREY = ("1", "L", "LA", "La")
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH = 24  # where a PNG file has the bits of a channel
_UPRIGHT = 1
NEEDED_FOR_HEIC = "the package pillow-heif is installed (pip install pillow-heif)"
_TURN = {  # by the number of EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


class NoReader(ValueError):
    """An image of a known kind that nothing here can read."""


@contextlib.contextmanager
def opened(content: bytes) -> Iterator[Image.Image]:
    """An image file of one picture, not too large; its header is read, a PNG's checksums are verified.

    Raises:
      DAMAGE: it is none; the text says what is wrong.
    """
    if content.startswith(_PNG):
        _check_png(content)
    known = formats()
    try:
        image = Image.open(io.BytesIO(content), formats=known)
    except UnidentifiedImageError as error:
        if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS and "HEIF" not in known:
            raise NoReader(f"it is HEIC, which is read where {NEEDED_FOR_HEIC}") from error
        raise ValueError(f"it is none of {', '.join(known)}") from error
    with image:
        limits.check_pixels(*image.size)
        if image.format in _PAGES and getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"it holds {image.n_frames} pictures, where one is wanted")
        yield image


@functools.cache
def formats() -> tuple[str, ...]:
    """The formats that are read here: HEIF, as phones write it, only with the plugin of Pillow for it."""
    found = _FORMATS + (("AVIF",) if features.check("avif") else ())
    try:
        importlib.import_module(_HEIF_PLUGIN).register_heif_opener()
    except ImportError:
        return found
    return (*found, "HEIF")


def can_be_kept(image: Image.Image, content: bytes) -> bool:
    """Whether training decodes the file's bytes to what it shows.

    Raises:
      DAMAGE: the pixels cannot be decoded.
    """
    right = image.mode in _KEPT.get(image.format, ()) and not _is_deep(image, content)
    if not right or _orientation(image, content) != _UPRIGHT or _is_transparent(image):
        return False
    tf.io.decode_image(content, channels=3, expand_animations=False)  # stricter than Pillow
    return True


def shown(image: Image.Image, content: bytes, box: Box | None = None) -> np.ndarray:
    """The pixels that an opened file shows: uint8 [H, W] or [H, W, 3].

    Args:
      image: from `opened`.
      content: the file's bytes.
      box: what is kept of the image, as far as it lies within; in the file's own rows and columns.

    Raises:
      DAMAGE: the pixels cannot be decoded, or have no 8-bit form.
    """
    image.load()
    turn = _TURN.get(_orientation(image, content))
    plain = _eight_bits(image, content)
    if _is_transparent(plain):
        paper = Image.new("RGBA", plain.size, "white")
        grey = plain.mode in _GREY
        plain = Image.alpha_composite(paper, plain.convert("RGBA")).convert("L" if grey else "RGB")
    plain = plain.convert("L" if plain.mode in _GREY else "RGB")
    if box is not None:
        plain = plain.crop(_inside(plain.size, box))
    return np.asarray(plain if turn is None else plain.transpose(turn))


def _check_png(content: bytes) -> None:
    """Every chunk up to the end is there, and those that matter have the checksum that they say."""
    at, view = len(_PNG), memoryview(content)
    while True:
        length, kind = struct.unpack_from(">I4s", content, at) if at + 8 <= len(content) else (0, b"")
        end = at + 12 + length
        if end > len(content):
            raise ValueError("the PNG file is cut short")
        critical = not kind[0] & 32  # its first letter is a capital
        if critical and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ValueError(f"the checksum of the PNG file's {kind.decode('latin1')} is wrong")
        if kind == b"IEND":
            return
        at = end


def _is_deep(image: Image.Image, content: bytes) -> bool:
    """Whether a PNG file has 16 bits a channel; Pillow's mode does not always say so."""
    return image.format == "PNG" and content[_PNG_DEPTH] == 16


def _eight_bits(image: Image.Image, content: bytes) -> Image.Image:
    if _is_deep(image, content):
        deep = tf.io.decode_png(content, dtype=tf.uint16).numpy()
        return Image.fromarray(_scaled(deep[..., 0] if deep.shape[-1] == 1 else deep))
    if image.mode.startswith("I;16"):
        return Image.fromarray(_scaled(np.asarray(image)))
    if image.mode in ("I", "F"):
        raise ValueError("it has 32 bits a pixel, and no scale that says what is white")
    return image


def _scaled(deep: np.ndarray) -> np.ndarray:
    """0..65535 to the nearest of 0..255."""
    return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _is_transparent(image: Image.Image) -> bool:
    """Whether anything would show through."""
    if not image.has_transparency_data:
        return False
    return image.convert("RGBA").getchannel("A").getextrema()[0] < 255


def _orientation(image: Image.Image, content: bytes) -> int:
    """EXIF's; upright where it is damaged, as in some of ImageNet's photographs."""
    if image.format == "PNG" and b"eXIf" not in content:  # Pillow would decode it to look for one
        return _UPRIGHT
    try:
        return image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT)
    except (SyntaxError, ValueError, struct.error, TypeError, KeyError, OverflowError):
        return _UPRIGHT


def _inside(size: tuple[int, int], box: Box) -> Box:
    """The box as far as it lies within an image of (width, height)."""
    left, top, right, bottom = max(0, box[0]), max(0, box[1]), min(box[2], size[0]), min(box[3], size[1])
    if left >= right or top >= bottom:
        raise ValueError(f"its box {box} lies outside of its {size[0]}×{size[1]} pixels")
    return left, top, right, bottom
