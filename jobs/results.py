"""Results as streams: JSON lines, or CSV that spreadsheet programs can open without running anything."""

from __future__ import annotations

import csv
import errno
import io
import logging
from collections.abc import Iterable, Iterator
from datetime import datetime
from importlib.util import find_spec
from typing import Any

import orjson

from jobs.errors import CaptionfleetError

Page = list[dict[str, Any]]
"""Items as their fields, in the order of ``Item``."""
Pages = Iterable[Page]

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
_ALTERNATIVES = COLUMNS.index("alternatives")
# Column, Arrow type and its arguments.
_PARQUET: tuple[tuple[Any, ...], ...] = tuple(
    {
        "position": ("position", "int64"),
        "score": ("score", "float64"),
        "width": ("width", "int32"),
        "height": ("height", "int32"),
        "attempts": ("attempts", "int32"),
        "finished_at": ("finished_at", "timestamp", "us", "UTC"),
    }.get(column, (column, "string"))
    for column in COLUMNS
)
NO_PARQUET = "Parquet needs pyarrow, which is not installed here: `pip install -c requirements.lock pyarrow`"
# Spreadsheet programs take a cell that begins so for a formula.
_FORMULA = frozenset("=+-@\t\r")


def whole_or_broken(pages: Pages) -> Iterator[Page]:
    """Yield pages; one that cannot be had breaks the connection: a part must not look like the whole."""
    try:
        yield from pages
    except CaptionfleetError as error:
        log.warning("a download is broken off: %s", error)
        raise ConnectionResetError(errno.ECONNRESET, error.message) from error


def jsonl(pages: Pages) -> Iterator[bytes]:
    """Yield one JSON object a line for each item."""
    for items in pages:
        # One call for all of them is several times faster. Within a string its quotes would be escaped.
        yield orjson.dumps(items)[1:-1].replace(b'},{"position":', b'}\n{"position":') + b"\n" * bool(items)


def comma_separated(pages: Pages) -> Iterator[bytes]:
    """Yield RFC 4180 rows under a header row."""
    yield _rows([COLUMNS])
    for items in pages:
        yield _rows(_row(item) for item in items)


def parquet(pages: Pages) -> Iterator[bytes]:
    """Yield a Parquet file, a row group a page; raises ``ImportError`` without pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, getattr(pa, kind)(*arguments)) for name, kind, *arguments in _PARQUET])
    file = _Passing()
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for items in pages:
            rows = [item | _plain(item) | {"finished_at": _time(item["finished_at"])} for item in items]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            yield file.take()
    yield file.take()


class _Passing(io.RawIOBase):
    """A file that keeps what is written only until it is taken."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, block: Any) -> int:
        self._blocks.append(bytes(block))
        return len(self._blocks[-1])

    def take(self) -> bytes:
        blocks, self._blocks = self._blocks, []
        return b"".join(blocks)


def can_write_parquet() -> bool:
    """Whether pyarrow is installed."""
    return find_spec("pyarrow") is not None


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    """Return what a table of plain columns says of an item's nested fields."""
    error = item["error"] or {}
    return {
        "alternatives": _text(item["alternatives"]),
        "error_code": error.get("code"),
        "error_message": error.get("message"),
    }


def _text(alternatives: list[dict[str, Any]]) -> str:
    return orjson.dumps(alternatives).decode() if alternatives else "[]"


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _rows(rows: Iterable[Iterable[object]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode()


def _row(item: dict[str, Any]) -> list[object]:
    """Return the cells of ``COLUMNS``, without what a spreadsheet would run; numbers stay numbers."""
    *values, error, finished_at = item.values()
    values[_ALTERNATIVES] = _text(values[_ALTERNATIVES])
    values += (error["code"], error["message"], finished_at) if error else (None, None, finished_at)
    return [f"'{value}" if type(value) is str and value[:1] in _FORMULA else value for value in values]
