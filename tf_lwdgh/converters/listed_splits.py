# SPDX-License-Identifier: Apache-2.0
"""Ravi's lists (filename,label) with the images they name, or with ILSVRC's training folders."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping

from tf_lwdgh.converters import folders, pictures, texts
from tf_lwdgh.converters.problems import Problems
from tf_lwdgh.data import store

_FILE = re.compile(r"(n\d{8})\d*?(\d{5})\.\w+")  # synset and 1-based place among its sorted files
Paths = dict[str, dict[str, list[pathlib.Path]]]


def has_lists(folder: pathlib.Path) -> bool:
    """Whether a folder holds one of the three lists."""
    return any((folder / f"{split}.csv").is_file() for split in store.SPLITS)


def read_lists(folder: pathlib.Path) -> dict[str, dict[str, list[str]]]:
    """The file names of each class of each split.

    Raises:
      FileNotFoundError: a list is missing.
      ValueError: a list has other columns, or names a file twice.
    """
    out: dict[str, dict[str, list[str]]] = {}
    for split in store.SPLITS:
        path = folder / f"{split}.csv"
        if not path.is_file():
            raise FileNotFoundError(f"The list {path} is missing (columns filename,label).")
        rows = texts.read_table(path)
        if not rows or not {"filename", "label"} <= set(rows[0]):
            got = ", ".join(rows[0]) if rows else "nothing"
            raise ValueError(f"{path} must have the columns filename and label. Received: {got}.")
        names = [row["filename"] for row in rows]
        if len(set(names)) != len(names):
            raise ValueError(f"{path} names {len(names) - len(set(names))} files more than once.")
        by_class: dict[str, list[str]] = {}
        for row in rows:
            by_class.setdefault(row["label"], []).append(row["filename"])
        out[split] = dict(sorted(by_class.items()))
    return out


def from_images(images: pathlib.Path, lists: Mapping[str, Mapping], problems: Problems) -> Paths:
    """The files of `images` that the lists name; a missing one is a problem."""
    out: Paths = {}
    for split, by_class in lists.items():
        out[split] = {c: [_plain(images, n) for n in names] for c, names in by_class.items()}
        for class_name, paths in out[split].items():
            for path in (p for p in paths if not p.is_file()):
                problems.add(path, f"the file that {split}.csv names is missing")
            out[split][class_name] = [p for p in paths if p.is_file()]
    return out


def _plain(images: pathlib.Path, name: str) -> pathlib.Path:
    if pathlib.PurePath(name).name != name:
        raise ValueError(f"a list must name plain files of {images}. Received: {name!r}.")
    return images / name


def ilsvrc_home(root: pathlib.Path, *, archived: bool = False) -> pathlib.Path | None:
    """The folder of the synsets' folders: the root or, as in ILSVRC, its folder train.

    Args:
      root: where to look.
      archived: whether n*.tar, the synsets' archives, count too.
    """
    for folder in (f for f in (root, root / "train") if f.is_dir()):
        there = [*folders.subfolders(folder)]
        there += [p.stem for p in folder.glob("n*.tar")] if archived else []
        if any(n[0] == "n" and n[1:].isdigit() for n in there):
            return folder
    return None


def from_ilsvrc(root: pathlib.Path, lists: Mapping[str, Mapping], problems: Problems) -> Paths:
    """The ILSVRC files that the lists mean.

    The last 5 digits of a name count the synset's sorted files from 1.

    The synsets' folders must be whole: where a file is missing, the count of all later ones shifts.
    """
    out: Paths = {}
    for split, by_class in lists.items():
        out[split] = {}
        for synset, names in by_class.items():
            files = sorted(pictures.image_files(root / synset), key=_number)
            found = out[split][synset] = []
            for name in names:
                place = _place(name, synset, split)
                if 1 <= place <= len(files):
                    found.append(files[place - 1])
                else:
                    what = f"{split}.csv asks for its file {place}, the folder has {len(files)}"
                    problems.add(root / synset, what)
    return out


def _place(name: str, synset: str, split: str) -> int:
    match = _FILE.fullmatch(name)
    if not match or match[1] != synset:
        raise ValueError(
            f"{split}.csv: a file name must be the synset {synset} and a number of 5 digits or "
            f"more. Received: {name!r}."
        )
    return int(match[2])


def _number(path: pathlib.Path) -> tuple[int, str]:
    """n01440764_10026.JPEG: 10026."""
    digits = re.findall(r"\d+", path.stem)
    return (int(digits[-1]) if digits else 0), path.name
