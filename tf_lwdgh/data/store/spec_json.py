# SPDX-License-Identifier: Apache-2.0
"""The JSON of dataset_spec.json: Meta-Dataset's keys, plain or bi-level, and our own.

What is read may be anything: every value is held to its rule, in memory that the file's size bounds.
"""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SPLITS = ("train", "val", "test")
_SPLIT_KEYS = {"train": "TRAIN", "val": "VALID", "test": "TEST"}
_PLAIN, _BI_LEVEL = "DatasetSpecification", "BiLevelDatasetSpecification"
EXTRAS = "tf_lwdgh"  # our own keys, in a dictionary that other readers pass over
_EXTRA_KEYS = (
    "split_name", "source_checksum", "content_checksum", "converter_version", "image_size",
    "encoding", "class_checksums",
)  # fmt: skip
LARGEST_CLASS = 2**24  # images; drawing a task takes 8 bytes for each image of its classes
_MOST_CLASSES = 2**31 - 1
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


def to_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a DatasetSpec's fields.

    The bi-level form cannot say that a superclass spans two splits, as Omniglot's Gurmukhi does in
    Vinyals' split: readers would count its classes to the wrong split. Such a spec is written in
    the plain form, its superclasses among our own keys.
    """
    extras = {key: fields[key] for key in _EXTRA_KEYS}
    extras["class_checksums"] = list(fields["class_checksums"])
    out = {
        "name": fields["name"],
        "images_per_class": _by_id(fields["images_per_class"]),
        "class_names": _by_id(fields["class_names"]),
        "path": ".",  # readers put the folder that they read from
        "file_pattern": fields["file_pattern"],
        EXTRAS: extras,
    }
    counts, superclasses = fields["classes_per_split"], fields["superclasses"]
    homes = _homes(superclasses, [counts[s] for s in SPLITS])
    if superclasses and _nest(superclasses, homes, len(fields["superclass_names"])):
        return {**out, **_levels(fields, map(len, homes)), "__class__": _BI_LEVEL}
    if superclasses:
        extras["superclasses"] = list(superclasses)
        extras["superclass_names"] = list(fields["superclass_names"])
    per_split = {_SPLIT_KEYS[s]: counts[s] for s in SPLITS}
    return {**out, "classes_per_split": per_split, "__class__": _PLAIN}


def _homes(superclasses: Sequence[int], counts: Sequence[int]) -> list[set[int]]:
    """The superclasses in each split."""
    ends = list(itertools.accumulate(counts))
    return [set(superclasses[end - n : end]) for n, end in zip(counts, ends, strict=True)]


def _nest(superclasses: Sequence[int], homes: Sequence[set[int]], n_superclasses: int) -> bool:
    """Whether classes are ordered by superclass, and each superclass lies within one split."""
    within_one = sum(map(len, homes)) == len(set().union(*homes)) == n_superclasses
    return within_one and list(superclasses) == sorted(superclasses)


def _levels(fields: Mapping[str, Any], superclasses_per_split: Iterable[int]) -> dict[str, Any]:
    names = fields["superclass_names"]
    sizes = [fields["superclasses"].count(i) for i in range(len(names))]
    per_split = dict(zip(_SPLIT_KEYS.values(), superclasses_per_split, strict=True))
    return {
        "superclasses_per_split": per_split,
        "classes_per_superclass": _by_id(sizes),
        "superclass_names": _by_id(names),
    }


def _by_id(values: Sequence) -> dict[str, Any]:
    return {str(i): value for i, value in enumerate(values)}


def from_json(data: Any) -> dict[str, Any]:
    """The fields of a DatasetSpec.

    Raises:
      ValueError: it is no spec; the message names the key, the rule and the value.
    """
    if not isinstance(data, dict):
        raise ValueError(f"the file must hold a dictionary. Received: {short(data)}.")
    kind = data.get("__class__")
    if kind not in (_PLAIN, _BI_LEVEL):
        raise ValueError(f"__class__ must be {_PLAIN} or {_BI_LEVEL}. Received: {short(kind)}.")
    fields = {
        "name": _get(data, "name", str),
        "images_per_class": _numbers(data, "images_per_class", LARGEST_CLASS),
        "class_names": _texts("class_names", _ordered(data, "class_names")),
        "file_pattern": _get(data, "file_pattern", str),
    }
    n_classes = len(fields["images_per_class"])
    extras = _get(data, EXTRAS, dict) if EXTRAS in data else {}
    fields |= _extras(extras)
    if kind == _BI_LEVEL:
        return fields | _bi_level(data, n_classes)
    fields["classes_per_split"] = _per_split(data, "classes_per_split")
    if "superclasses" in extras:
        values = enumerate(_get(extras, "superclasses", list))
        ids = (_number(f"superclasses[{i}]", v, n_classes) for i, v in values)
        fields["superclasses"] = tuple(ids)
    if "superclass_names" in extras:
        names = _get(extras, "superclass_names", list)
        fields["superclass_names"] = _texts("superclass_names", names)
    return fields


def _extras(extras: Mapping[str, Any]) -> dict[str, Any]:
    """Our own keys, as far as they are there."""
    fields = {key: extras[key] for key in _EXTRA_KEYS if key in extras}
    for key in set(fields) - {"image_size", "class_checksums"}:
        _get(fields, key, str)
    if fields.get("image_size") is not None:
        fields["image_size"] = _number("image_size", fields["image_size"], 2**16)
    if "class_checksums" in fields:
        checksums = _get(fields, "class_checksums", list)
        fields["class_checksums"] = _texts("class_checksums", checksums)
    return fields


def _bi_level(data: Mapping[str, Any], n_classes: int) -> dict[str, Any]:
    key = "classes_per_superclass"
    counts = _numbers(data, key, _MOST_CLASSES)
    if sum(counts) != n_classes:
        raise ValueError(
            f"{key} must sum to the {n_classes} classes of images_per_class. Received: {sum(counts)}."
        )
    per_split, start = {}, 0
    for split, n in _per_split(data, "superclasses_per_split").items():
        per_split[split] = sum(counts[start : start + n])
        start += n
    if start != len(counts):
        raise ValueError(
            f"superclasses_per_split must sum to the {len(counts)} superclasses of {key}. "
            f"Received: {start}."
        )
    return {
        "classes_per_split": per_split,
        "superclasses": tuple(i for i, n in enumerate(counts) for _ in range(n)),
        "superclass_names": _texts("superclass_names", _ordered(data, "superclass_names")),
    }


def _get(data: Mapping[str, Any], key: str, kind: type) -> Any:
    if key not in data:
        raise ValueError(f"the key {key!r} is missing.")
    if not isinstance(data[key], kind):
        what = {"dict": "a dictionary", "str": "text", "list": "a list"}[kind.__name__]
        raise ValueError(f"{key} must be {what}. Received: {short(data[key])}.")
    return _encodable(key, data[key]) if kind is str else data[key]


def _encodable(key: str, text: str) -> str:
    """The text, if no half of a surrogate pair stands alone in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{key} must be text that UTF-8 can hold. Received: {short(text)}.") from None
    return text


def _ordered(data: Mapping[str, Any], key: str) -> list:
    """The values of {"0": …, "1": …} by id."""
    found = _get(data, key, dict)
    expected = [str(i) for i in range(len(found))]
    if set(found) != set(expected):
        odd = sorted(set(found) - set(expected))[:5]
        raise ValueError(
            f"{key}: ids must run from 0 without gaps, to {len(found) - 1}. Received: {short(odd)}."
        )
    return [found[i] for i in expected]


def _per_split(data: Mapping[str, Any], key: str) -> dict[str, int]:
    found = _get(data, key, dict)
    if set(found) != set(_SPLIT_KEYS.values()):
        keys = ", ".join(_SPLIT_KEYS.values())
        raise ValueError(f"{key} must have the keys {keys}. Received: {short(list(found))}.")
    return {s: _number(f"{key}[{k}]", found[k], _MOST_CLASSES) for s, k in _SPLIT_KEYS.items()}


def _numbers(data: Mapping[str, Any], key: str, most: int) -> tuple[int, ...]:
    return tuple(_number(f"{key}[{i}]", n, most) for i, n in enumerate(_ordered(data, key)))


def _number(key: str, value: Any, most: int) -> int:
    if isinstance(value, dict):
        raise ValueError(
            f"{key}: classes with pools of images (Meta-Dataset's own train and test images of a "
            f"class) are not supported. Received: {short(value)}."
        )
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(
            f"{key} must be a whole number from 0 to {most:,}. Received: {short(value)}."
        )
    return value


def _texts(key: str, values: Sequence) -> tuple[str, ...]:
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"{key} must be text. Received: {short(value)}.")
        _encodable(key, value)
    return tuple(values)


def short(value: Any) -> str:
    """A value in at most 100 characters, whatever its size."""
    text = _SHORT.repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
