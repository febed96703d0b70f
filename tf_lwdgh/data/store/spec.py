# SPDX-License-Identifier: Apache-2.0
"""dataset_spec.json: what a folder of records holds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import string
from collections.abc import Iterator, Mapping

from tf_lwdgh import files
from tf_lwdgh.data.store.graph_json import from_json, to_json
from tf_lwdgh.data.store.spec_json import SPLITS

SPEC_FILE = "dataset_spec.json"
LARGEST_FILE = 2**24  # bytes of a spec: some 300,000 classes


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """What a folder of records holds.

    Attributes:
      name: of the data set.
      classes_per_split: how many classes 'train', 'val' and 'test' have.
      images_per_class: by class id.
      class_names: by class id.
      superclasses: the superclass id of each class (bi-level data sets), or ().
      superclass_names: by superclass id.
      nodes: the class ids below each inner node of a hierarchy that is a graph, all of one split; or ().
      file_pattern: of the record files, with {} for the class id.
      split_name: which split of the data set this is, such as 'vinyals'.
      source_checksum: of what was converted.
      content_checksum: sha256 over the sha256 of each class's images, in order.
      class_checksums: of each class's record file, 8 hexadecimal digits: CRC-32C over the checksums of its
        records, in order; or (), where what wrote the records stated none.
      converter_version: of what wrote the records.
      image_size: height and width of every image, or None where they differ.
      encoding: 'png', 'jpeg' or 'mixed'.
    """

    name: str
    classes_per_split: Mapping[str, int]
    images_per_class: tuple[int, ...]
    class_names: tuple[str, ...]
    superclasses: tuple[int, ...] = ()
    superclass_names: tuple[str, ...] = ()
    nodes: tuple[tuple[int, ...], ...] = ()
    file_pattern: str = "{}.tfrecords"
    split_name: str = ""
    source_checksum: str = ""
    content_checksum: str = ""
    class_checksums: tuple[str, ...] = ()
    converter_version: str = ""
    image_size: int | None = None
    encoding: str = "mixed"

    def __post_init__(self) -> None:
        for field, rule in self._broken_rules():
            value = str(getattr(self, field))
            raise ValueError(
                f"DatasetSpec.{field} {rule} ({len(self.images_per_class)} classes). "
                f"Received: {value if len(value) <= 200 else value[:197] + '...'}."
            )

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        if set(self.classes_per_split) != set(SPLITS):
            yield "classes_per_split", f"needs the keys {', '.join(SPLITS)}"
        n_classes = sum(self.classes_per_split.values())
        n_superclasses = len(self.superclass_names)
        if len(self.images_per_class) != n_classes:
            yield "images_per_class", f"needs a count for each of the {n_classes} classes"
        if min(self.images_per_class, default=1) < 1:
            yield "images_per_class", "must be above 0"
        if len(self.class_names) != n_classes:
            yield "class_names", f"needs a name for each of the {n_classes} classes"
        if not _is_pattern(self.file_pattern):
            yield "file_pattern", "needs one {} for the class id, and no folder"
        if len(self.class_checksums) not in (0, n_classes):
            yield "class_checksums", f"needs one for each of the {n_classes} classes"
        if not all(re.fullmatch("[0-9a-f]{8}", c) for c in self.class_checksums):
            yield "class_checksums", "must be 8 hexadecimal digits each"
        if self.encoding not in ("png", "jpeg", "mixed"):
            yield "encoding", "must be 'png', 'jpeg' or 'mixed'"
        if self.image_size is not None and self.image_size < 1:
            yield "image_size", "must be above 0"
        if len(self.superclasses) not in (0, n_classes):
            yield "superclasses", f"needs one for each of the {n_classes} classes"
        if not set(self.superclasses) <= set(range(n_superclasses)):
            yield "superclasses", f"must be ids of the {n_superclasses} superclass_names"
        if not {c for node in self.nodes for c in node} <= set(range(n_classes)):
            yield "nodes", f"must hold ids of the {n_classes} classes"

    def classes(self, split: str) -> range:
        """The class ids of 'train', 'val' or 'test'.

        Raises:
          ValueError: another split.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}. Received: {split!r}.")
        start = sum(self.classes_per_split[s] for s in SPLITS[: SPLITS.index(split)])
        return range(start, start + self.classes_per_split[split])

    @property
    def fingerprint(self) -> str:
        """sha256 of what the spec says of the images: equal for equal data, wherever it lies.

        The checksums of the record files, which the same images need not share, are left out.
        """
        content = {**dataclasses.asdict(self), "classes_per_split": dict(self.classes_per_split)}
        del content["class_checksums"]
        if not self.nodes:
            del content["nodes"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @classmethod
    def load(cls, folder: str | os.PathLike) -> DatasetSpec:
        """Reads <folder>/dataset_spec.json, ours or Meta-Dataset's: plain, bi-level or of a graph.

        Raises:
          FileNotFoundError: there is none.
          ValueError: it is no spec; the message names the file, the key, the rule and the value.
        """
        path = pathlib.Path(folder, SPEC_FILE)
        try:
            return cls(**from_json(json.loads(_read(path))))
        except RecursionError:
            error = ValueError("its brackets are nested too deep")
        except ValueError as found:  # JSON's and Unicode's errors are ValueErrors too
            error = found
        raise ValueError(f"{path} is no description of a data set: {error}") from error

    def write(self, folder: str | os.PathLike) -> None:
        """Writes <folder>/dataset_spec.json, whole or not at all."""
        path = pathlib.Path(folder, SPEC_FILE)
        files.write_json(path, to_json(dataclasses.asdict(self)))


def _read(path: pathlib.Path) -> str:
    """The text of a file that is no larger than a spec can be."""
    if path.exists() and not path.is_file():
        raise ValueError("it must be a file")
    with open(path, "rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError(f"it must have at most {LARGEST_FILE:,} bytes")
    return content.decode("utf-8")


def _is_pattern(pattern: str) -> bool:
    """Whether the pattern names a file in the folder for every class id."""
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError:  # brackets that do not match
        return False
    fields = [part[1:] for part in parts if part[1] is not None]
    return fields == [("", "", None)] and not set(pattern) & set("/\\\0") and len(pattern) <= 200


def open_dataset(data_dir: str | os.PathLike, name: str) -> tuple[str, DatasetSpec]:
    """The records' folder and spec of data set `name`.

    Args:
      data_dir: the folder that holds one folder a data set.
      name: of the data set.

    Raises:
      FileNotFoundError: there is no such data set; the message says which there are and how to
        make one.
    """
    folder = os.path.join(data_dir, name)
    if os.path.exists(os.path.join(folder, SPEC_FILE)):
        return folder, DatasetSpec.load(folder)
    there = dataset_names(data_dir)
    raise FileNotFoundError(
        f"No data set {name!r} (DatasetConfig.name) in --data_dir {str(data_dir)!r}: there is no "
        f"{os.path.join(folder, SPEC_FILE)}. Data sets found there: {', '.join(there) or 'none'}. "
        f"Make one with a converter, such as `python tools/{_maker(name)} --help`; where there is no "
        "clone, `python -m tf_lwdgh.converters --help`."
    )


def dataset_names(data_dir: str | os.PathLike) -> list[str]:
    """The data sets in a folder of such, sorted."""
    names = (p.parent.name for p in pathlib.Path(data_dir).glob(f"*/{SPEC_FILE}"))
    return sorted(n for n in names if not n.startswith("."))  # hidden ones are half-written


def _maker(name: str) -> str:
    """The tool for a data set of this name, which may begin with its converter's."""
    if name == "glyphs":
        return "make_glyphs.py"
    known = ("omniglot", "mini_imagenet", "tiered_imagenet", "cub", "cifar_fs", "fc100")
    return f"convert_{next((k for k in known if name.startswith(k.split('_')[0])), 'folder')}.py"
