"""Routes of direct uploads: where to send files, and, where the object store is a folder, sending them."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime

from flask import Response, request
from pydantic import Field

from api.answers import json_answer
from api.origins import own_address
from api.routes import FILE, Answer, Call, Media, NoQuery, Route
from jobs.callers import Scope
from jobs.errors import RequestError
from jobs.names import clean_name
from jobs.records import Body, UploadFile, UploadRequest, UploadTarget, UploadTargets
from jobs.store.uploads import (
    URL_SECONDS,
    DirectUpload,
    NewUpload,
    split_upload_id,
    upload_key,
    upload_name,
)

JSON_BYTES = 2 * 1024 * 1024


class PutQuery(Body):
    """What opens a local address."""

    token: str = Field("", max_length=128, description="As it stands in the address that was given.")


def create_uploads(call: Call[NoQuery]) -> Response:
    """Say where to send files; they become images when a job names their ids."""
    wanted = call.json(UploadRequest, JSON_BYTES, "the announcement")
    limit = call.services.settings.max_image_bytes
    for number, file in enumerate(wanted.files):
        if file.size > limit:
            raise RequestError(
                "upload_too_large", f"files[{number}]: an image may have at most {limit} bytes"
            )
    tokens = [secrets.token_urlsafe(32) for _ in wanted.files]
    files = [_new(file, number, tokens[number]) for number, file in enumerate(wanted.files)]
    batch, expires = call.services.store.uploads.create(call.owner, files, call.limits)
    targets = [
        _target(call, batch, number, file, tokens[number], expires) for number, file in enumerate(files)
    ]
    return json_answer(UploadTargets(data=targets), 201)


def _new(file: UploadFile, number: int, token: str) -> NewUpload:
    name = clean_name(file.name, f"image-{number}")
    return NewUpload(name, file.content_type, file.size, _hash(token))


def _target(
    call: Call[NoQuery], batch: str, number: int, file: NewUpload, token: str, expires: datetime
) -> UploadTarget:
    key = upload_key(batch, number)
    url = call.services.objects.upload_url(key, file.content_type, file.size, URL_SECONDS)
    here = f"{own_address(request)}/v1/uploads/{upload_name(batch, number)}?token={token}"
    return UploadTarget(
        id=upload_name(batch, number),
        name=file.name,
        size=file.size,
        url=url or here,
        headers={"Content-Type": file.content_type},
        expires_at=expires,
    )


def put_upload(call: Call[PutQuery], upload_id: str) -> Response:
    """Take one file at the address that ``POST /v1/uploads`` gave; the token in it stands for a key."""
    batch, number = split_upload_id(upload_id) or ("", 0)
    found = call.services.store.uploads.open_by_token(batch, number, _hash(call.query.token))
    if found is None or call.services.settings.bucket is not None:
        raise RequestError("forbidden", "this address is not one that was given, or it has expired")
    if request.content_type != found.content_type:
        raise RequestError("forbidden", f"this address takes Content-Type {found.content_type} alone")
    if request.content_length != found.size:
        raise RequestError("forbidden", f"this address takes exactly {found.size} bytes")
    _store(call, found)
    return Response(status=200, headers={"Cache-Control": "no-store"})


def _store(call: Call[PutQuery], upload: DirectUpload) -> None:
    with call.services.objects.batch() as batch:
        writer = batch.open(upload.key, upload.content_type)
        try:
            while block := call.body.read():
                writer.write(block)
        except BaseException:
            writer.discard()
            raise
        writer.close()
        batch.flush()


def _hash(token: str) -> str:
    """Return the token's sha256: it is 256 random bits, so a slow hash would protect nothing."""
    return hashlib.sha256(token.encode()).hexdigest()


DIRECT_ROUTES = (
    Route(
        "POST",
        "/v1/uploads",
        create_uploads,
        "Announce files to upload directly",
        (Answer(201, "Where to send each file.", UploadTargets),),
        takes=(Media("application/json", UploadRequest),),
        refusals=(
            "invalid_request",
            "upload_incomplete",
            "upload_too_large",
            "unsupported_media_type",
            "quota_exceeded",
        ),
        tag="uploads",
        scope=Scope.SUBMIT,
    ),
    Route(
        "PUT",
        "/v1/uploads/{upload_id}",
        put_upload,
        "Upload a file directly",
        (Answer(200, "The file is stored."),),
        query=PutQuery,
        takes=tuple(Media(kind, schema=FILE) for kind in ("application/octet-stream", "image/*")),
        refusals=("forbidden", "upload_incomplete", "database_unavailable", "storage_unavailable"),
        keyless=True,
        tag="uploads",
        scope=None,
    ),
)
