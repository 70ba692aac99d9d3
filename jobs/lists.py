"""Lists of items as JSON lines: a temporary file while a request is read, then an object to expand from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import BinaryIO

import orjson

from jobs.errors import ItemCode, ItemError
from jobs.expansion import Slice
from jobs.objects import ObjectStore, source_prefix
from jobs.store.bulk import NewItem
from jobs.store.expansions import Expansion

KIND = "list"
SLICE_ITEMS = 10_000
BLOCK_BYTES = 1024 * 1024


def encode(item: NewItem) -> bytes:
    """Return an item as a line."""
    error = (item.error.code, item.error.message) if item.error else None
    return orjson.dumps((*item[:6], error, item.upload_id)) + b"\n"


def decode(line: bytes) -> NewItem:
    """Return the item of a line."""
    fields = orjson.loads(line)
    if fields[6] is not None:
        code, message = fields[6]
        fields[6] = ItemError(ItemCode(code), message)
    return NewItem(*fields)


def store_list(objects: ObjectStore, job_id: str, items: Iterable[NewItem]) -> bool:
    """Store the rest of a job's list durably; return whether it names direct uploads."""
    names_uploads = False
    with objects.batch() as batch:
        writer = batch.open(_key(job_id), "application/x-ndjson")
        try:
            lines = []
            for item in items:
                names_uploads = names_uploads or item.upload_id is not None
                lines.append(encode(item))
                if len(lines) == SLICE_ITEMS:
                    writer.write(b"".join(lines))
                    lines = []
            writer.write(b"".join(lines))
        except BaseException:
            writer.discard()
            raise
        writer.close()
        batch.flush()
    return names_uploads


def stored_list(objects: ObjectStore, job_id: str) -> Iterator[NewItem]:
    """Yield the items of a stored list."""
    with objects.open(_key(job_id)) as file:
        for line in _lines(file):
            yield decode(line)


class ListSource:
    """An ``ExpansionSource``: a list that came with the request; its cursor is a byte offset."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def slices(self, expansion: Expansion) -> Iterator[Slice]:
        """Yield the list in slices; raises ``ItemError`` where it is gone."""
        offset = expansion.cursor or 0
        with self._objects.open(_key(expansion.job_id)) as file:
            _skip(file, offset)
            lines = _lines(file)
            while taken := list(islice(lines, SLICE_ITEMS)):
                offset += sum(map(len, taken))
                yield Slice([decode(line) for line in taken], offset, last=len(taken) < SLICE_ITEMS)


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
