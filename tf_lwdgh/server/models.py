# SPDX-License-Identifier: Apache-2.0
"""The model that is served, in one version or several: found at once, loaded and warmed up later."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping

import numpy as np
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2

from tf_lwdgh.server.refusals import Refused
from tf_lwdgh.serving import warmup
from tf_lwdgh.serving.functions import IMAGES, TASKS
from tf_lwdgh.serving.loaded import NUMBER, Loaded, load, versions
from tf_lwdgh.serving.signatures import Signature

LOADING, AVAILABLE, END = "LOADING", "AVAILABLE", "END"
_FILE = "saved_model.pb"
_log = logging.getLogger(__name__)


class Models:
    """The versions of a model; all are loaded, the highest is asked unless another is named.

    Attributes:
      name: the model's, in addresses.
      versions: the folder of each version by its number.
      state: LOADING, AVAILABLE once all versions are warm, or END where one could not be loaded.

    Args:
      path: a folder that tf_lwdgh.export wrote, or one of numbered versions.
      name: of the model; None: the folder's.

    Raises:
      FileNotFoundError: there is no export.
    """

    def __init__(self, path: str, name: str | None = None) -> None:
        whole = os.path.abspath(path)
        if os.path.exists(os.path.join(whole, _FILE)):
            folder, number = os.path.split(whole)
            numbered = re.fullmatch(NUMBER, number) is not None
            self.versions = {int(number) if numbered else 1: whole}
            self.name = name or os.path.basename(folder if numbered else whole)
        else:
            there = {n: os.path.join(whole, str(n)) for n in versions(whole)}
            self.versions = {n: p for n, p in there.items() if os.path.exists(os.path.join(p, _FILE))}
            self.name = name or os.path.basename(whole)
        if not self.versions:
            raise FileNotFoundError(
                "--model must be a folder that tf_lwdgh.export wrote, or one of numbered versions. "
                f"Received: --model={path!r}."
            )
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"--name must consist of letters, digits, '.', '_' and '-'. Received: {self.name!r}.")
        self.state = LOADING
        self._loaded: dict[int, Loaded] = {}

    def load(self) -> None:
        """Loads and warms up every version.

        Raises:
          Exception: whatever keeps one from being loaded; the state is END then.
        """
        start = time.perf_counter()
        try:
            for number, path in sorted(self.versions.items()):
                loaded = load(path)
                warm_up(loaded)
                self._loaded[number] = loaded
        except BaseException:
            self.state = END
            raise
        self.state = AVAILABLE
        seconds = time.perf_counter() - start
        _log.info("%s: %d version(s) warm after %.1f s", self.name, len(self.versions), seconds)

    def version(self, number: int | None = None) -> tuple[int, Loaded]:
        """A version's number and the model; None: of the highest.

        Raises:
          Refused: there is no such version (404), or it is not ready (503).
        """
        number = max(self.versions) if number is None else number
        if number not in self.versions:
            raise Refused(404, f"{self.name} has no version {number}; it has {self._numbers()}.")
        if self.state != AVAILABLE:
            raise Refused(503, "the model is being loaded; try again.")
        return number, self._loaded[number]

    def check_name(self, name: str) -> None:
        """Raises Refused (404) where a model is not this one."""
        if name != self.name:
            raise Refused(404, f"there is no model {name!r}; this server has {self.name!r}.")

    def signature_definitions(self, number: int | None) -> tuple[int, dict[str, object]]:
        """A version's number, and its signatures as JSON values of protobuf's form."""
        number, _ = self.version(number)
        with open(os.path.join(self.versions[number], _FILE), "rb") as file:
            saved = saved_model_pb2.SavedModel.FromString(file.read())
        definitions = saved.meta_graphs[0].signature_def
        found = {
            name: json_format.MessageToDict(
                definition,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name, definition in sorted(definitions.items())
        }
        return number, found

    def _numbers(self) -> str:
        return ", ".join(map(str, sorted(self.versions)))


def warm_up(loaded: Loaded) -> None:
    """Runs every signature once, on a support set of noise with one image a way and one query.

    A model that fails on noise is served cold; the log says so.
    """
    image, signatures = loaded.metadata["image"], loaded.signatures
    shape = (image["image_size"], image["image_size"], image["channels"])
    try:
        ways = loaded.metadata["trained_n_way"]
        whole = dict(warmup.requests(lambda name, x: signatures[name](x), shape, ways))
        for name, inputs in whole.items():
            of_many = _of_many(name)
            if of_many in signatures:
                signatures[of_many]({n: _batch_of_one(x) for n, x in inputs.items()})
        signatures["serving_default"](whole["adapt_and_predict"])
        signatures["predict_unchecked"](_kept_in(signatures["predict_unchecked"], whole["predict_float"]))
        signatures["metadata"]({})
    except ValueError as error:
        _log.warning("the model is not warm, since it fails on noise: %s", error)


def _of_many(name: str) -> str:
    """The name of a signature's counterpart for a batch of tasks."""
    kind = next((k for k in IMAGES if k and name.endswith(k)), "")
    return name.removesuffix(kind) + TASKS + kind


def _batch_of_one(value: np.ndarray) -> np.ndarray:
    return np.asarray(value)[None]


def _kept_in(signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of these inputs those that a signature takes: a converter's graph has no tensor that it does not use."""
    return {name: inputs[name] for name in signature.inputs}
