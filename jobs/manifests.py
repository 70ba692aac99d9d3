"""Manifests: lists of images, one a line, as NDJSON or CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator

import orjson
from pydantic import ValidationError

from jobs.errors import RequestError
from jobs.records import NAME_LENGTH, URI_LENGTH, ImageReference, Reference, S3Reference
from jobs.validation import invalid

LINE_BYTES = 16 * 1024
PLACES = ("s3_uri", "url", "upload_id")
COLUMNS = (*PLACES, "custom_id")


class Lines:
    """The lines of a stream as text; ``number`` is the present one's, ``offset`` where the next one begins.

    They may begin in the middle: behind ``offset`` bytes and ``number`` lines.
    """

    def __init__(self, read: Callable[[], bytes], number: int = 0, offset: int = 0) -> None:
        self._read = read
        self.number = number
        self.offset = offset

    def __iter__(self) -> Iterator[str]:
        rest = b""
        while block := self._read():
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                self.offset += len(line) + 1
                yield self._text(line)
            self._refuse_long(rest)
        if rest:
            self.offset += len(rest)
            yield self._text(rest)

    def _text(self, line: bytes) -> str:
        self.number += 1
        self._refuse_long(line)
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise RequestError("invalid_request", "not UTF-8") from error
        return text.removeprefix("\ufeff") if self.number == 1 else text

    def _refuse_long(self, line: bytes) -> None:
        if len(line) > LINE_BYTES:
            raise RequestError("invalid_request", f"longer than {LINE_BYTES} bytes")


def read_ndjson(lines: Iterable[str]) -> Iterator[Reference]:
    """Yield one reference a line; empty lines are passed over."""
    for line in lines:
        if plain := _plain(line):
            yield plain
        elif line.strip():
            try:
                yield ImageReference.model_validate_json(line)
            except ValidationError as error:
                raise invalid(error, "the image") from error


# As ``ImageReference`` has it; a part of the key that begins with a dot is left to it.
_PLAIN_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/(?!\.)[^\x00/]+(?:/(?!\.)[^\x00/]*)*")


def _plain(line: str) -> S3Reference | None:
    """Return what the commonest kind of line says; ``None`` for any line that needs a closer look."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if type(fields) is not dict:
        return None
    uri, custom_id = fields.pop("s3_uri", None), fields.pop("custom_id", None)
    if fields or type(uri) is not str or len(uri) > URI_LENGTH or not _PLAIN_URI.fullmatch(uri):
        return None
    if custom_id is None:
        return S3Reference(uri, None)
    if type(custom_id) is not str or not 0 < len(custom_id) <= NAME_LENGTH or "\0" in custom_id:
        return None
    return S3Reference(uri, custom_id)


def read_csv(lines: Iterable[str], columns: list[str] | None = None) -> Iterator[ImageReference]:
    """Yield one reference a row; without ``columns`` the first row names them."""
    rows = csv.reader((f"{line}\n" for line in lines), strict=True)
    try:
        for row in rows:
            if columns is None:
                columns = read_columns(row)
            elif row:
                yield _reference(columns, row)
    except csv.Error as error:
        raise RequestError("invalid_request", f"not valid CSV: {error}") from error


def read_columns(row: list[str]) -> list[str]:
    """Return the columns that a first row names: a place and, if wanted, ``custom_id``."""
    columns = [name.strip() for name in row]
    for name in columns:
        if name not in COLUMNS:
            raise RequestError("invalid_request", f"unknown column {name!r}: there are {', '.join(COLUMNS)}")
    if not set(PLACES) & set(columns) or len(set(columns)) != len(columns):
        message = f"the first row must name one of the columns {', '.join(PLACES)}, each column once"
        raise RequestError("invalid_request", message)
    return columns


def _reference(columns: list[str], row: list[str]) -> ImageReference:
    if len(row) != len(columns):
        raise RequestError("invalid_request", f"{len(row)} fields where there are {len(columns)} columns")
    given = {name: value for name, value in zip(columns, row, strict=True) if value}
    try:
        return ImageReference.model_validate(given)
    except ValidationError as error:
        raise invalid(error, "the image") from error
