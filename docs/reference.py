"""The API reference as Markdown, from the OpenAPI document and grouped like the page at ``/docs``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from api.app import ROUTES
from api.docs import reference
from api.openapi import openapi_document

_CODE = re.compile(r"(`[^`]*`)")


def api_reference() -> str:
    """Return calls, types and codes as sections of a page."""
    shown = reference(openapi_document(ROUTES))
    types = {schema["name"] for schema in shown["schemas"]}
    lines: list[str] = []
    for group, operations in shown["groups"].items():
        lines += [f"## {group.capitalize()}", ""]
        for operation in operations:
            lines += _operation(operation, types)
    lines += ["## Types", ""]
    for schema in shown["schemas"]:
        lines += _type(schema, types)
    lines += ["## Codes of refusals", ""]
    lines += _table(("Code", "Status"), [(f"`{c}`", str(s)) for c, s in shown["request_codes"].items()])
    lines += ["## Codes of failed images", "", ", ".join(f"`{code}`" for code in shown["item_codes"])]
    return "\n".join(lines) + "\n"


def _operation(operation: dict[str, Any], types: set[str]) -> Iterator[str]:
    yield f"### {operation['summary']} {{ #{operation['operationId']} }}"
    yield ""
    yield f"`{operation['method']} {operation['path']}`"
    yield ""
    yield from [_plain(line) for line in operation["description"].splitlines()]
    yield ""
    rows = [
        (f"{parameter['in']} `{parameter['name']}`", _linked(parameter["type"], types), _cell(parameter))
        for parameter in operation["parameters"]
    ]
    rows += [("body", _gives({media: type_}, types), "") for media, type_ in operation["takes"].items()]
    if rows:
        yield from _table(("Takes", "Type", "Meaning"), rows)
    answers = [
        (str(answer["status"]), _gives(answer["gives"], types), _cell(answer))
        for answer in operation["answers"]
    ]
    yield from _table(("Answers", "With", "Meaning"), answers)


def _type(schema: dict[str, Any], types: set[str]) -> Iterator[str]:
    yield f"### {schema['name']} {{ #{_anchor(schema['name'])} }}"
    yield ""
    yield f"{_cell(schema)} {_linked(schema['type'], types)}".strip()
    yield ""
    rows = [
        (f"`{field['name']}`{', always' * field['required']}", _linked(field["type"], types), _cell(field))
        for field in schema["fields"]
    ]
    if rows:
        yield from _table(("Field", "Type", "Meaning"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield _row(head)
    yield _row(["---"] * len(head))
    yield from map(_row, rows)
    yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _gives(contents: dict[str, str], types: set[str]) -> str:
    return "<br>".join(f"`{media}` {_linked(type_, types)}" for media, type_ in contents.items())


def _linked(type_: str, types: set[str]) -> str:
    def link(word: re.Match[str]) -> str:
        return f"[{word[0]}](#{_anchor(word[0])})" if word[0] in types else word[0]

    return re.sub(r"\w+", link, _plain(type_).replace("|", "\\|"))


def _anchor(name: str) -> str:
    return f"type-{name}"


def _cell(described: dict[str, Any]) -> str:
    text = " ".join((described.get("description") or "").split())
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """Return text with nothing in it that Markdown would take for markup, but code."""
    parts = _CODE.split(text)
    parts[::2] = [re.sub(r"([\\*_<\[\]])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)
