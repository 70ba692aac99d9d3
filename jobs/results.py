"""Results as streams: JSON lines, or CSV that spreadsheet programs can open without running anything."""

from __future__ import annotations

import errno
import io
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from operator import itemgetter
from typing import Any

import orjson

from jobs.errors import CaptionfleetError

Fields = dict[str, Any]
Page = list[Fields]
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
# Arrow types; all other columns are text.
_NUMBERS = {"position": "int64", "score": "float64", "width": "int32", "height": "int32", "attempts": "int32"}
NO_PARQUET = "Parquet needs pyarrow, which is not installed here: `pip install -c requirements.lock pyarrow`"
# Spreadsheet programs take a cell that begins so for a formula.
_FORMULA = frozenset("=+-@\t\r")
# What only a quoted cell may hold.
_MARKS = ',"\r\n'
_MARKED = re.compile(f"[{_MARKS}]")


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
    yield _rows([[name] for name in COLUMNS])
    for items in pages:
        yield _rows(
            _numbers(column) if name in _NUMBERS else _texts(column)
            for name, column in _columns(items).items()
        )


def parquet(pages: Pages) -> Iterator[bytes]:
    """Yield a Parquet file, a row group a page; raises ``ImportError`` without pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {name: getattr(pa, _NUMBERS.get(name, "string"))() for name in COLUMNS}
    schema = pa.schema(kinds | {"finished_at": pa.timestamp("us", "UTC")})
    file = _Passing()
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for items in pages:
            arrays = {name: pa.array(column, kinds[name]) for name, column in _columns(items).items()}
            writer.write_table(pa.table(arrays).cast(schema))
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


def _error(part: str) -> Callable[[Fields], str | None]:
    return lambda item: item["error"] and item["error"][part]


def _alternatives(item: Fields) -> str:
    return orjson.dumps(item["alternatives"]).decode() if item["alternatives"] else "[]"


# What tables of plain columns say of an item's nested fields.
_NESTED = {"alternatives": _alternatives, "error_code": _error("code"), "error_message": _error("message")}


def _columns(items: Page) -> dict[str, list[Any]]:
    """Return a page by ``COLUMNS``: what is done to a whole column costs a fraction of what cells cost."""
    return {name: list(map(_NESTED.get(name, itemgetter(name)), items)) for name in COLUMNS}


def _numbers(column: list[Any]) -> list[str]:
    return ["" if value is None else str(value) for value in column]


def _texts(column: list[str | None]) -> list[str]:
    """Return cells without what a spreadsheet would run, in quotes where they need them."""
    texts = [text or "" for text in column]
    if not _FORMULA.isdisjoint([text[:1] for text in texts]):
        texts = [f"'{text}" if text[:1] in _FORMULA else text for text in texts]
    whole = "".join(texts)
    if any(mark in whole for mark in _MARKS):
        texts = [_quoted(text) if _MARKED.search(text) else text for text in texts]
    return texts


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _rows(columns: Iterable[list[str]]) -> bytes:
    return "".join([",".join(row) + "\r\n" for row in zip(*columns, strict=True)]).encode()
