# SPDX-License-Identifier: Apache-2.0
"""Encoded images, looked at before TensorFlow decodes them: their format, and what they decode to.

A header tells how many pixels an image has; nothing is decoded here. Orientation in EXIF is not
looked at: the exported graph decodes pixels as they are stored.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterable

from PIL import Image, UnidentifiedImageError

from tf_lwdgh.server.limits import Limits
from tf_lwdgh.server.refusals import Refused

FORMATS = ("JPEG", "PNG", "BMP", "GIF")
_GIF = (b"GIF87a", b"GIF89a")
_EXTENSION, _FRAME, _TRAILER = 0x21, 0x2C, 0x3B

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # max_pixels is in force


def check(images: Iterable[tuple[str, bytes]], limits: Limits) -> None:
    """Makes sure that images may be decoded.

    Args:
      images: what each is called in messages, and its bytes.
      limits: max_images, max_pixels and max_request_pixels count here.

    Raises:
      Refused: too many images or pixels (413), or bytes that are no image (400).
    """
    total = 0
    for number, (name, content) in enumerate(images, 1):
        if number > limits.max_images:
            raise Refused(413, f"a request must have at most {limits.max_images} images.")
        found = _pixels(name, content, limits)
        if found > limits.max_pixels:
            raise Refused(413, f"{name} must have at most {limits.max_pixels:,} pixels. Received: {found:,}.")
        total += found
        if total > limits.max_request_pixels:
            most = f"{limits.max_request_pixels:,}"
            raise Refused(413, f"the images of a request must have at most {most} pixels together.")


def _pixels(name: str, content: bytes, limits: Limits) -> int:
    """Pixels that an image decodes to, over all its frames."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
        frames = _frames(content) if content.startswith(_GIF) else 0
    except UnidentifiedImageError:
        raise Refused(400, f"{name} must be one of {', '.join(FORMATS)}, and whole.") from None
    except Image.DecompressionBombError as error:
        most = f"{limits.max_pixels:,}"
        raise Refused(413, f"{name} must have at most {most} pixels. Received: {error}") from error
    except Exception as error:  # of a damaged header Pillow's readers raise all sorts
        raise Refused(400, f"{name} is damaged: {error}.") from error
    return max(width * height, frames)


def _frames(gif: bytes) -> int:
    """Pixels of all frames of a GIF, by their own sizes: TensorFlow's decoder unpacks every one."""
    total, at = 0, 13 + _table(gif[10])
    while at < len(gif) and gif[at] != _TRAILER:
        if gif[at] == _EXTENSION:
            at = _past_blocks(gif, at + 2)
        elif gif[at] == _FRAME:
            width, height, packed = struct.unpack_from("<HHB", gif, at + 5)
            total += width * height
            at = _past_blocks(gif, at + 10 + _table(packed) + 1)
        else:
            break  # nothing that a decoder goes on with
    return total


def _table(packed: int) -> int:
    """Bytes of a colour table, which a byte of flags announces."""
    return 3 * 2 ** ((packed & 7) + 1) if packed & 0x80 else 0


def _past_blocks(gif: bytes, at: int) -> int:
    """Where a row of sub-blocks ends, each of a length that its first byte says; 0 ends it."""
    while at < len(gif) and gif[at]:
        at += gif[at] + 1
    return at + 1
