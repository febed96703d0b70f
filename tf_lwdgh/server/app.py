# SPDX-License-Identifier: Apache-2.0
"""The server as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

import tf_lwdgh
from tf_lwdgh.server import few_shot, site, tensorflow_serving
from tf_lwdgh.server.refusals import Refused
from tf_lwdgh.server.service import Service
from tf_lwdgh.server.watched import Watched

_EXPIRY = 30.0  # seconds between looks for classifiers that are too old
_PHRASES = {404: "there is no such address; /docs lists all.", 405: "this address has no such method."}


def application(service: Service) -> FastAPI:
    """The application of a service, which loads its model elsewhere."""

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        expiry = asyncio.create_task(_expire(service))
        yield
        expiry.cancel()
        service.work.close()

    app = FastAPI(
        title="tf_lwdgh",
        version=tf_lwdgh.__version__,
        description="Few-shot classifiers over HTTP.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Watched, service=service)
    app.add_exception_handler(Refused, _refused)
    for status in _PHRASES:
        app.add_exception_handler(status, _by_framework)
    for routes in (tensorflow_serving, few_shot, site):
        app.include_router(routes.router(service))
    return app


async def _expire(service: Service) -> None:
    while True:
        await asyncio.sleep(_EXPIRY)
        service.store.expire()


async def _refused(_: Request, refusal: Exception) -> JSONResponse:
    assert isinstance(refusal, Refused)
    return JSONResponse({"error": refusal.message}, refusal.status, refusal.headers)


async def _by_framework(_: Request, error: Any) -> JSONResponse:
    status = error.status_code
    return JSONResponse({"error": _PHRASES[status]}, status, getattr(error, "headers", None))
