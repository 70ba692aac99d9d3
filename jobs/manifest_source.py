"""Jobs from a manifest that lies in S3: read in the background, from the byte after the last slice."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

from jobs.errors import ItemCode, ItemError, RequestError, TransientError
from jobs.expansion import Slice
from jobs.grants import Access
from jobs.manifests import Lines, read_columns, read_csv, read_ndjson
from jobs.objects.s3 import S3, refusal, split_uri, translated
from jobs.records import Reference
from jobs.references import References
from jobs.store.bulk import NewItem
from jobs.store.expansions import Expansion

KIND = "manifest"
SLICE_ITEMS = 5000
SLICE_S = 5.0
BLOCK_BYTES = 256 * 1024
# Another manifest stands there, or one that ends before the place.
_OTHER = {"PreconditionFailed", "412", "InvalidRange", "416"}


class ManifestSource:
    """An ``ExpansionSource``: NDJSON, or CSV where the key ends so; it must stay the same meanwhile."""

    own = False

    def __init__(
        self, s3: S3, references: Callable[[str], References], access: Callable[[str], Access]
    ) -> None:
        self._s3 = s3
        self._references = references
        self._access = access

    def slices(self, expansion: Expansion) -> Iterator[Slice]:
        """Yield items; an image that may not be read fails alone, a bad line ends the reading."""
        uri: str = expansion.parameters["uri"]
        self._access(expansion.owner).check(uri)
        bucket, key = split_uri(uri)
        place = expansion.cursor or self._begin(bucket, key)
        reader = _Reader(self._s3, bucket, key, place)
        try:
            references = reader.references(comma_separated=key.lower().endswith(".csv"))
            made = self._references(expansion.owner)
            while True:
                items: list[NewItem] = []
                until = time.monotonic() + SLICE_S
                while len(items) < SLICE_ITEMS and time.monotonic() < until:
                    reference = reader.next(references)
                    if reference is None:
                        yield Slice(items, None, last=True)
                        return
                    items.append(_item(made, reference))
                yield Slice(items, reader.place)
        finally:
            reader.close()

    def _begin(self, bucket: str, key: str) -> dict[str, Any]:
        with translated():
            head = self._s3.client.head_object(Bucket=bucket, Key=key)
        return {"offset": 0, "line": 0, "etag": head["ETag"], "size": head["ContentLength"], "columns": None}


class _Reader:
    """A manifest from one place on."""

    def __init__(self, s3: S3, bucket: str, key: str, place: dict[str, Any]) -> None:
        self._begun = place
        self._columns: list[str] | None = place["columns"]
        self._body: Any = None
        if place["offset"] < place["size"]:
            answer = _get(s3, bucket, key, place)
            self._body = answer["Body"]
            if answer["ETag"] != place["etag"]:
                self.close()
                raise _changed()
        self._lines = Lines(self._read, place["line"], place["offset"])

    @property
    def place(self) -> dict[str, Any]:
        """Where to go on."""
        here = {"offset": self._lines.offset, "line": self._lines.number, "columns": self._columns}
        return self._begun | here

    def references(self, *, comma_separated: bool) -> Iterator[Reference]:
        """Yield what the lines say."""
        lines = iter(self._lines)
        if not comma_separated:
            yield from read_ndjson(lines)
            return
        if self._columns is None:
            first = next(lines, "").rstrip("\r")
            self._columns = read_columns(next(csv.reader([first]), []))
        yield from read_csv(lines, self._columns)

    def next(self, references: Iterator[Reference]) -> Reference | None:
        """Return the next reference, ``None`` at the end; errors name the line."""
        try:
            reference = next(references, None)
            if reference is not None and reference.upload_id is not None:
                message = "uploads are named in the request itself, not in a manifest in S3"
                raise RequestError("invalid_request", message)
        except RequestError as error:
            raise RequestError(error.code, f"line {self._lines.number}: {error.message}") from error
        return reference

    def close(self) -> None:
        """Let go of the connection."""
        if self._body is not None:
            self._body.close()

    def _read(self) -> bytes:
        if self._body is None:
            return b""
        with translated():
            return cast(bytes, self._body.read(BLOCK_BYTES))


def _get(s3: S3, bucket: str, key: str, place: dict[str, Any]) -> Any:
    span = f"bytes={place['offset']}-"
    try:
        with translated():
            return s3.client.get_object(Bucket=bucket, Key=key, Range=span, IfMatch=place["etag"])
    except TransientError as error:
        if refusal(error) in _OTHER:
            raise _changed() from error
        raise


def _changed() -> RequestError:
    return RequestError("invalid_request", "the manifest changed while it was read")


def _item(made: References, reference: Reference) -> NewItem:
    try:
        return made.item(reference)
    except RequestError as error:
        refused = ItemError(ItemCode.ACCESS_DENIED, error.message)
        return made.unchecked(reference)._replace(error=refused)
