# SPDX-License-Identifier: Apache-2.0
"""croissant.json: the data set as a Croissant 1.0 description, which search engines and loaders read.

Croissant (Akhtar et al., NeurIPS 2024) is JSON-LD: files, and record sets with their fields. The class
files are one FileSet by their pattern, without a hash each; the spec, whose sha256 stands here, has the
checksum over all images. Three record sets: splits, classes, and images, whose column is of TFRecords.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lwdgh import files
from tf_lwdgh.data.store.spec import SPEC_FILE, SPLITS, DatasetSpec

CROISSANT_FILE = "croissant.json"
TFRECORD_FORMAT = "https://www.tensorflow.org/tutorials/load_data/tfrecord"  # has no media type

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_SPLIT_KINDS = {"train": "cr:TrainingSplit", "val": "cr:ValidationSplit", "test": "cr:TestSplit"}


def write(folder: str | os.PathLike, spec: DatasetSpec) -> None:
    """Writes <folder>/croissant.json beside the spec that lies there, whole or not at all.

    Raises:
      FileNotFoundError: there is no spec.
    """
    digest = hashlib.sha256(pathlib.Path(folder, SPEC_FILE).read_bytes()).hexdigest()
    files.write_json(pathlib.Path(folder, CROISSANT_FILE), to_json(spec, spec_sha256=digest))


def to_json(spec: DatasetSpec, *, spec_sha256: str) -> dict[str, Any]:
    """The JSON-LD of a data set.

    Args:
      spec: of the data set.
      spec_sha256: of the file dataset_spec.json.
    """
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": spec.name,
        "description": _description(spec),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": SPEC_FILE,
                "name": SPEC_FILE,
                "description": "Meta-Dataset's description of the records.",
                "contentUrl": SPEC_FILE,
                "encodingFormat": "application/json",
                "sha256": spec_sha256,
            },
            {
                "@type": "cr:FileSet",
                "@id": "records",
                "name": "records",
                "description": "A file a class: tf.train.Example {image: PNG or JPEG, label: int64}.",
                "encodingFormat": TFRECORD_FORMAT,
                "includes": spec.file_pattern.format("*"),
            },
        ],
        "recordSet": [_splits(), _classes(spec), _images()],
    }


def _description(spec: DatasetSpec) -> str:
    counts = ", ".join(
        f"{split} {len(ids)} classes / {sum(spec.images_per_class[i] for i in ids)} images"
        for split in SPLITS
        for ids in [spec.classes(split)]
    )
    facts = {
        "split": spec.split_name,
        "images' sha256": spec.content_checksum,
        "source": spec.source_checksum,
        "converter": spec.converter_version,
    }
    said = "".join(f"; {name} {value}" for name, value in facts.items() if value)
    return f"Few-shot classification, classes split: {counts}{said}"


def _splits() -> dict[str, Any]:
    rows = [{"splits/name": s, "splits/url": _SPLIT_KINDS[s]} for s in SPLITS]
    return {
        **_record_set("splits", "The classes of each split are its own.", key="name", data=rows),
        "dataType": "cr:Split",
        "field": [
            _field("splits", "name", "sc:Text", "The split."),
            _field("splits", "url", "sc:URL", "Its kind."),
        ],
    }


def _classes(spec: DatasetSpec) -> dict[str, Any]:
    ids = [(split, i) for split in SPLITS for i in spec.classes(split)]
    rows = [
        {
            "classes/id": i,
            "classes/name": spec.class_names[i],
            "classes/split": split,
            "classes/images": spec.images_per_class[i],
            "classes/file": spec.file_pattern.format(i),
            **_superclass(spec, i),
        }
        for split, i in ids
    ]
    fields = [
        _field("classes", "id", "sc:Integer", "The label in the records."),
        _field("classes", "name", "sc:Text", "The class."),
        _field("classes", "split", "sc:Text", "The split it is in.", references="splits/name"),
        _field("classes", "images", "sc:Integer", "How many images it has."),
        _field("classes", "file", "sc:Text", "The file of its records."),
    ]
    if spec.superclasses:
        fields.append(_field("classes", "superclass", "sc:Text", "The superclass it is in."))
    return {
        **_record_set("classes", "Every class.", key="id", data=rows),
        "field": fields,
    }


def _superclass(spec: DatasetSpec, class_id: int) -> Mapping[str, str]:
    if not spec.superclasses:
        return {}
    return {"classes/superclass": spec.superclass_names[spec.superclasses[class_id]]}


def _images() -> dict[str, Any]:
    def column(name: str) -> dict[str, Any]:
        return {"source": {"fileSet": {"@id": "records"}, "extract": {"column": name}}}

    return {
        **_record_set("images", "Every image; a record of the class files each."),
        "field": [
            _field("images", "image", "sc:ImageObject", "PNG or JPEG.") | column("image"),
            _field("images", "label", "sc:Integer", "Its class.")
            | column("label"),
        ],
    }


def _record_set(
    name: str, description: str, *, key: str | None = None, data: Sequence[Mapping] | None = None
) -> dict[str, Any]:
    out: dict[str, Any] = {
        "@type": "cr:RecordSet", "@id": name, "name": name, "description": description,
    }  # fmt: skip
    if key is not None:
        out["key"] = {"@id": f"{name}/{key}"}
    if data is not None:
        out["data"] = list(data)
    return out


def _field(
    record_set: str, name: str, kind: str, description: str, *, references: str | None = None
) -> dict[str, Any]:
    out: dict[str, Any] = {
        "@type": "cr:Field", "@id": f"{record_set}/{name}", "name": name,
        "description": description, "dataType": kind,
    }  # fmt: skip
    if references is not None:
        out["references"] = {"field": {"@id": references}}
    return out
