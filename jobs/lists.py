"""Lists of items, a thousand to a line of JSON: a temporary file while a request is read, then an object.

A million items cost no memory, and lines are copied from the one to the other as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from os import SEEK_END
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import IO, Any, BinaryIO

import orjson

from jobs.errors import ItemCode, ItemError
from jobs.expansion import Slice
from jobs.objects import ObjectStore, source_prefix
from jobs.store.bulk import NewItem
from jobs.store.expansions import Expansion

KIND = "list"
LINE_ITEMS = 1000
# What one transaction writes within a tenth of a second or two.
SLICE_LINES = 10
BLOCK_BYTES = 1024 * 1024
IN_MEMORY_BYTES = 256 * 1024


def _encode(items: list[NewItem]) -> bytes:
    return orjson.dumps(items, default=_plain) + b"\n"


def _plain(value: Any) -> Any:
    return (value.code, value.message) if isinstance(value, ItemError) else tuple(value)


def _decode(line: bytes) -> list[NewItem]:
    return [_item(fields) if fields[6] else NewItem(*fields) for fields in orjson.loads(line)]


def _item(fields: list[Any]) -> NewItem:
    """Return an item that has failed already."""
    code, message = fields[6]
    return NewItem(*fields)._replace(error=ItemError(ItemCode(code), message))


class ItemList:
    """New items, written once, then read in order as often as wanted."""

    def __init__(self, items: Iterable[NewItem] = ()) -> None:
        self._file: IO[bytes] = SpooledTemporaryFile(IN_MEMORY_BYTES)
        self._count = 0
        self._waiting: list[NewItem] = []
        self._names_uploads = False
        for item in items:
            self.add(item)

    def __enter__(self) -> ItemList:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[NewItem]:
        return chain.from_iterable(map(_decode, self._lines()))

    def add(self, item: NewItem) -> None:
        """Append an item."""
        self._waiting.append(item)
        self._count += 1
        if item.upload_id is not None:
            self._names_uploads = True
        if len(self._waiting) == LINE_ITEMS:
            self._flush()

    def first(self) -> list[NewItem]:
        """Return the items of the first slice."""
        return list(chain.from_iterable(map(_decode, islice(self._lines(), SLICE_LINES))))

    def later_uploads(self) -> Iterator[str]:
        """Yield the direct uploads that items after the first slice name."""
        if self._names_uploads:
            yield from (item.upload_id for item in islice(self, len(self.first()), None) if item.upload_id)

    def store_rest(self, objects: ObjectStore, job_id: str) -> None:
        """Store what comes after the first slice durably, for ``ListSource``."""
        with objects.batch() as batch:
            writer = batch.open(_key(job_id), "application/x-ndjson")
            try:
                for line in islice(self._lines(), SLICE_LINES, None):
                    writer.write(line)
            except BaseException:
                writer.discard()
                raise
            writer.close()
            batch.flush()

    def close(self) -> None:
        """Delete the file."""
        self._file.close()

    def _lines(self) -> Iterator[bytes]:
        self._flush()
        self._file.seek(0)
        return iter(self._file)

    def _flush(self) -> None:
        if self._waiting:
            self._file.seek(0, SEEK_END)
            self._file.write(_encode(self._waiting))
            self._waiting = []


class ListSource:
    """An ``ExpansionSource``: a list that came with the request; its cursor is a byte offset."""

    own = True

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def slices(self, expansion: Expansion) -> Iterator[Slice]:
        """Yield the list in slices; raises ``ItemError`` where it is gone."""
        offset = expansion.cursor or 0
        with self._objects.open(_key(expansion.job_id)) as file:
            _skip(file, offset)
            lines = _lines(file)
            while taken := list(islice(lines, SLICE_LINES)):
                offset += sum(map(len, taken))
                items = list(chain.from_iterable(map(_decode, taken)))
                yield Slice(items, offset, last=len(taken) < SLICE_LINES)


def _key(job_id: str) -> str:
    return f"{source_prefix(job_id)}list"


def _skip(file: BinaryIO, size: int) -> None:
    while size and (block := file.read(min(size, BLOCK_BYTES))):
        size -= len(block)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield lines with their ends; objects in S3 can be read in blocks only."""
    rest = b""
    while block := file.read(BLOCK_BYTES):
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest
