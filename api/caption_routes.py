"""The route for one photo: caption it while the client waits."""

from __future__ import annotations

import time

from flask import Response, request

from api.allowance import allowance
from api.answers import job_answer, json_answer
from api.routes import FILE, Answer, Call, Media, NoQuery, Route
from api.submission import idempotency_key, make_job
from api.uploads import CaptionUpload
from jobs.callers import Scope
from jobs.errors import RequestError
from jobs.records import CaptionOptions, Item, Job


def create_caption(call: Call[NoQuery]) -> Response:
    """Caption one image; where that takes long, answer with its job instead."""
    if request.mimetype != "multipart/form-data":
        message = "an image comes as multipart/form-data with the part `image`"
        raise RequestError("unsupported_media_type", message)
    key = idempotency_key(request.headers.get("Idempotency-Key"))
    allowed = allowance(call)
    receiver = CaptionUpload(call.context, call.body, request.headers["Content-Type"], allowed)
    job_id = make_job(call, key, receiver, allowed)
    job, version = _wait(call, job_id)
    if not job.status.final:
        return job_answer(job, version, 202)
    item, _, _ = call.services.store.jobs.item(call.owner, job_id, 0)
    return json_answer(item, Content_Location=f"{job.links.items}/0")


def _wait(call: Call[NoQuery], job_id: str) -> tuple[Job, int]:
    """Return the job when it is final, at the latest when the settings' time is up."""
    until = time.monotonic() + call.services.settings.caption_wait_s
    store = call.services.store.jobs
    job, version = store.get(call.owner, job_id)
    while not job.status.final and (left := until - time.monotonic()) > 0:
        if not call.context.watch.wait(job_id, version, left):
            break
        job, version = store.get(call.owner, job_id)
    return job, version


_UPLOAD = {
    "type": "object",
    "properties": {
        "image": FILE,
        "options": {"$ref": "#/components/schemas/CaptionOptions"},
    },
    "required": ["image"],
}

CAPTION_ROUTES = (
    Route(
        "POST",
        "/v1/captions",
        create_caption,
        "Caption one image",
        (
            Answer(200, "The item, captioned or failed.", Item, headers=("Content-Location",)),
            Answer(202, "It takes longer: its job.", Job, headers=("Location", "ETag", "Retry-After")),
        ),
        takes=(Media("multipart/form-data", schema=_UPLOAD, parts=(CaptionOptions,)),),
        headers=("Idempotency-Key",),
        refusals=(
            "invalid_request",
            "model_not_available",
            "upload_incomplete",
            "idempotency_conflict",
            "idempotency_in_progress",
            "upload_too_large",
            "unsupported_media_type",
            "quota_exceeded",
        ),
        tag="captions",
        scope=Scope.SUBMIT,
    ),
)
