"""Jobs from references to images that lie elsewhere: a JSON request, or a manifest read line by line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from api.allowance import Allowance
from api.context import Context
from api.fingerprints import Fingerprint
from api.routes import Call
from api.submission import Received
from jobs.errors import RequestError
from jobs.listing import KIND as PREFIX
from jobs.lists import ItemList
from jobs.manifest_source import KIND as MANIFEST
from jobs.manifests import Lines, read_csv, read_ndjson
from jobs.records import JobRequest, JobSpec, ObjectFilter, Reference
from jobs.store.submit import NewExpansion
from jobs.validation import invalid

JSON_BYTES = 8 * 1024 * 1024


class ReferenceRequest:
    """A JSON request that lists its images."""

    stores = False

    def __init__(self, call: Call[Any], allowed: Allowance) -> None:
        self._context = call.context
        self._owner = call.owner
        self._body = call.body
        self._allowed = allowed

    def receive(self, job_id: str | None) -> Received:
        """Read the whole request."""
        text = self._body.read_all(JSON_BYTES, "a JSON request (send a manifest instead)")
        try:
            request = JobRequest.model_validate_json(text)
        except ValidationError as error:
            raise invalid(error, "the request") from error
        self._context.services.intake.check(request)
        if request.images is None:
            return self._expanded(request)
        listed = _Listed(self._context, self._owner, self._allowed, new=job_id is not None)
        return listed.fill(iter(request.images), request, "references")

    def _expanded(self, request: JobRequest) -> Received:
        """Return a request whose images are found in the background."""
        kind, uri = (PREFIX, request.s3_prefix) if request.s3_prefix else (MANIFEST, request.manifest)
        assert uri is not None
        self._context.services.intake.readable(self._owner)(uri)
        wanted = (request.filter or ObjectFilter()).model_dump(mode="json", exclude_none=True)
        fingerprint = Fingerprint()
        fingerprint.add(kind, uri, json.dumps(wanted, sort_keys=True))
        rest = NewExpansion(kind, {"uri": uri, "filter": wanted})
        return Received(request, kind, ItemList(), fingerprint.of(request), rest)


class Manifest:
    """An NDJSON or CSV manifest, one image a line; its options come as query parameters."""

    stores = False

    def __init__(self, call: Call[Any], spec: JobSpec, allowed: Allowance, *, comma_separated: bool) -> None:
        self._context = call.context
        self._owner = call.owner
        self._allowed = allowed
        self._lines = Lines(call.body.read)
        self._spec = spec
        self._comma_separated = comma_separated

    def receive(self, job_id: str | None) -> Received:
        """Read all lines; errors name the line."""
        self._context.services.intake.check(self._spec)
        listed = _Listed(self._context, self._owner, self._allowed, new=job_id is not None)
        references = read_csv(self._lines) if self._comma_separated else read_ndjson(self._lines)
        try:
            return listed.fill(references, self._spec, "manifest")
        except RequestError as error:
            if error.code not in ("invalid_request", "forbidden", "upload_incomplete"):
                raise
            place = f"line {self._lines.number}: " if self._lines.number else ""
            raise RequestError(error.code, place + error.message) from error


class _Listed:
    """Turns references into listed items."""

    def __init__(self, context: Context, owner: str, allowed: Allowance, *, new: bool) -> None:
        self._allowed = allowed
        self._intake = context.services.intake
        self._owner = owner
        self._new = new
        self._fingerprint = Fingerprint()

    def fill(self, references: Iterator[Reference], spec: JobSpec, source: str) -> Received:
        """Read all references; raise ``RequestError`` too_many_images, quota_exceeded and others."""
        items = ItemList()
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

    def _note(self, references: Iterator[Reference]) -> Iterator[Reference]:
        count = 0
        for count, reference in enumerate(references, start=1):
            if self._new:
                self._allowed.check_images(count)
            self._fingerprint.add(reference.place, reference.custom_id)
            yield reference
        if count == 0:
            raise RequestError("invalid_request", "the manifest names no images")
