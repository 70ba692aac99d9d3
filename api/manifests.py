"""Jobs from references to images that lie elsewhere: a JSON request, or a manifest read line by line."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from pydantic import ValidationError

from api.body import RequestBody
from api.context import Context
from api.problems import invalid
from api.spool import Fingerprint, ItemSpool
from api.submission import Received
from jobs.errors import RequestError
from jobs.records import ImageReference, JobRequest, JobSpec

JSON_BYTES = 8 * 1024 * 1024
LINE_BYTES = 16 * 1024
PLACES = ("s3_uri", "url", "upload_id")
COLUMNS = (*PLACES, "custom_id")


class ReferenceRequest:
    """A JSON request that lists its images."""

    stores = False

    def __init__(self, context: Context, owner: str, body: RequestBody) -> None:
        self._context = context
        self._owner = owner
        self._body = body

    def receive(self, job_id: str | None) -> Received:
        """Read the whole request."""
        text = self._body.read_all(JSON_BYTES, "a JSON request (send a manifest instead)")
        try:
            request = JobRequest.model_validate_json(text)
        except ValidationError as error:
            raise invalid(error, "the request") from error
        self._context.services.intake.check(request)
        spool = _Spool(self._context, self._owner, new=job_id is not None)
        return spool.fill(iter(request.images), request, "references")


class Manifest:
    """An NDJSON or CSV manifest, one image a line; its options come as query parameters."""

    stores = False

    def __init__(
        self, context: Context, owner: str, body: RequestBody, spec: JobSpec, *, comma_separated: bool
    ) -> None:
        self._context = context
        self._owner = owner
        self._lines = Lines(body)
        self._spec = spec
        self._comma_separated = comma_separated

    def receive(self, job_id: str | None) -> Received:
        """Read all lines; errors name the line."""
        self._context.services.intake.check(self._spec)
        spool = _Spool(self._context, self._owner, new=job_id is not None)
        references = read_csv(self._lines) if self._comma_separated else read_ndjson(self._lines)
        try:
            return spool.fill(references, self._spec, "manifest")
        except RequestError as error:
            if error.code not in ("invalid_request", "forbidden", "upload_incomplete"):
                raise
            place = f"line {self._lines.number}: " if self._lines.number else ""
            raise RequestError(error.code, place + error.message) from error


class _Spool:
    """Turns references into spooled items."""

    def __init__(self, context: Context, owner: str, *, new: bool) -> None:
        self._limit = context.services.settings.max_images
        self._intake = context.services.intake
        self._owner = owner
        self._new = new
        self._fingerprint = Fingerprint()

    def fill(self, references: Iterator[ImageReference], spec: JobSpec, source: str) -> Received:
        """Read all references; raise ``RequestError`` too_many_images, forbidden or invalid_request."""
        items = ItemSpool()
        try:
            noted = self._note(references)
            if self._new:
                for item in self._intake.references(self._owner, noted):
                    items.add(item)
            else:
                for _ in noted:
                    pass
            return Received(spec, source, items, self._fingerprint.of(spec))
        except BaseException:
            items.close()
            raise

    def _note(self, references: Iterator[ImageReference]) -> Iterator[ImageReference]:
        count = 0
        for count, reference in enumerate(references, start=1):
            if count > self._limit:
                raise RequestError("too_many_images", f"a job holds at most {self._limit} images")
            self._fingerprint.add(reference.place, reference.custom_id)
            yield reference
        if count == 0:
            raise RequestError("invalid_request", "the manifest names no images")


class Lines:
    """The lines of a body as text; ``number`` is the present one's."""

    def __init__(self, body: RequestBody) -> None:
        self._body = body
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        rest = b""
        while block := self._body.read():
            *whole, rest = (rest + block).split(b"\n")
            yield from map(self._text, whole)
            self._refuse_long(rest)
        if rest:
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


def read_ndjson(lines: Lines) -> Iterator[ImageReference]:
    """Yield one reference a line; empty lines are passed over."""
    for line in lines:
        if line.strip():
            try:
                yield ImageReference.model_validate_json(line)
            except ValidationError as error:
                raise invalid(error, "the image") from error


def read_csv(lines: Lines) -> Iterator[ImageReference]:
    """Yield one reference a row; the first row names the columns: a place and, if wanted, ``custom_id``."""
    rows = csv.reader((f"{line}\n" for line in lines), strict=True)
    columns: list[str] | None = None
    try:
        for row in rows:
            if columns is None:
                columns = _columns(row)
            elif row:
                yield _reference(columns, row)
    except csv.Error as error:
        raise RequestError("invalid_request", f"not valid CSV: {error}") from error


def _columns(row: list[str]) -> list[str]:
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
