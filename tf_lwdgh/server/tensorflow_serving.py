# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Serving's REST contract: the model's state, its signatures, and every signature by :predict.

Requests are in the columnar form, `inputs`. The row form, `instances`, has one row an example; support
set and queries differ in length, and rows of several callers joined would be one support set.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import APIRouter, Request, Response

from tf_lwdgh.server.bodies import parse_json
from tf_lwdgh.server.limits import Limits
from tf_lwdgh.server.models import AVAILABLE, END, LOADING
from tf_lwdgh.server.refusals import Refused
from tf_lwdgh.server.service import Service
from tf_lwdgh.server.tensors import to_arrays, to_json
from tf_lwdgh.server.work import Timing
from tf_lwdgh.serving.loaded import Loaded
from tf_lwdgh.serving.signatures import Signature

JSON = "application/json"
DEFAULT = "serving_default"
_KNOWN = {"signature_name", "inputs"}
_ROWS = (
    "instances, the row form, is not taken: support set and queries differ in length, and joined rows "
    "would mix the support sets of several callers. Give inputs, the columnar form."
)
_ERRORS = {LOADING: ("OK", ""), AVAILABLE: ("OK", ""), END: ("UNKNOWN", "it could not be loaded")}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "signature_name": {"type": "string", "default": DEFAULT},
                        "inputs": {
                            "type": "object",
                            "description": "A value a name: numbers in nested lists; encoded images, of "
                            'names that end in _bytes, as {"b64": "…"}.',
                        },
                    },
                }
            }
        },
    }
}


def router(service: Service) -> APIRouter:
    """The routes below /v1/models."""
    routes = APIRouter(prefix="/v1/models", tags=["TensorFlow Serving"])
    of_model, of_version = "/{model}", "/{model}/versions/{version}"

    @routes.get(of_model, summary="The state of each version")
    async def status(model: str) -> dict[str, Any]:
        service.models.check_name(model)
        return _status(service, sorted(service.models.versions, reverse=True))

    @routes.get(of_version, summary="The state of a version")
    async def status_of(model: str, version: str) -> dict[str, Any]:
        return _status(service, [_number(service, model, version)])

    @routes.get(of_model + "/metadata", summary="The signatures")
    async def metadata(model: str) -> dict[str, Any]:
        service.models.check_name(model)
        return await _metadata(service, None)

    @routes.get(of_version + "/metadata", summary="The signatures of a version")
    async def metadata_of(model: str, version: str) -> dict[str, Any]:
        return await _metadata(service, _number(service, model, version))

    @routes.post(of_model + ":predict", summary="Ask a signature", openapi_extra=_BODY)
    async def predict(model: str, request: Request) -> Response:
        service.models.check_name(model)
        return await _predict(service, request, None)

    @routes.post(of_version + ":predict", summary="Ask a signature of a version", openapi_extra=_BODY)
    async def predict_of(model: str, version: str, request: Request) -> Response:
        return await _predict(service, request, _number(service, model, version))

    return routes


def _number(service: Service, model: str, version: str) -> int:
    """The number of a version that is there."""
    service.models.check_name(model)
    number = int(version) if version.isascii() and version.isdigit() and len(version) < 20 else -1
    if number not in service.models.versions:
        there = ", ".join(map(str, sorted(service.models.versions)))
        raise Refused(404, f"{model} has no version {version!r}; it has {there}.")
    return number


def _status(service: Service, numbers: list[int]) -> dict[str, Any]:
    state = service.models.state
    code, message = _ERRORS[state]
    told = {"error_code": code, "error_message": message}
    return {"model_version_status": [{"version": str(number), "state": state, "status": told} for number in numbers]}


async def _metadata(service: Service, version: int | None) -> dict[str, Any]:
    number, found = await asyncio.to_thread(service.models.signature_definitions, version)
    return {
        "model_spec": {"name": service.models.name, "signature_name": "", "version": str(number)},
        "metadata": {"signature_def": {"signature_def": found}},
    }


async def _predict(service: Service, request: Request, version: int | None) -> Response:
    _, loaded = service.models.version(version)
    timing: Timing = request.state.timing
    async with service.bodies.read(request) as body:
        answer = await service.work.run(lambda: _answer(loaded, body, service.limits, timing), timing)
    return Response(answer, media_type=JSON)


def _answer(loaded: Loaded, body: bytes, limits: Limits, timing: Timing) -> bytes:
    """The answer to a body, as JSON."""
    asked = parse_json(body)
    signature = _signature(loaded, asked)
    arrays = to_arrays(signature, asked["inputs"] if signature.inputs else {}, limits)
    outputs = call(signature, arrays, timing)
    return json.dumps({"outputs": to_json(outputs)}, allow_nan=False).encode()


def call(signature: Signature, inputs: dict[str, Any], timing: Timing) -> dict[str, Any]:
    """What a signature gives.

    Raises:
      Refused: the model refuses the inputs (400), in its own words.
    """
    with timing.of_model():
        try:
            return signature(inputs)
        except ValueError as error:
            raise Refused(400, str(error)) from error


def _signature(loaded: Loaded, asked: Any) -> Signature:
    """The signature that is asked, once the request has the right form."""
    if not isinstance(asked, dict):
        raise Refused(400, "the body must be a JSON object with inputs.")
    if "instances" in asked:
        raise Refused(400, _ROWS)
    unknown = sorted(set(asked) - _KNOWN)
    if unknown:
        raise Refused(400, f"the body must have signature_name and inputs. Received: {unknown[0][:100]!r}.")
    name = asked.get("signature_name", DEFAULT)
    if not isinstance(name, str) or name not in loaded.signatures:
        there = ", ".join(sorted(loaded.signatures))
        raise Refused(400, f"signature_name must be one of {there}. Received: {str(name)[:100]!r}.")
    signature = loaded.signatures[name]
    if signature.inputs and "inputs" not in asked:
        raise Refused(400, "inputs is missing.")
    return signature
