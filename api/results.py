"""Results as streams: JSON lines, or CSV that spreadsheet programs can open without running anything."""

from __future__ import annotations

import csv
import errno
import io
import json
import logging
from collections.abc import Iterable, Iterator

from jobs.errors import CaptionfleetError
from jobs.records import Item

log = logging.getLogger(__name__)

COLUMNS = (
    "position",
    "custom_id",
    "name",
    "source",
    "status",
    "caption",
    "edited_caption",
    "score",
    "alternatives",
    "model",
    "width",
    "height",
    "sha256",
    "attempts",
    "error_code",
    "error_message",
    "finished_at",
)
# Spreadsheet programs take a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def whole_or_broken(pages: Iterable[list[Item]]) -> Iterator[list[Item]]:
    """Yield pages; one that cannot be had breaks the connection: a part must not look like the whole."""
    try:
        yield from pages
    except CaptionfleetError as error:
        log.warning("a download is broken off: %s", error)
        raise ConnectionResetError(errno.ECONNRESET, error.message) from error


def jsonl(pages: Iterable[list[Item]]) -> Iterator[bytes]:
    """Yield one JSON object a line for each item."""
    for items in pages:
        yield "".join(f"{item.model_dump_json()}\n" for item in items).encode()


def comma_separated(pages: Iterable[list[Item]]) -> Iterator[bytes]:
    """Yield RFC 4180 rows under a header row."""
    yield _rows([COLUMNS])
    for items in pages:
        yield _rows(_row(item) for item in items)


def _rows(rows: Iterable[Iterable[object]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode()


def _row(item: Item) -> list[object]:
    fields = item.model_dump(mode="json")
    error = fields["error"] or {"code": None, "message": None}
    fields |= {"error_code": error["code"], "error_message": error["message"]}
    fields["alternatives"] = json.dumps(fields["alternatives"], ensure_ascii=False)
    return [_cell(fields[column]) for column in COLUMNS]


def _cell(value: object) -> object:
    """Neutralise what a spreadsheet would run; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
