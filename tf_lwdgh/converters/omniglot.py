# SPDX-License-Identifier: Apache-2.0
"""Omniglot (Lake et al., Science 2015): 1,623 characters of 50 alphabets, 20 drawings each.

Reads the official images_background.zip and images_evaluation.zip, or their folders. A class is a
character, named 'Alphabet/characterNN'; its superclass is the alphabet. Drawings are shrunk by
exact area averaging and inverted to white on black.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from tf_lwdgh.converters import archives, pictures
from tf_lwdgh.converters.problems import Problems
from tf_lwdgh.data import store

VERSION = "omniglot-1"
DRAWINGS = 20
PARTS = ("images_background", "images_evaluation")

# Characters in each alphabet.
BACKGROUND = {
    "Alphabet_of_the_Magi": 20, "Anglo-Saxon_Futhorc": 29, "Arcadian": 26, "Armenian": 41,
    "Asomtavruli_(Georgian)": 40, "Balinese": 24, "Bengali": 46,
    "Blackfoot_(Canadian_Aboriginal_Syllabics)": 14, "Braille": 26, "Burmese_(Myanmar)": 34,
    "Cyrillic": 33, "Early_Aramaic": 22, "Futurama": 26, "Grantha": 43, "Greek": 24,
    "Gujarati": 48, "Hebrew": 22, "Inuktitut_(Canadian_Aboriginal_Syllabics)": 16,
    "Japanese_(hiragana)": 52, "Japanese_(katakana)": 47, "Korean": 40, "Latin": 26,
    "Malay_(Jawi_-_Arabic)": 40, "Mkhedruli_(Georgian)": 41, "N_Ko": 33,
    "Ojibwe_(Canadian_Aboriginal_Syllabics)": 14, "Sanskrit": 42, "Syriac_(Estrangelo)": 23,
    "Tagalog": 17, "Tifinagh": 55,
}  # fmt: skip
EVALUATION = {
    "Angelic": 20, "Atemayar_Qelisayer": 26, "Atlantean": 26, "Aurek-Besh": 26, "Avesta": 26,
    "Ge_ez": 26, "Glagolitic": 45, "Gurmukhi": 45, "Kannada": 41, "Keble": 26, "Malayalam": 47,
    "Manipuri": 40, "Mongolian": 30, "Old_Church_Slavonic_(Cyrillic)": 45, "Oriya": 46,
    "Sylheti": 28, "Syriac_(Serto)": 23, "Tengwar": 25, "Tibetan": 42, "ULOG": 26,
}  # fmt: skip

_VINYALS_VAL = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
# In order of name the first 1,200 characters but those of val are for training: Gurmukhi is cut in
# two.
_VINYALS_CUT, _VINYALS_CUT_TRAINS = "Gurmukhi", 41
_LAKE_VAL = tuple(BACKGROUND)[-5:]
_META_DATASET_VAL = tuple(sorted(BACKGROUND, key=BACKGROUND.get))[:5]  # those of fewest characters


def _vinyals(alphabet: str, number: int) -> str:
    """1,028 / 172 / 423 characters."""
    if alphabet in _VINYALS_VAL:
        return "val"
    if alphabet in BACKGROUND or alphabet < _VINYALS_CUT:
        return "train"
    return "train" if alphabet == _VINYALS_CUT and number <= _VINYALS_CUT_TRAINS else "test"


def _lake(alphabet: str, number: int) -> str:
    """Background alphabets train, the last 5 by name validate; the evaluation's 20 test."""
    del number
    if alphabet in EVALUATION:
        return "test"
    return "val" if alphabet in _LAKE_VAL else "train"


def _meta_dataset(alphabet: str, number: int) -> str:
    """As Lake's, but the 5 background alphabets with the fewest characters validate."""
    del number
    if alphabet in EVALUATION:
        return "test"
    return "val" if alphabet in _META_DATASET_VAL else "train"


SPLITS = {"vinyals": _vinyals, "lake": _lake, "meta_dataset": _meta_dataset}


def characters(split: str) -> Mapping[str, list[tuple[str, int]]]:
    """The (alphabet, 1-based number) of the characters in 'train', 'val' and 'test'.

    Raises:
      ValueError: the split is none of `SPLITS`.
    """
    if split not in SPLITS:
        raise ValueError(f"--split must be one of {', '.join(SPLITS)}. Received: {split!r}.")
    out: dict[str, list[tuple[str, int]]] = {s: [] for s in store.SPLITS}
    for alphabet, count in (BACKGROUND | EVALUATION).items():
        for number in range(1, count + 1):
            out[SPLITS[split](alphabet, number)].append((alphabet, number))
    return out


def convert(
    source: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    split: str,
    image_size: int = 28,
    name: str = "omniglot",
    overwrite: bool = False,
    skip_bad: bool = False,
) -> tuple[store.DatasetSpec, Problems]:
    """Writes Omniglot's records: PNG, grey, white on black.

    Args:
      source: the folder that holds images_background and images_evaluation, as .zip or as folders.
      out_dir: of the records.
      split: 'vinyals' (1,028 / 172 / 423 characters), 'lake' (813 / 151 / 659: the background
        alphabets, their last 5 by name for validation, and the evaluation alphabets) or
        'meta_dataset' (883 / 81 / 659: the background alphabets' 5 smallest for validation).
      image_size: height and width, at most 105.
      name: of the data set.
      overwrite: replace what `out_dir` holds.
      skip_bad: leave out what is corrupt, short or missing.

    Raises:
      FileNotFoundError: one of the two parts is not in `source`.
      ValueError: a setting is wrong; or a drawing is corrupt, a character short or missing.
    """
    wanted, problems = characters(split), Problems(skip_bad=skip_bad)
    if not 1 <= image_size <= 105:
        raise ValueError(f"--image_size must be from 1 to 105. Received: {image_size}.")
    parts = [_find_part(pathlib.Path(source), part) for part in PARTS]
    with contextlib.ExitStack() as stack:
        roots = [stack.enter_context(archives.as_folder(p, beside=out_dir)) for p in parts]
        folders = {a: _home(roots[a in EVALUATION], a) / a for a in BACKGROUND | EVALUATION}
        classes = {s: _classes(wanted[s], folders, image_size, problems) for s in store.SPLITS}
        spec = store.write_dataset(
            out_dir,
            name,
            classes,
            image_size=image_size,
            source_checksum=archives.checksum(*parts),
            converter_version=VERSION,
            split_name=split,
            superclasses={c: c.split("/")[0] for s in store.SPLITS for c, _ in classes[s]},
            overwrite=overwrite,
        )
    return spec, problems


def _find_part(source: pathlib.Path, part: str) -> pathlib.Path:
    for path in (source / part, source / f"{part}.zip"):
        if path.exists():
            return path
    raise FileNotFoundError(
        f"--source must be a folder that holds {part}.zip or the folder {part}. Received: {source}."
    )


def _home(root: pathlib.Path, alphabet: str) -> pathlib.Path:
    """The folder of alphabets: the root, or the one of the part's name in it."""
    nested = [root / part for part in PARTS if (root / part / alphabet).is_dir()]
    return nested[0] if nested else root


def _classes(
    wanted: list[tuple[str, int]],
    folders: Mapping[str, pathlib.Path],
    image_size: int,
    problems: Problems,
) -> list[tuple[str, Iterator[np.ndarray]]]:
    out = []
    for alphabet, number in wanted:
        folder = folders[alphabet] / f"character{number:02d}"
        paths = pictures.image_files(folder)
        if len(paths) != DRAWINGS:
            problems.add(folder, f"a character has {DRAWINGS} drawings, found {len(paths)}")
        if paths:
            class_name = f"{alphabet}/character{number:02d}"
            out.append((class_name, _drawings(paths, image_size, problems)))
    return out


def _drawings(paths: list[pathlib.Path], image_size: int, problems: Problems) -> Iterator[np.ndarray]:
    for path in paths:
        drawing = pictures.read_grey(path, problems)
        if drawing is not None:
            yield 255 - pictures.resize(drawing, image_size)
