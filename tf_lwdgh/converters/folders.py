# SPDX-License-Identifier: Apache-2.0
"""Folder trees of images: split/class/images, or class/images with fractions or lists."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from tf_lwdgh.converters import archives, pictures, texts
from tf_lwdgh.converters.problems import Problems
from tf_lwdgh.data import store

VERSION = "folders-3"
NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_SHOWN = 10

Paths = Mapping[str, Mapping[str, Sequence[pathlib.Path]]]  # split -> class -> image files


@dataclasses.dataclass(frozen=True)
class SplitChoice:
    """Where the split comes from: the tree's folders, fractions of the classes, or lists.

    Attributes:
      fractions: of the classes for train, val and test; they sum to 1.
      seed: which classes the fractions pick.
      lists: a folder with train.txt, val.txt and test.txt, a class name a line.
    """

    fractions: tuple[float, float, float] | None = None
    seed: int = 0
    lists: str | os.PathLike | None = None

    def __post_init__(self) -> None:
        if self.fractions is not None and self.lists is not None:
            raise ValueError("--fractions and --lists exclude each other.")
        if self.fractions is None:
            return
        in_range = len(self.fractions) == 3 and all(0 <= f <= 1 for f in self.fractions)
        if not in_range or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(
                "--fractions must be three numbers from 0 to 1, for train, val and test, that sum "
                f"to 1. Received: {self.fractions}."
            )

    @property
    def name(self) -> str:
        """For the data set's spec."""
        if self.fractions is not None:
            return f"fractions {','.join(map(str, self.fractions))} seed {self.seed}"
        return "lists" if self.lists is not None else "folders"


def convert(
    source: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    name: str,
    split: SplitChoice = SplitChoice(),
    sizing: pictures.Sizing = pictures.Sizing(),
    min_images: int = 2,
    overwrite: bool = False,
    skip_bad: bool = False,
) -> tuple[store.DatasetSpec, Problems]:
    """Writes the records of a folder tree.

    Args:
      source: the folder, or an archive of it.
      out_dir: of the records.
      name: of the data set.
      split: where the split comes from.
      sizing: what becomes of the images' sizes. PNG and JPEG files that fit are kept byte for byte, all
        others stored as PNG.
      min_images: a class with fewer is short. An episode takes k_shot + n_query images of a class.
      overwrite: replace what `out_dir` holds.
      skip_bad: leave out what is corrupt, short or missing.

    Raises:
      FileNotFoundError: there is no such source.
      ValueError: the tree has no such layout, a class stands in two splits or is short, an image
        is corrupt.
    """
    problems = Problems(skip_bad=skip_bad)
    pictures.check_size(sizing.image_size)
    with archives.as_folder(source, beside=out_dir) as root:
        paths = find_images(root, split, problems)
        spec = write(
            paths, out_dir, problems, name=name, sizing=sizing, min_images=min_images,
            source_checksum=archives.checksum(source), converter_version=VERSION,
            split_name=split.name, overwrite=overwrite,
        )  # fmt: skip
    return spec, problems


def write(
    paths: Paths,
    out_dir: str | os.PathLike,
    problems: Problems,
    *,
    name: str,
    sizing: pictures.Sizing,
    min_images: int,
    source_checksum: str,
    converter_version: str,
    split_name: str,
    overwrite: bool,
) -> store.DatasetSpec:
    """Writes the records of image files; the other arguments are those of `convert`."""
    kept: dict[str, dict[str, Sequence[pathlib.Path]]] = {split: {} for split in store.SPLITS}
    for split in store.SPLITS:
        for class_name, files in paths[split].items():
            if len(files) >= max(1, min_images):
                kept[split][class_name] = files
            else:
                rule = f"a class needs at least {max(1, min_images)} images, found {len(files)}"
                problems.add(f"{split} class {class_name!r}", rule)
    everything = [p for by_class in kept.values() for files in by_class.values() for p in files]
    classes = {
        split: [
            (class_name, pictures.read_images(files, problems, **sizing._asdict()))
            for class_name, files in kept[split].items()
        ]
        for split in store.SPLITS
    }
    return store.write_dataset(
        out_dir,
        name,
        classes,
        image_size=sizing.image_size or pictures.common_size(everything, sizing),
        source_checksum=source_checksum,
        converter_version=converter_version,
        split_name=split_name,
        overwrite=overwrite,
    )


def find_images(root: pathlib.Path, split: SplitChoice, problems: Problems) -> Paths:
    """The image files of each class of each split, classes sorted by name.

    What lies in the tree and is none of them is counted in problems.left_out.

    Raises:
      ValueError: the tree has no such layout, or a class stands in two splits.
    """
    root = _enter(root)
    if split.fractions is None and split.lists is None:
        homes = split_folders(root)
        folders = {s: subfolders(folder) for s, folder in homes.items()}
        count_beside(root, homes.values(), problems)
    else:
        homes, there = {}, subfolders(root)
        _refuse_split_names(root, there)
        names = by_fractions(sorted(there), split) if split.fractions else read_lists(split.lists)
        folders = {s: _named(there, names[s], s, root, problems) for s in store.SPLITS}
        count_beside(root, [f for named in folders.values() for f in named.values()], problems)
    for home in homes.values():
        count_beside(home, subfolders(home).values(), problems)
    refuse_repeats(folders)
    for s in store.SPLITS:
        if not folders[s] and not (split.fractions and split.fractions[store.SPLITS.index(s)] == 0):
            problems.add(root, f"split {s} has no class")
    return {s: {c: pictures.image_files(f, problems.left_out) for c, f in folders[s].items()} for s in store.SPLITS}


def count_beside(folder: pathlib.Path, entered: Iterable[pathlib.Path], problems: Problems) -> None:
    """Counts what lies in a folder beside the folders that are entered; hidden things are passed over."""
    entered = set(entered)
    for path in folder.iterdir():
        if path in entered or path.name.startswith((".", "__MACOSX")):
            continue
        if path.is_dir():
            problems.left_out["folder that is no class of a split"] += 1
        elif path.suffix.lower() in pictures.SUFFIXES:
            problems.left_out["image outside the classes' folders"] += 1
        else:
            problems.left_out[pictures.kind(path)] += 1


def subfolders(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The folders in a folder by name, sorted; hidden ones are passed over.

    Raises:
      ValueError: a name is not UTF-8: it could not become the name of a class.
    """
    found = sorted(p for p in folder.iterdir() if p.is_dir())
    for path in found:
        if not texts.is_text(path.name):
            raise ValueError(f"{folder}: the name of a folder must be UTF-8. Received: {os.fsencode(path.name)!r}.")
    return {p.name: p for p in found if not p.name.startswith((".", "__MACOSX"))}


def _enter(root: pathlib.Path) -> pathlib.Path:
    """Steps into the one folder that archives usually hold, as long as it holds folders in turn."""
    while True:
        inside = list(subfolders(root).values())
        if len(inside) != 1 or inside[0].name in sum(NAMES.values(), ()) or not subfolders(inside[0]):
            return root
        root = inside[0]


def split_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """The folders of train, val and test. ValueError where one is missing or has two names."""
    there = subfolders(root)
    out = {}
    for split, names in NAMES.items():
        found = [n for n in names if n in there]
        if len(found) != 1:
            shown = ", ".join(list(there)[:_SHOWN]) or "no folder"
            raise ValueError(
                f"{root}: the layout split/class/images needs one folder {' or '.join(names)}, "
                f"found {' and '.join(found) or 'none'} (there: {shown}). For a tree class/images "
                "say --fractions or --lists."
            )
        out[split] = there[found[0]]
    return out


def _refuse_split_names(root: pathlib.Path, there: Mapping[str, pathlib.Path]) -> None:
    if {"train", "test"} <= set(there):
        raise ValueError(
            f"{root} has folders train and test, so that it is split/class/images: leave out --fractions and --lists."
        )


def refuse_repeats(folders: Mapping[str, Iterable[str]]) -> None:
    """Raises ValueError where a class name stands in two splits."""
    home: dict[str, str] = {}
    for split, by_class in folders.items():
        for class_name in by_class:
            if class_name in home:
                raise ValueError(
                    f"class {class_name!r} stands in both {home[class_name]} and {split}; the "
                    "classes of a few-shot split must not overlap."
                )
            home[class_name] = split


def by_fractions(names: Sequence[str], split: SplitChoice) -> dict[str, list[str]]:
    """Orders the classes by a hash of (seed, name) and cuts; the same on every machine."""

    def rank(class_name: str) -> str:
        return hashlib.sha256(f"{split.seed}\0{class_name}".encode()).hexdigest()

    order = sorted(names, key=rank)
    train, val, _ = split.fractions
    first, second = round(train * len(order)), round((train + val) * len(order))
    cuts = (order[:first], order[first:second], order[second:])
    for name, fraction, cut in zip(store.SPLITS, split.fractions, cuts, strict=True):
        if fraction and not cut:
            raise ValueError(f"--fractions: {fraction} of {len(order)} classes leaves none for {name}.")
    return {name: sorted(cut) for name, cut in zip(store.SPLITS, cuts, strict=True)}


def read_lists(folder: str | os.PathLike) -> dict[str, list[str]]:
    """The class names in train.txt, val.txt and test.txt.

    Raises:
      FileNotFoundError: one of them is missing.
      ValueError: one names a class twice.
    """
    out = {}
    for split in store.SPLITS:
        path = pathlib.Path(folder, f"{split}.txt")
        if not path.exists():
            raise FileNotFoundError(f"--lists needs {path}: a class name a line.")
        lines = texts.read(path).splitlines()
        out[split] = [line.strip().rstrip("/") for line in lines if line.strip()]
        repeated = {n for n in out[split] if out[split].count(n) > 1}
        if repeated:
            raise ValueError(f"{path} names {', '.join(sorted(repeated)[:_SHOWN])} more than once.")
    return out


def _named(
    there: Mapping[str, pathlib.Path],
    names: Sequence[str],
    split: str,
    root: pathlib.Path,
    problems: Problems,
) -> dict[str, pathlib.Path]:
    for missing in (n for n in names if n not in there):
        problems.add(root / missing, f"the folder of this {split} class is missing")
    return {n: there[n] for n in names if n in there}
