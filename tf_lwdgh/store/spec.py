"""dataset_spec.json: what a folder of records holds, in Meta-Dataset's form with our own facts added."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

SPLITS = ("train", "val", "test")
SPEC_FILE = "dataset_spec.json"
_SPLIT_KEYS = {"train": "TRAIN", "val": "VALID", "test": "TEST"}
_EXTRAS = "tf_lwdgh"  # our own keys, in a dictionary that other readers pass over


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
      file_pattern: of the record files, with {} for the class id.
      split_name: which split of the data set this is, such as 'vinyals'.
      source_checksum: of what was converted.
      content_checksum: sha256 over all images in order.
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
    file_pattern: str = "{}.tfrecords"
    split_name: str = ""
    source_checksum: str = ""
    content_checksum: str = ""
    converter_version: str = ""
    image_size: int | None = None
    encoding: str = "mixed"

    def __post_init__(self) -> None:
        n_classes = sum(self.classes_per_split.values())
        checks = (
            ("classes_per_split", set(self.classes_per_split) == set(SPLITS), "needs three splits"),
            ("images_per_class", len(self.images_per_class) == n_classes, "needs a count a class"),
            ("images_per_class", min(self.images_per_class, default=1) > 0, "must be above 0"),
            ("class_names", len(self.class_names) == n_classes, "needs a name a class"),
            ("file_pattern", "{}" in self.file_pattern, "needs {} for the class id"),
            ("superclasses", len(self.superclasses) in (0, n_classes), "needs one a class"),
        )
        for field, holds, rule in checks:
            if not holds:
                value = str(getattr(self, field))[:200]
                raise ValueError(f"DatasetSpec.{field} {rule} ({n_classes} classes). Received: {value}.")

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
        """sha256 of all that the spec says: equal for equal data, wherever it lies."""
        content = {**dataclasses.asdict(self), "classes_per_split": dict(self.classes_per_split)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @classmethod
    def load(cls, folder: str | os.PathLike) -> DatasetSpec:
        """Reads <folder>/dataset_spec.json, ours or Meta-Dataset's, plain or bi-level.

        Raises:
          FileNotFoundError: there is none.
          ValueError: it is not a spec; the message names the file, the key and the rule.
        """
        path = pathlib.Path(folder, SPEC_FILE)
        try:
            return _from_json(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            what = f"the key {error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{path} is not a data set's description: {what}") from error

    def write(self, folder: str | os.PathLike) -> None:
        """Writes <folder>/dataset_spec.json, whole or not at all."""
        path = pathlib.Path(folder, SPEC_FILE)
        partial = path.with_suffix(".partial")
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(_to_json(self, str(folder)), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)


def _by_id(values: Sequence) -> dict[str, Any]:
    return {str(i): value for i, value in enumerate(values)}


def _to_json(spec: DatasetSpec, path: str) -> dict[str, Any]:
    per_split = {_SPLIT_KEYS[s]: spec.classes_per_split[s] for s in SPLITS}
    out = {
        "name": spec.name,
        "images_per_class": _by_id(spec.images_per_class),
        "class_names": _by_id(spec.class_names),
        "path": path,
        "file_pattern": spec.file_pattern,
        _EXTRAS: {key: getattr(spec, key) for key in _EXTRA_KEYS},
    }
    if not spec.superclasses:
        return {**out, "classes_per_split": per_split, "__class__": "DatasetSpecification"}
    # Meta-Dataset's bi-level form knows no superclass that spans splits, nor classes out of their order.
    counts = [spec.superclasses.count(i) for i in range(len(spec.superclass_names))]
    ours = {"superclasses": spec.superclasses, "classes_per_split": per_split}
    out[_EXTRAS] |= ours
    homes = [_split_of(spec, spec.superclasses.index(i)) for i in range(len(counts))]
    return {
        **out,
        "superclasses_per_split": {_SPLIT_KEYS[s]: homes.count(s) for s in SPLITS},
        "classes_per_superclass": _by_id(counts),
        "superclass_names": _by_id(spec.superclass_names),
        "__class__": "BiLevelDatasetSpecification",
    }


_EXTRA_KEYS = (
    "split_name", "source_checksum", "content_checksum", "converter_version", "image_size", "encoding",
)  # fmt: skip


def _split_of(spec: DatasetSpec, class_id: int) -> str:
    return next(s for s in SPLITS if class_id in spec.classes(s))


def _ordered(mapping: Mapping[str, Any], what: str) -> tuple:
    keys = sorted(int(key) for key in mapping)
    if keys != list(range(len(keys))):
        raise ValueError(f"{what}: ids must run from 0 without gaps. Received: {keys[:10]} ….")
    return tuple(mapping[str(key)] for key in keys)


def _from_json(data: Mapping[str, Any]) -> DatasetSpec:
    kinds = ("DatasetSpecification", "BiLevelDatasetSpecification")
    if data.get("__class__") not in kinds:
        raise ValueError(f"__class__ must be {' or '.join(kinds)}. Received: {data.get('__class__')!r}.")
    extras = dict(data.get(_EXTRAS, {}))
    superclasses: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    if data["__class__"] == kinds[0]:
        per_split = data["classes_per_split"]
    else:
        counts = _ordered(data["classes_per_superclass"], "classes_per_superclass")
        names = _ordered(data["superclass_names"], "superclass_names")
        superclasses = tuple(i for i, n in enumerate(counts) for _ in range(n))
        superclasses = tuple(extras.pop("superclasses", superclasses))
        per_split = extras.pop("classes_per_split", None) or _classes_per_split(data, counts)
    return DatasetSpec(
        name=data["name"],
        classes_per_split={s: int(per_split[_SPLIT_KEYS[s]]) for s in SPLITS},
        images_per_class=tuple(map(int, _ordered(data["images_per_class"], "images_per_class"))),
        class_names=_ordered(data["class_names"], "class_names"),
        superclasses=superclasses,
        superclass_names=names,
        file_pattern=data["file_pattern"],
        **{key: extras[key] for key in _EXTRA_KEYS if key in extras},
    )


def _classes_per_split(data: Mapping[str, Any], counts: Sequence[int]) -> dict[str, int]:
    out, start = {}, 0
    for key in _SPLIT_KEYS.values():
        stop = start + data["superclasses_per_split"][key]
        out[key] = sum(counts[start:stop])
        start = stop
    return out


def open_dataset(data_dir: str | os.PathLike, name: str) -> tuple[str, DatasetSpec]:
    """The records' folder and spec of data set `name`.

    Args:
      data_dir: the folder that holds one folder a data set.
      name: of the data set.

    Raises:
      FileNotFoundError: there is no such data set; the message says which there are and how to make one.
    """
    folder = os.path.join(data_dir, name)
    if os.path.exists(os.path.join(folder, SPEC_FILE)):
        return folder, DatasetSpec.load(folder)
    root = pathlib.Path(data_dir)
    there = sorted(p.parent.name for p in root.glob(f"*/{SPEC_FILE}")) if root.is_dir() else []
    raise FileNotFoundError(
        f"No data set {name!r} (DatasetConfig.name) in --data_dir {str(data_dir)!r}: there is no "
        f"{os.path.join(folder, SPEC_FILE)}. Data sets found there: {', '.join(there) or 'none'}. "
        f"Make one with a converter, such as `python tools/{_maker(name)} --help`."
    )


def _maker(name: str) -> str:
    known = {"glyphs": "make_glyphs.py", "omniglot": "convert_omniglot.py"}
    return known.get(name, "convert_mini_imagenet.py" if name.startswith("mini") else "convert_folder.py")
