# SPDX-License-Identifier: Apache-2.0
"""Answers as a part of an HTML page that needs no other file: the support set, and each query with its bars."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from PIL import Image

from tf_lwdgh.serving.answers import Answer

_THUMBNAIL = 128  # pixels, the longer side
STYLE = """
.photos { display: flex; flex-wrap: wrap; gap: .5rem; }
.photos img { height: 5rem; border-radius: 4px; background: #eee; }
.answers { display: grid; grid-template-columns: repeat(auto-fill, minmax(25rem, 1fr)); gap: 1rem; }
.answer { display: flex; gap: 1rem; border: 1px solid #ddd; border-radius: 8px; padding: .8rem; margin: 0; }
.answer img { width: 8rem; height: 8rem; object-fit: contain; background: #f3f3f3; border-radius: 4px; }
.answer figcaption { flex: 1; min-width: 0; color: inherit; }
.file { font-size: .8rem; color: #555; overflow-wrap: anywhere; }
.bars { display: grid; grid-template-columns: minmax(3rem, 7rem) 1fr 4rem; gap: .15rem .5rem; font-size: .85rem; }
.bars span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bars .percent { text-align: right; font-variant-numeric: tabular-nums; }
.track { background: #eee; border-radius: 3px; height: .7rem; align-self: center; }
.track div { background: #8aa4c8; border-radius: 3px; height: 100%; }
.chosen { font-weight: 600; } .track.chosen div { background: #1f5fb4; }
"""


class Picture(NamedTuple):
    """A photo made small.

    Attributes:
      name: its file's.
      jpeg: what is shown.
    """

    name: str
    jpeg: bytes


def picture(name: str, encoded: bytes) -> Picture:
    """The small form of an encoded image."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(encoded)) as image:
        # A palette can't be averaged, and a JPEG that is converted first is decoded at its full size.
        small = image if image.mode in ("L", "RGB") else image.convert("RGB")
        small.thumbnail((_THUMBNAIL, _THUMBNAIL))
        small.save(buffer, "JPEG", quality=85)
    return Picture(name, buffer.getvalue())


def body(
    about: Sequence[str],
    support: Mapping[str, Sequence[Picture]],
    answers: Sequence[tuple[Picture, Answer]],
    class_names: Sequence[str],
    left_out: Sequence[str],
) -> str:
    """The page below its title.

    Args:
      about: paragraphs on where the answers come from.
      support: the photos of each class; none where they are not at hand.
      answers: each query and what the model says of it.
      class_names: of the probabilities.
      left_out: what could not be read, a line each.
    """
    parts = [f"<p>{html.escape(text)}</p>" for text in about]
    if support:
        parts.append("<h2>Learned from</h2>")
    for name, pictures in support.items():
        shown = "".join(map(_image, pictures))
        parts.append(f"<h3>{html.escape(name)} ({len(pictures)})</h3><div class='photos'>{shown}</div>")
    parts.append(f"<h2>Answers ({len(answers)})</h2><div class='answers'>")
    parts += [_answer(query, answer, class_names) for query, answer in answers]
    parts.append("</div>")
    if left_out:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in left_out)
        parts.append(f"<h2>Left out ({len(left_out)})</h2><ul>{lines}</ul>")
    return "\n".join(parts)


def _image(of: Picture) -> str:
    name = html.escape(of.name)
    data = base64.b64encode(of.jpeg).decode()
    return f"<img alt='{name}' title='{name}' src='data:image/jpeg;base64,{data}'>"


def _answer(query: Picture, answer: Answer, class_names: Sequence[str]) -> str:
    bars = []
    for label, (name, p) in enumerate(zip(class_names, answer.probabilities, strict=True)):
        chosen = " class='chosen'" if label == answer.label else ""
        track = "track chosen" if chosen else "track"
        name = html.escape(name)
        bars.append(
            f"<span{chosen} title='{name}'>{name}</span>"
            f"<div class='{track}'><div style='width:{100 * p:.2f}%'></div></div>"
            f"<span class='percent'>{100 * p:.1f} %</span>"
        )
    return (
        f"<figure class='answer'>{_image(query)}<figcaption><strong>{html.escape(class_names[answer.label])}</strong>"
        f"<div class='file'>{html.escape(query.name)}</div><div class='bars'>{''.join(bars)}</div>"
        "</figcaption></figure>"
    )
