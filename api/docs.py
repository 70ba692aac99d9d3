"""The documentation routes: the OpenAPI document, and a page of it that loads nothing from elsewhere."""

from __future__ import annotations

import functools
import json
import secrets
from collections.abc import Iterator
from typing import Any

from flask import Response, render_template

from api.headers import NOTHING
from api.openapi import Schema, openapi_document
from api.routes import Answer, Call, NoQuery, Route
from jobs.errors import REQUEST_STATUS, ItemCode

TRANSIENT = ("storage_unavailable", "database_unavailable", "broker_unavailable")


def documented(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """Return the routes and two more that document all of them."""

    @functools.cache
    def document() -> Schema:
        return openapi_document(whole)

    def read_openapi(_call: Call[NoQuery]) -> Response:
        """Return this interface as an OpenAPI 3.1 document."""
        response = Response(json.dumps(document(), indent=1) + "\n", content_type="application/json")
        response.headers["Cache-Control"] = "no-cache"
        return response

    def read_docs(_call: Call[NoQuery]) -> Response:
        """Show this interface as a page."""
        nonce = secrets.token_urlsafe(16)
        page = render_template("docs.html", nonce=nonce, **reference(document()))
        response = Response(page, content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = f"{NOTHING}; style-src 'nonce-{nonce}'; img-src 'self'"
        return response

    html = Answer(200, "The page.", media_types=("text/html",))
    whole = (
        *routes,
        Route(
            "GET",
            "/openapi.json",
            read_openapi,
            "The OpenAPI document",
            (Answer(200, "The document.", media_types=("application/json",)),),
            keyless=True,
            tag="service",
            scope=None,
        ),
        Route("GET", "/docs", read_docs, "Documentation", (html,), keyless=True, tag="service", scope=None),
    )
    return whole


def reference(document: Schema) -> dict[str, Any]:
    """Return what a page of the reference shows: calls by group, types, codes."""
    return {
        "info": document["info"],
        "groups": _groups(document),
        "schemas": [_schema(name, schema) for name, schema in document["components"]["schemas"].items()],
        "request_codes": {code: int(status) for code, status in REQUEST_STATUS.items()}
        | dict.fromkeys(TRANSIENT, 503),
        "item_codes": [code.value for code in ItemCode],
    }


def _groups(document: Schema) -> dict[str, list[Schema]]:
    groups: dict[str, list[Schema]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            shown = operation | {"path": path, "method": method.upper()}
            shown["parameters"] = [_parameter(parameter) for parameter in operation["parameters"]]
            shown["takes"] = dict(_contents(operation.get("requestBody", {})))
            shown["answers"] = [
                {"status": status, "description": response["description"], "gives": dict(_contents(response))}
                for status, response in operation["responses"].items()
            ]
            groups[operation["tags"][0]].append(shown)
    return groups


def _parameter(parameter: Schema) -> Schema:
    return parameter | {"type": type_text(parameter["schema"])}


def _contents(holder: Schema) -> Iterator[tuple[str, str]]:
    for media_type, content in holder.get("content", {}).items():
        yield media_type, type_text(content["schema"])


def _schema(name: str, schema: Schema) -> Schema:
    required = set(schema.get("required", ()))
    fields = [
        {"name": field, "type": type_text(kind), "required": field in required, **_described(kind)}
        for field, kind in schema.get("properties", {}).items()
    ]
    type_ = "" if fields else type_text(schema)
    return {"name": name, "fields": fields, "type": type_, **_described(schema)}


def _described(schema: Schema) -> Schema:
    return {"description": schema.get("description", "")}


def type_text(schema: Schema) -> str:
    """Return a short text for a JSON schema, such as ``array of Item`` or ``integer 1 to 5``."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(type_text(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"“{value}”" for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if schema.get("type") == "array":
        return f"array of {type_text(schema.get('items', {}))}"
    if "properties" in schema:
        inner = ", ".join(f"{name}: {type_text(kind)}" for name, kind in schema["properties"].items())
        return f"parts {inner}"
    return f"{schema.get('type', 'bytes')}{_range(schema)}"


def _range(schema: Schema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" {schema['minimum']} to {schema['maximum']}"
    return f" of at most {schema['maxLength']} characters" if "maxLength" in schema else ""
