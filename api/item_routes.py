"""Routes of a job's items: list, read, edit, show the image, download all results."""

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
from api.cursors import item_cursor, rank_cursor, read_item_cursor, read_rank_cursor
from api.headers import SANDBOX
from api.routes import Answer, Call, Media, NoQuery, Route
from jobs.callers import Scope
from jobs.errors import ItemError, RequestError
from jobs.image_types import IMAGE_TYPES, UNKNOWN
from jobs.objects.sources import WEB
from jobs.records import LARGEST_POSITION, Body, Item, ItemEdit, ItemPage, ItemStatus, SearchText
from jobs.results import NO_PARQUET, can_write_parquet, comma_separated, jsonl, parquet, whole_or_broken
from jobs.sidecars import text_zip
from jobs.store.jobs import UPLOAD

LARGEST_PAGE = 200
BLOCK_BYTES = 64 * 1024
EDIT_BYTES = 64 * 1024


class ResultFormat(StrEnum):
    """How results are written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    TXT_ZIP = "txt.zip"


class ItemOrder(StrEnum):
    """How items are sorted."""

    POSITION = "position"
    SCORE = "score"


# How each is written, and as what it is sent.
_FORMS = {
    ResultFormat.JSONL: (jsonl, "application/x-ndjson"),
    ResultFormat.CSV: (comma_separated, "text/csv; charset=utf-8"),
    ResultFormat.PARQUET: (parquet, "application/vnd.apache.parquet"),
    ResultFormat.TXT_ZIP: (text_zip, "application/zip"),
}


class ItemsQuery(Body):
    """Which items to list."""

    status: ItemStatus | None = None
    q: SearchText | None = Field(
        None,
        description="Only items whose caption (edited, else the model's own) holds this, in any case. By "
        "position, a page looks at 50,000 items at most: it may be short, even empty, and yet have a "
        "next_cursor.",
    )
    sort: ItemOrder = Field(
        ItemOrder.POSITION,
        description="score: best first, items without one last; each page reads the whole job.",
    )
    limit: int = Field(50, ge=1, le=LARGEST_PAGE)
    cursor: str | None = None
    first: int = Field(
        0,
        ge=0,
        le=LARGEST_POSITION,
        description="By position and without a cursor: where to begin, for looking into the middle of a job.",
    )


class ResultsQuery(Body):
    """How to download results."""

    format: ResultFormat = ResultFormat.JSONL
    partial: bool = Field(False, description="Also before the job is final: what there is so far.")


def list_items(call: Call[ItemsQuery], job_id: str) -> Response:
    """List a job's items by position or score, all of them or those that a status or text selects."""
    query, jobs = call.query, call.services.store.jobs
    wanted = (call.owner, job_id, query.status, query.limit)
    if query.sort is ItemOrder.SCORE:
        items, rank = jobs.ranked(*wanted, read_rank_cursor(query.cursor), query.q)
        return json_answer(ItemPage(data=items, next_cursor=rank_cursor(rank)))
    after = query.first - 1 if query.cursor is None else read_item_cursor(query.cursor)
    items, last = jobs.items(*wanted, after, query.q)
    return json_answer(ItemPage(data=items, next_cursor=item_cursor(last)))


def edit_item(call: Call[NoQuery], job_id: str, position: int) -> Response:
    """Keep an edited caption beside the model's own, or take it back with null."""
    jobs = call.services.store.jobs
    # Somebody else's job is not there, whatever the body says.
    jobs.item(call.owner, job_id, position)
    edit = call.json(ItemEdit, EDIT_BYTES, "the edit")
    return json_answer(jobs.edit(call.owner, job_id, position, edit.caption))


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
    response.headers["Cache-Control"] = "private, no-cache"
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


def result_formats() -> list[ResultFormat]:
    """Return what results can be written as here."""
    return [form for form in ResultFormat if form is not ResultFormat.PARQUET or can_write_parquet()]


def read_results(call: Call[ResultsQuery], job_id: str) -> Response:
    """Download all items as JSON lines, CSV or Parquet, or their captions as text files in a zip file.

    In the zip file each image with a caption has a .txt of its name; an edited caption goes before the
    model's own.
    """
    form = call.query.format
    if form not in result_formats():
        raise RequestError("not_acceptable", f"{NO_PARQUET}, and start the server again")
    store = call.services.store.jobs
    job, _ = store.get(call.owner, job_id)
    if not job.status.final and not call.query.partial:
        message = f"the job is {job.status}; wait for its end, or ask with partial=1 for what there is"
        raise RequestError("job_not_finished", message, retry_after=retry_after(job))
    pages = store.result_fields(call.owner, job_id)
    # The first page is read before the answer begins: until then an error is still a proper refusal.
    pages = chain([next(pages)], whole_or_broken(pages))
    write, content_type = _FORMS[form]
    response = Response(write(pages), content_type=content_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{job_id}.{form}"'
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
        scope=Scope.READ,
    ),
    Route(
        "GET",
        "/v1/jobs/{job_id}/items/{position}",
        read_item,
        "Read an item",
        (Answer(200, "The item.", Item),),
        refusals=_ITEM,
        tag="items",
        scope=Scope.READ,
    ),
    Route(
        "PATCH",
        "/v1/jobs/{job_id}/items/{position}",
        edit_item,
        "Edit a caption",
        (Answer(200, "The item.", Item),),
        takes=(Media("application/json", ItemEdit),),
        refusals=(*_ITEM, "upload_incomplete", "upload_too_large", "unsupported_media_type"),
        tag="items",
        scope=Scope.SUBMIT,
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
        scope=Scope.READ,
    ),
    Route(
        "GET",
        "/v1/jobs/{job_id}/results",
        read_results,
        "Download results",
        (Answer(200, "All items.", Item, media_types=tuple(kind for _, kind in _FORMS.values())),),
        ResultsQuery,
        refusals=(*_JOB, "job_not_finished", "not_acceptable"),
        tag="items",
        scope=Scope.READ,
    ),
)
