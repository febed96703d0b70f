# SPDX-License-Identifier: Apache-2.0
"""Whether the server lives and is ready, its metrics, and its pages, which need nothing from elsewhere."""

from __future__ import annotations

import dataclasses
from importlib import resources
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from tf_lwdgh.server import metrics
from tf_lwdgh.server.refusals import Refused
from tf_lwdgh.server.service import Service

_PAGES = {"/": "index.html", "/docs": "docs.html"}
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_TOLD = (
    "learner", "backbone", "reference", "inner_steps", "batch_norm", "trained_n_way", "largest_n_way",
    "predictions_depend_on_the_other_queries", "most_queries_in_a_call", "image", "dataset", "step",
)  # fmt: skip


def router(service: Service) -> APIRouter:
    """The routes beside the model's."""
    routes = APIRouter(tags=["Server"])

    @routes.get("/healthz/live", summary="Whether the server lives")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @routes.get("/healthz/ready", summary="Whether it answers new requests")
    async def ready() -> Response:
        if service.ready:
            return JSONResponse({"status": "ready"})
        status = "draining" if service.draining else service.models.state.lower()
        return JSONResponse({"status": status}, 503, {"Retry-After": "1"})

    @routes.get("/metrics", summary="Metrics, for Prometheus")
    async def counted() -> Response:
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)

    @routes.get("/v1/about", summary="What is served, and the limits")
    async def about() -> dict[str, Any]:
        version, loaded = service.models.version()
        return {
            "model": {
                "name": service.models.name,
                "version": str(version),
                **{name: loaded.metadata.get(name) for name in _TOLD},
            },
            "limits": dataclasses.asdict(service.limits),
        }

    files = _files()

    @routes.get("/", include_in_schema=False)
    @routes.get("/docs", include_in_schema=False)
    async def page(request: Request) -> Response:
        return files[_PAGES[request.url.path]]()

    @routes.get("/page/{file}", include_in_schema=False)
    async def file_of_page(file: str) -> Response:
        if file not in files:
            raise Refused(404, "there is no such page.")
        return files[file]()

    return routes


def _files() -> dict[str, Any]:
    """What makes an answer of each file of the pages."""
    folder = resources.files("tf_lwdgh.server").joinpath("page")

    def maker(content: bytes, kind: str) -> Any:
        return lambda: Response(content, media_type=kind)

    return {
        entry.name: maker(entry.read_bytes(), _KINDS[entry.name[entry.name.rindex(".") :]])
        for entry in folder.iterdir()
        if entry.name.endswith(tuple(_KINDS))
    }
