# SPDX-License-Identifier: Apache-2.0
"""Classifiers by names: learned once from pictures in classes, kept, and asked for the class of others."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from tf_lwdgh.server import forms, pictures
from tf_lwdgh.server.classifiers import Kept
from tf_lwdgh.server.limits import Limits
from tf_lwdgh.server.refusals import Refused
from tf_lwdgh.server.service import Service
from tf_lwdgh.server.tensorflow_serving import JSON, call
from tf_lwdgh.server.work import Timing
from tf_lwdgh.serving.loaded import Loaded

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LONGEST = 100  # characters of a class's name
_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}
_SUPPORT = {
    "requestBody": {
        "required": True,
        "content": {
            forms.FORM: {
                "schema": {
                    "type": "object",
                    "description": "Image files; the name of each field is the name of its class.",
                    "additionalProperties": _FILES,
                }
            }
        },
    }
}
_QUERIES = {
    "requestBody": {
        "required": True,
        "content": {
            forms.FORM: {"schema": {"type": "object", "additionalProperties": _FILES}},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def router(service: Service) -> APIRouter:
    """The routes below /v1/classifiers."""
    routes = APIRouter(prefix="/v1/classifiers", tags=["Classifiers"])

    @routes.get("", summary="Every kept classifier")
    async def listed() -> dict[str, Any]:
        return {"classifiers": [_told(kept) for kept in service.store.all()]}

    @routes.get("/{name}", summary="A kept classifier")
    async def one(name: str) -> dict[str, Any]:
        return _told(service.store.get(name))

    @routes.delete("/{name}", summary="Let a classifier go")
    async def remove(name: str) -> dict[str, Any]:
        service.store.remove(name)
        return {"removed": name}

    @routes.put("/{name}", summary="Learn a classifier, and keep it", openapi_extra=_SUPPORT)
    async def learn(name: str, request: Request) -> dict[str, Any]:
        if not _NAME.fullmatch(name):
            raise Refused(
                400, "a classifier's name must be 1 to 100 letters, digits, '.', '_' and '-', and begin "
                f"with a letter or digit. Received: {name[:120]!r}.",
            )  # fmt: skip
        version, loaded = service.models.version()
        timing, kind = request.state.timing, request.headers.get("content-type", "")

        def job() -> Kept:
            parts = forms.parse(kind, body, service.limits.max_images)
            return _learn(name, version, loaded, parts, service.limits, timing)

        async with service.bodies.read(request) as body:
            kept = await service.work.run(job, timing)
        return {**_told(kept), "evicted": service.store.put(kept)}

    @routes.post("/{name}:predict", summary="The class of each picture", openapi_extra=_QUERIES)
    async def predict(name: str, request: Request) -> Response:
        kept = service.store.get(name)
        _, loaded = service.models.version(kept.version)
        timing, kind = request.state.timing, request.headers.get("content-type", "")

        def job() -> bytes:
            queries = _queries(kind, body, service.limits)
            return _predict(kept, loaded, queries, service.limits, timing)

        async with service.bodies.read(request) as body:
            answer = await service.work.run(job, timing)
        return Response(answer, media_type=JSON)

    return routes


def _told(kept: Kept) -> dict[str, Any]:
    """What is told of a kept classifier."""
    learned = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(kept.learned_at))
    return {
        "name": kept.name,
        "classes": list(kept.classes),
        "images": dict(zip(kept.classes, kept.n_images, strict=True)),
        "bytes": kept.n_bytes,
        "model_version": str(kept.version),
        "learned_at": learned,
    }


def _learn(name: str, version: int, loaded: Loaded, parts: list[forms.Part], limits: Limits, timing: Timing) -> Kept:
    """Learns from the files of a form."""
    by_class: dict[str, list[bytes]] = {}
    for part in parts:
        if part.file is None:
            raise Refused(400, f"every field must be an image file. Received: text in {part.field!r}.")
        by_class.setdefault(_class_name(part.field), []).append(part.content)
    most = loaded.metadata["largest_n_way"]
    if len(by_class) < 2:
        raise Refused(400, f"there must be at least 2 classes. Received: {len(by_class)}.")
    if most is not None and len(by_class) > most:
        raise Refused(400, f"the model tells at most {most} classes apart. Received: {len(by_class)}.")
    pictures.check(((f"{p.field}: {p.file}", p.content) for p in parts), limits)
    images = [content for contents in by_class.values() for content in contents]
    counts = tuple(map(len, by_class.values()))
    inputs = {
        "support_images_bytes": _objects(images),
        "support_labels": np.repeat(np.arange(len(counts), dtype=np.int32), counts),
    }
    tensors = call(loaded.signatures["adapt_bytes"], inputs, timing)
    return Kept(name, tuple(by_class), counts, tensors, version, time.time())


def _class_name(field: str) -> str:
    name = field.strip()
    if not name or len(name) > _LONGEST or not name.isprintable():
        raise Refused(
            400, f"a class's name must be 1 to {_LONGEST} characters that can be printed. "
            f"Received: {field[:120]!r}.",
        )  # fmt: skip
    return name


def _queries(kind: str, body: bytes, limits: Limits) -> list[tuple[str, bytes]]:
    """The pictures of a request with what each is called: files of a form, or the body itself."""
    if not kind.lower().startswith("multipart/"):
        return [("body", body)]
    parts = forms.parse(kind, body, limits.max_images)
    found = [(p.file, p.content) for p in parts if p.file is not None]
    if not found:
        raise Refused(400, "there must be at least one image file.")
    return found


def _predict(kept: Kept, loaded: Loaded, queries: list[tuple[str, bytes]], limits: Limits, timing: Timing) -> bytes:
    """The answer to pictures, as JSON."""
    pictures.check(queries, limits)
    inputs = {**kept.tensors, "query_images_bytes": _objects([content for _, content in queries])}
    found = call(loaded.signatures["predict_bytes"], inputs, timing)
    answers = [
        {
            "file": file,
            "class": kept.classes[label],
            "probabilities": dict(zip(kept.classes, shares, strict=True)),
        }
        for (file, _), label, shares in zip(
            queries, found["labels"].tolist(), found["probabilities"].tolist(), strict=True
        )
    ]
    return json.dumps({"classifier": kept.name, "predictions": answers}, allow_nan=False).encode()


def _objects(contents: list[bytes]) -> np.ndarray:
    """Bytes as NumPy holds them whole: an array of its own bytes loses the zeros at their end."""
    array = np.empty(len(contents), object)
    array[:] = contents
    return array
