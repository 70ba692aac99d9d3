"""The OpenAPI 3.1 document, made of the route declarations and the types that validate and answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.auth import SESSION_COOKIE
from api.problems import PROBLEM_TYPE
from api.routes import Answer, Media, NoQuery, Route
from jobs.errors import REQUEST_STATUS
from jobs.records import Problem

Schema = dict[str, Any]
Mode = Literal["validation", "serialization"]

REFERENCE = "#/components/schemas/{model}"
EVERYWHERE = ("invalid_request", "internal_error")
AWAY = ("storage_unavailable", "database_unavailable", "broker_unavailable")
HEADERS = {
    "Idempotency-Key": "Repeat a request under its key and the job is made only once; kept for 24 hours.",
    "Last-Event-ID": "The id of the last event you have; browsers send it by themselves.",
    "If-None-Match": "The ETag of what you have: 304 if it is still the same.",
}
_PATH_SCHEMAS: dict[str, Schema] = {
    "job_id": {"type": "string"},
    "position": {"type": "integer", "minimum": 0},
    "upload_id": {"type": "string"},
    "delivery_id": {"type": "string"},
    "key_id": {"type": "string"},
}
_JSON = ("application/json", "application/x-ndjson")


def openapi_document(routes: Iterable[Route]) -> Schema:
    """Return the document of these routes."""
    routes = tuple(routes)
    definitions = _definitions(routes)
    queries = {route.query.__name__ for route in routes}
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, definitions)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Captionfleet",
            "version": version("captionfleet"),
            "summary": "Captions image collections of any size, asynchronously.",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in definitions.items() if name not in queries},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE},
            },
        },
    }


def _definitions(routes: Iterable[Route]) -> dict[str, Schema]:
    """Return the schemas of every type that some route takes or gives, by name."""
    wanted: dict[tuple[type[BaseModel], Mode], None] = {(Problem, "serialization"): None}
    for route in routes:
        wanted |= {(answer.body, "serialization"): None for answer in route.answers if answer.body}
        wanted |= {(media.body, "validation"): None for media in route.takes if media.body}
        wanted |= {(part, "validation"): None for media in route.takes for part in media.parts}
        wanted[route.query, "validation"] = None
    _, schemas = models_json_schema(list(wanted), ref_template=REFERENCE)
    definitions: dict[str, Schema] = schemas["$defs"]
    return definitions


def _operation(route: Route, definitions: dict[str, Schema]) -> Schema:
    operation: Schema = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": route.summary,
        "description": _description(route),
        "parameters": _parameters(route, definitions),
        "responses": _responses(route),
        "security": _security(route),
    }
    if route.takes:
        content = {media.media_type: {"schema": _taken(media)} for media in route.takes}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _description(route: Route) -> str:
    text = (route.handler.__doc__ or "").strip()
    return f"{text}\n\nNeeds a key with the scope `{route.scope}`." if route.scope else text


def _security(route: Route) -> list[Schema]:
    """Return the ways to be let in; without keys in embedded mode on this machine alone."""
    roles = [route.scope.value] if route.scope else []
    return [] if route.keyless else [{"key": roles}, {"session": roles}, {}]


def _parameters(route: Route, definitions: dict[str, Schema]) -> list[Schema]:
    parameters: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": _PATH_SCHEMAS[name]}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    if route.query is not NoQuery:
        for name, schema in definitions[route.query.__name__]["properties"].items():
            described = {"description": schema["description"]} if "description" in schema else {}
            parameters.append({"name": name, "in": "query", "schema": schema, **described})
    parameters += [
        {"name": name, "in": "header", "schema": {"type": "string"}, "description": HEADERS[name]}
        for name in route.headers
    ]
    return parameters


def _taken(media: Media) -> Schema:
    return media.schema or _reference(media.body)


def _responses(route: Route) -> dict[str, Schema]:
    responses = {str(answer.status): _answer(answer) for answer in route.answers}
    for status, codes in _refusals(route).items():
        response = responses.setdefault(str(status), {"description": ", ".join(codes)})
        response.setdefault("content", {})[PROBLEM_TYPE] = {"schema": _reference(Problem)}
    responses["default"] = {
        "description": "Any other refusal.",
        "content": {PROBLEM_TYPE: {"schema": _reference(Problem)}},
    }
    return responses


def _answer(answer: Answer) -> Schema:
    described: Schema = {"description": answer.description}
    if answer.headers:
        described["headers"] = {name: {"schema": {"type": "string"}} for name in answer.headers}
    if answer.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.FOUND, HTTPStatus.NOT_MODIFIED):
        kinds = (kind.partition(";")[0] for kind in answer.media_types)
        described["content"] = {kind: {"schema": _given(kind, answer.body)} for kind in kinds}
    return described


def _given(media_type: str, body: type[BaseModel] | None) -> Schema:
    if body is not None and media_type in _JSON:
        return _reference(body)
    return {"type": "string"} if media_type.startswith("text/") else {}


def _refusals(route: Route) -> dict[int, list[str]]:
    """Return the codes a route may refuse with, by status."""
    codes = [*route.refusals, *EVERYWHERE]
    if not route.keyless:
        codes += ["unauthorized", "forbidden", *AWAY]
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        status = HTTPStatus.SERVICE_UNAVAILABLE if code in AWAY else REQUEST_STATUS[code]
        by_status.setdefault(int(status), []).append(code)
    return by_status


def _reference(model: type[BaseModel] | None) -> Schema:
    assert model is not None, "a body without a schema"
    return {"$ref": REFERENCE.format(model=model.__name__)}
