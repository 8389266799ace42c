"""OpenAPI 3.1, made of the very table and types that routes, validation and answers are made of."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from starlette.responses import Response

from api.context import ApiContext
from api.decoding import properties
from api.endpoint import JSON, Endpoint, OpenEndpoint
from api.errors import PROBLEM_JSON, STATUSES
from api.schema import DeviceId, Id, Problem, UserId

_SCHEMA_REF: Final = "#/components/schemas/{name}"
_EVERYWHERE: Final = ("unauthenticated", "token_expired", "invalid", "rate_limited", "internal", "unavailable")
_WITH_BODY: Final = ("too_large", "unsupported_media_type")

_DESCRIPTION: Final = """\
Conversations that are durable, ordered and pushed. Push itself is at `/v1/ws` (WebSocket) and `/v1/stream` (SSE).

64-bit ids are decimal strings; times are RFC 3339 UTC with milliseconds. Unknown and duplicate names, in bodies
and in queries, are refused by name. What one may not know of answers `not_found`.
Errors are RFC 9457 problems; `code` is a stable word, and `retryable` says whether the same may succeed later.
"""

_PATH_PARAMETERS: Final = {"conversation_id": Id, "user_id": UserId, "device_id": DeviceId}


def openapi_endpoint(endpoints: Sequence[Endpoint | OpenEndpoint]) -> OpenEndpoint:
    """`/openapi.json` for these endpoints and itself."""
    encoded: bytes | None = None

    async def respond(context: ApiContext) -> Response:
        nonlocal encoded
        encoded = encoded or msgspec.json.encode(document([*endpoints, endpoint], context.versions["riverrun"]))
        return Response(encoded, media_type=JSON)

    endpoint = OpenEndpoint("/openapi.json", respond, "This document.", {200: (dict[str, Any], "OpenAPI 3.1.")})
    return endpoint


def document(endpoints: Iterable[Endpoint | OpenEndpoint], version: str) -> dict[str, Any]:
    """The OpenAPI document of these endpoints."""
    endpoints = list(endpoints)
    types = {type_ for endpoint in endpoints for type_ in _types(endpoint)}
    ordered = [Problem, *sorted(types - {Problem}, key=str)]
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_SCHEMA_REF)
    schema_of = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operation = _operation(endpoint, schema_of)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Riverrun",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _types(endpoint: Endpoint | OpenEndpoint) -> list[Any]:
    types = [type_ for type_, _ in endpoint.answers.values()]
    return [*types, endpoint.body] if isinstance(endpoint, Endpoint) and endpoint.body else types


def _operation(endpoint: Endpoint | OpenEndpoint, schema_of: dict[Any, Any]) -> dict[str, Any]:
    responses = {
        str(status): {
            "description": meaning,
            "content": {media_type: {"schema": schema_of[type_]} for media_type in _media_types(type_, endpoint)},
        }
        for status, (type_, meaning) in endpoint.answers.items()
    }
    if isinstance(endpoint, OpenEndpoint):
        name = endpoint.path.strip("/").partition(".")[0]
        return {"operationId": name, "summary": endpoint.summary, "security": [], "responses": responses}
    codes = [*_EVERYWHERE, *(_WITH_BODY if endpoint.body else ("too_large",)), *endpoint.errors]
    operation: dict[str, Any] = {
        "operationId": endpoint.handler.__name__,
        "summary": endpoint.summary,
        "security": [{"bearer": []}],
        "parameters": _parameters(endpoint),
        "responses": {**responses, **_problems(codes, schema_of[Problem])},
    }
    if endpoint.body:
        media: dict[str, Any] = {"schema": schema_of[endpoint.body]}
        if endpoint.example is not None:
            media["example"] = endpoint.example
        operation["requestBody"] = {"required": True, "content": {JSON: media}}
    return operation


def _media_types(type_: Any, endpoint: Endpoint | OpenEndpoint) -> Sequence[str]:
    if isinstance(endpoint, Endpoint):
        return endpoint.forms or [endpoint.media_type]
    if type_ is str:
        return ["text/plain"]
    return [PROBLEM_JSON if type_ is Problem else JSON]


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": msgspec.json.schema(type_)}
        for name, type_ in _PATH_PARAMETERS.items()
        if f"{{{name}}}" in endpoint.path
    ]
    if endpoint.query:
        for name, schema in properties(endpoint.query).items():
            # In a query there is no null: a parameter that may be absent is simply not required.
            choices = [choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null"]
            parameters.append({"name": name, "in": "query", "schema": choices[0]})
    return parameters


def _problems(codes: Iterable[str], schema: Any) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(STATUSES[code][0], []).append(code)
    return {
        str(status): {
            "description": " or ".join(f"`{code}`: {STATUSES[code][1].lower()}" for code in same) + ".",
            "content": {PROBLEM_JSON: {"schema": schema}},
        }
        for status, same in sorted(by_status.items())
    }
