"""JSON into records: fields that are new are left in ``raw``, fields that are missing are an error."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from captionfleet_client.errors import UnexpectedAnswer
from captionfleet_client.records import Record

R = TypeVar("R", bound=Record)
Reader = Callable[[Any], Any]


def read(kind: type[R], value: Any) -> R:
    """Return a record of ``kind``; raise ``UnexpectedAnswer`` where the JSON is not one."""
    try:
        # mypy takes the hash of a class for that of its instances.
        given = {name: reader(value.get(name)) for name, reader in _readers(kind)}  # type: ignore[arg-type]
    except (AttributeError, TypeError, ValueError) as error:
        raise UnexpectedAnswer(f"the server's answer is no {kind.__name__.lower()}: {error}") from error
    return kind(**given, raw=value)


@functools.cache
def _readers(kind: type[Record]) -> list[tuple[str, Reader]]:
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if field.name != "raw"]
    return [(name, _reader(hints[name], name)) for name in names]


def _reader(hint: Any, name: str) -> Reader:
    if get_origin(hint) is types.UnionType:
        inner = _reader(next(kind for kind in get_args(hint) if kind is not types.NoneType), name)
        return lambda value: None if value is None else inner(value)
    present = functools.partial(_present, name)
    if isinstance(hint, type) and issubclass(hint, Record):
        return lambda value: read(hint, present(value))
    if get_origin(hint) is list:
        inner = _reader(get_args(hint)[0], name)
        return lambda value: [inner(entry) for entry in present(value)]
    if hint is datetime:
        return lambda value: datetime.fromisoformat(present(value))
    return present


def _present(name: str, value: Any) -> Any:
    if value is None:
        raise ValueError(f"it has no {name}")
    return value
