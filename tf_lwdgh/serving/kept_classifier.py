# SPDX-License-Identifier: Apache-2.0
"""A learned classifier in a file, with the names of its classes and the model that it belongs to."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_lwdgh import files
from tf_lwdgh.runs.checkpoints import file_sha256
from tf_lwdgh.serving.loaded import Classifier

_FORMAT = "tf_lwdgh classifier 1"
_ABOUT = "about"
_TENSOR = "tensor/"
_TOLD = ("learner", "backbone", "dataset", "step")  # of the model, for messages
_FAULTS = (  # all that reading something else raises
    ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class KeptClassifier:
    """What `write` writes and `read` reads.

    Attributes:
      class_names: of the labels 0, 1, ….
      tensors: what the model's `adapt` returned.
      crop: whether photos were cut to their middle square before.
    """

    def __init__(self, class_names: Sequence[str], tensors: Classifier, *, crop: bool = False) -> None:
        self.class_names, self.tensors, self.crop = tuple(class_names), dict(tensors), crop


def fingerprint(model: str | os.PathLike[str]) -> str:
    """sha256 of all that an export has learned and tells of itself: equal for copies of it."""
    digest, folder = hashlib.sha256(), pathlib.Path(model)
    for path in (folder / "assets/metadata.json", *sorted((folder / "variables").iterdir())):
        digest.update(f"{path.name}\0{file_sha256(str(path))}\0".encode())
    return digest.hexdigest()


def write(
    path: str | os.PathLike[str],
    kept: KeptClassifier,
    model: str | os.PathLike[str],
    metadata: dict[str, Any],
) -> None:
    """Writes a classifier as an .npz file without pickles, whole or not at all.

    Args:
      path: where.
      kept: the classifier.
      model: the export that learned it.
      metadata: of that export.
    """
    about = {
        "format": _FORMAT, "class_names": kept.class_names, "crop": kept.crop,
        "model": {"fingerprint": fingerprint(model), **{n: metadata.get(n) for n in _TOLD}},
    }  # fmt: skip
    buffer = io.BytesIO()
    named: dict[str, Any] = {_TENSOR + name: tensor for name, tensor in kept.tensors.items()}
    np.savez(buffer, **{_ABOUT: np.array(json.dumps(about)), **named})
    files.write(path, buffer.getvalue())


def read(
    path: str | os.PathLike[str],
    model: str | os.PathLike[str],
    metadata: dict[str, Any],
    *,
    flag: str = "path",
) -> KeptClassifier:
    """Reads what `write` wrote, for the same model.

    Args:
      path: the file.
      model: the export that is to answer.
      metadata: of that export.
      flag: where the path was given, for messages.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no classifier, or one that another model learned; both are named.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        about = json.loads(str(arrays.pop(_ABOUT)))
        if about["format"] != _FORMAT:
            raise ValueError(f"its format is {about['format']!r}, not {_FORMAT!r}")
        tensors = {name.removeprefix(_TENSOR): tensor for name, tensor in arrays.items()}
        kept = KeptClassifier(about["class_names"], tensors, crop=about["crop"])
        if int(tensors["n_way"]) != len(kept.class_names):
            raise ValueError(f"{len(kept.class_names)} names for {tensors['n_way']} classes")
        learned_by = {name: about["model"][name] for name in ("fingerprint", *_TOLD)}
    except _FAULTS as error:
        raise ValueError(
            f"{flag} must be a classifier that `python -m tf_lwdgh.predict --save` wrote. "
            f"Received: {os.fspath(path)!r} ({error})."
        ) from error
    ours = {"fingerprint": fingerprint(model), **{n: metadata.get(n) for n in _TOLD}}
    if learned_by["fingerprint"] != ours["fingerprint"]:
        raise ValueError(
            f"{flag}: a classifier belongs to the model that learned it, and {os.fspath(path)} was learned by "
            f"another: {_shown(learned_by)}. Received: {os.fspath(model)}, {_shown(ours)}."
        )
    return kept


def _shown(model: dict[str, Any]) -> str:
    trained = f"step {model['step']} on {model['dataset']}"
    return f"{model['learner']} on {model['backbone']}, {trained} (fingerprint {model['fingerprint'][:12]})"
