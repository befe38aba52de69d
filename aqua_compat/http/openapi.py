"""The native API's description, OpenAPI 3.1, made from its table of operations."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec

from aqua_compat.http.json_shape import STRING, array_of, object_of
from aqua_compat.http.message import JSON, AccessLevel
from aqua_compat.http.native_operations import OPERATIONS
from aqua_compat.http.operations import HttpOperation, Parameter
from aqua_compat.http.problems import MEDIA_TYPE


@cache
def description() -> bytes:
    """The description in JSON."""
    paths: dict[str, dict[str, Any]] = {}
    bodies = [each.body for each in OPERATIONS if each.body is not None]
    _, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    schemas: dict[str, Any] = {**components, "Problem": _PROBLEM}
    for operation in OPERATIONS:
        schemas.setdefault(operation.result, operation.shape)
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "aqua-registry", "version": version("aqua-registry"), "summary": "A node's own API"},
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{}, {"bearer": []}],
        }
    )


def _described(operation: HttpOperation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.about,
        "parameters": [_parameter(each) for each in operation.parameters],
        "responses": {
            str(operation.status): {
                "description": "It is done." if operation.grant is not AccessLevel.READ else operation.about,
                "content": {operation.media_type: {"schema": _answer(operation)}},
            },
            "default": {
                "description": "It failed.",
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
        "x-grant": operation.grant.name.lower(),
    }
    if operation.command:
        described["x-command"] = f"aqua-registry {operation.command}"
    if operation.body is not None:
        reference = {"$ref": f"#/components/schemas/{operation.body.__name__}"}
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": reference}}}
    return described


def _answer(operation: HttpOperation) -> dict[str, Any]:
    result = {"$ref": f"#/components/schemas/{operation.result}"}
    if operation.is_bare or operation.shape is STRING:
        return result
    if operation.media_type != JSON:  # of each event's data
        return object_of(
            {"schema": {"const": operation.schema_id}, "exists": {"const": False}, "result": result},
            optional=("exists",),
        )
    return object_of({"schema": {"const": operation.schema_id}, "result": result, "warnings": array_of(STRING)})


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema = array_of(parameter.schema) if parameter.repeats else parameter.schema
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.about,
        "required": parameter.is_required,
        "schema": schema,
    }


_PROBLEM = {
    "type": "object",
    "description": "RFC 9457; `code` is one of the registry's, or of HTTP's own",
    "properties": {
        "type": STRING,
        "title": STRING,
        "status": {"type": "integer"},
        "detail": STRING,
        "code": STRING,
        "kind": {"enum": ["final", "asked", "clock", "disk", "load", "network", "unknown"]},
        "errors": array_of(STRING),
        "stored": {"type": "integer"},
    },
    "required": ["type", "title", "status", "detail", "code", "kind"],
}
