"""Routes of a job's items: list, read, show the image, download all results."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from enum import StrEnum
from itertools import chain
from typing import BinaryIO
from urllib.parse import quote

from flask import Response
from pydantic import Field

from api.answers import json_answer, retry_after, unless_known
from api.cursors import item_cursor, read_item_cursor
from api.headers import SANDBOX
from api.routes import Answer, Call, NoQuery, Route
from jobs.errors import ItemError, RequestError
from jobs.image_types import IMAGE_TYPES, UNKNOWN
from jobs.objects.sources import WEB
from jobs.records import Body, Item, ItemPage, ItemStatus
from jobs.results import comma_separated, jsonl, whole_or_broken
from jobs.store.jobs import UPLOAD

LARGEST_PAGE = 200
BLOCK_BYTES = 64 * 1024


class ResultFormat(StrEnum):
    """How results are written."""

    JSONL = "jsonl"
    CSV = "csv"


class ItemsQuery(Body):
    """Which items to list."""

    status: ItemStatus | None = None
    limit: int = Field(50, ge=1, le=LARGEST_PAGE)
    cursor: str | None = None


class ResultsQuery(Body):
    """How to download results."""

    format: ResultFormat = ResultFormat.JSONL
    partial: bool = Field(False, description="Also before the job is final: what there is so far.")


def list_items(call: Call[ItemsQuery], job_id: str) -> Response:
    """List a job's items by position."""
    after = read_item_cursor(call.query.cursor)
    query = call.query
    items, last = call.services.store.jobs.items(call.owner, job_id, query.status, query.limit, after)
    return json_answer(ItemPage(data=items, next_cursor=item_cursor(last)))


def read_item(call: Call[NoQuery], job_id: str, position: int) -> Response:
    """Read one item."""
    item, _, _ = call.services.store.jobs.item(call.owner, job_id, position)
    return json_answer(item)


def read_image(call: Call[NoQuery], job_id: str, position: int) -> Response:
    """Show an item's image: the bytes, or the way to them in S3."""
    item, key, content_type = call.services.store.jobs.item(call.owner, job_id, position)
    if key is None:
        return _redirect(_source_url(call, item))
    kind = content_type if content_type in IMAGE_TYPES else UNKNOWN
    url = call.services.objects.url(key, kind)
    return _redirect(url) if url else _image(call, item, key, kind)


def _source_url(call: Call[NoQuery], item: Item) -> str:
    if item.source == UPLOAD:
        raise RequestError("not_found", "this image was refused and so not stored")
    if item.source.startswith(WEB):
        return item.source
    call.services.intake.access(call.owner).check(item.source)
    guess, _ = mimetypes.guess_type(item.name)
    return call.services.sources.url(item.source, guess if guess in IMAGE_TYPES else UNKNOWN)


def _redirect(url: str) -> Response:
    return Response(status=302, headers={"Location": url, "Cache-Control": "no-store"})


def _image(call: Call[NoQuery], item: Item, key: str, kind: str) -> Response:
    response = Response(content_type=kind)
    show = "attachment" if kind == UNKNOWN else "inline"
    response.headers["Content-Disposition"] = f"{show}; filename*=UTF-8''{quote(item.name, safe='')}"
    response.headers["Content-Security-Policy"] = SANDBOX
    response.headers["Cache-Control"] = "private, max-age=3600"
    if item.sha256:
        response.set_etag(item.sha256)
    known = unless_known(response)
    return known if known.status_code == 304 else _with_bytes(response, call, key)


def _with_bytes(response: Response, call: Call[NoQuery], key: str) -> Response:
    try:
        file = call.services.objects.open(key)
    except ItemError as error:
        raise RequestError("not_found", error.message) from error
    response.response = _blocks(file)
    response.call_on_close(file.close)
    return response


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK_BYTES):
        yield block


def read_results(call: Call[ResultsQuery], job_id: str) -> Response:
    """Download all items as JSON lines or CSV."""
    store = call.services.store.jobs
    job, _ = store.get(call.owner, job_id)
    if not job.status.final and not call.query.partial:
        message = f"the job is {job.status}; wait for its end, or ask with partial=1 for what there is"
        raise RequestError("job_not_finished", message, retry_after=retry_after(job))
    pages = store.result_fields(call.owner, job_id)
    # The first page is read before the answer begins: until then an error is still a proper refusal.
    pages = chain([next(pages)], whole_or_broken(pages))
    csv = call.query.format is ResultFormat.CSV
    response = Response(comma_separated(pages) if csv else jsonl(pages))
    response.headers["Content-Type"] = "text/csv; charset=utf-8" if csv else "application/x-ndjson"
    response.headers["Content-Disposition"] = f'attachment; filename="{job_id}.{call.query.format}"'
    response.headers["Cache-Control"] = "no-store"
    return response


_JOB = ("job_not_found",)
_ITEM = ("job_not_found", "not_found")

ITEM_ROUTES = (
    Route(
        "GET",
        "/v1/jobs/{job_id}/items",
        list_items,
        "List items",
        (Answer(200, "A page of items.", ItemPage),),
        ItemsQuery,
        refusals=_JOB,
        tag="items",
    ),
    Route(
        "GET",
        "/v1/jobs/{job_id}/items/{position}",
        read_item,
        "Read an item",
        (Answer(200, "The item.", Item),),
        refusals=_ITEM,
        tag="items",
    ),
    Route(
        "GET",
        "/v1/jobs/{job_id}/items/{position}/image",
        read_image,
        "Show an item's image",
        (
            Answer(200, "The image.", media_types=(*sorted(IMAGE_TYPES), UNKNOWN), headers=("ETag",)),
            Answer(302, "Where the image is, for a quarter of an hour.", headers=("Location",)),
            Answer(304, "The image has not changed.", headers=("ETag",)),
        ),
        headers=("If-None-Match",),
        refusals=(*_ITEM, "forbidden"),
        tag="items",
    ),
    Route(
        "GET",
        "/v1/jobs/{job_id}/results",
        read_results,
        "Download results",
        (Answer(200, "One item a line.", Item, media_types=("application/x-ndjson", "text/csv")),),
        ResultsQuery,
        refusals=(*_JOB, "job_not_finished"),
        tag="items",
    ),
)
