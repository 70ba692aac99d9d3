"""Routes of jobs: make, list, read, cancel, retry, delete."""

from __future__ import annotations

from flask import Response, request
from pydantic import Field

from api.allowance import Allowance, allowance
from api.answers import job_answer, json_answer, unless_known
from api.cursors import job_cursor, read_job_cursor
from api.manifests import Manifest, ReferenceRequest
from api.routes import FILE, Answer, Call, Media, NoQuery, Route
from api.submission import Receiver, idempotency_key, make_job
from api.uploads import JobUpload
from jobs.callers import Scope
from jobs.errors import RequestError
from jobs.queue import publish
from jobs.records import (
    Body,
    CaptionOptions,
    DeletedJob,
    ImageReference,
    Job,
    JobPage,
    JobRequest,
    JobSpec,
    JobStatus,
    Priority,
)

LARGEST_PAGE = 200
LONGEST_WAIT_S = 30


class ManifestQuery(CaptionOptions):
    """Options of a job made from a manifest; the other kinds of request carry theirs in the body."""

    priority: Priority | None = None
    webhook_url: str | None = Field(None, min_length=1, max_length=2048)


class JobsQuery(Body):
    """Which jobs to list."""

    status: JobStatus | None = None
    limit: int = Field(50, ge=1, le=LARGEST_PAGE)
    cursor: str | None = None


class JobQuery(Body):
    """How to read one job."""

    wait: float = Field(
        0, ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for a change, if the job is not final."
    )


def create_job(call: Call[ManifestQuery]) -> Response:
    """Make a job from uploads, references or a manifest."""
    key = idempotency_key(request.headers.get("Idempotency-Key"))
    allowed = allowance(call)
    job_id = make_job(call, key, _receiver(call, allowed), allowed)
    return job_answer(*call.services.store.jobs.get(call.owner, job_id), 202)


def _receiver(call: Call[ManifestQuery], allowed: Allowance) -> Receiver:
    kind = request.mimetype
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise RequestError("unsupported_media_type", "a body with a Content-Encoding is not read")
    if kind in ("application/x-ndjson", "text/csv"):
        spec = _manifest_spec(call.query)
        return Manifest(call, spec, allowed, comma_separated=kind == "text/csv")
    if call.query.model_fields_set:
        message = "query parameters go with manifests; put options into the body"
        raise RequestError("invalid_request", message)
    if kind == "multipart/form-data":
        return JobUpload(call.context, call.body, request.headers["Content-Type"], allowed)
    if kind == "application/json":
        return ReferenceRequest(call, allowed)
    message = "a job is made from multipart/form-data, application/json, application/x-ndjson or text/csv"
    raise RequestError("unsupported_media_type", message)


def _manifest_spec(query: ManifestQuery) -> JobSpec:
    options = CaptionOptions(**query.model_dump(exclude_unset=True, include=set(CaptionOptions.model_fields)))
    priority = query.priority or Priority.NORMAL
    return JobSpec(options=options, priority=priority, webhook_url=query.webhook_url)


def list_jobs(call: Call[JobsQuery]) -> Response:
    """List jobs, newest first."""
    before = read_job_cursor(call.query.cursor)
    jobs, after = call.services.store.jobs.page(call.owner, call.query.status, call.query.limit, before)
    return json_answer(JobPage(data=jobs, next_cursor=job_cursor(after)))


def read_job(call: Call[JobQuery], job_id: str) -> Response:
    """Read one job, at once or when it changes."""
    store = call.services.store.jobs
    job, version = store.get(call.owner, job_id)
    known = request.if_none_match
    news = bool(known) and not known.contains_weak(str(version))
    if call.query.wait and not job.status.final and not news:
        call.context.watch.wait(job_id, version, call.query.wait)
        job, version = store.get(call.owner, job_id)
    return unless_known(job_answer(job, version))


def cancel_job(call: Call[NoQuery], job_id: str) -> Response:
    """Stop a job; captions made so far stay."""
    store = call.services.store.jobs
    store.cancel(call.owner, job_id)
    return job_answer(*store.get(call.owner, job_id), 202)


def retry_job(call: Call[NoQuery], job_id: str) -> Response:
    """Queue the failed and canceled images of a finished job again."""
    store = call.services.store.jobs
    publish(call.services.queue, store.retry(call.owner, job_id, call.limits))
    return job_answer(*store.get(call.owner, job_id), 202)


def delete_job(call: Call[NoQuery], job_id: str) -> Response:
    """Delete a job with its images and captions."""
    call.services.store.jobs.delete(call.owner, job_id)
    return json_answer(DeletedJob(id=job_id), 202)


_STATE = ("ETag", "Retry-After")
_ACCEPTED = Answer(202, "The job.", Job, headers=("Location", *_STATE))
_ONE = ("job_not_found",)
_SUBMIT_REFUSALS = (
    "invalid_request",
    "model_not_available",
    "upload_incomplete",
    "forbidden",
    "not_acceptable",
    "idempotency_conflict",
    "idempotency_in_progress",
    "upload_too_large",
    "too_many_images",
    "unsupported_media_type",
    "quota_exceeded",
)
_UPLOAD = {
    "type": "object",
    "properties": {
        "job": {"$ref": "#/components/schemas/JobSpec"},
        "images": {
            "type": "array",
            "items": FILE,
        },
        "archive": {
            **FILE,
            "description": "A zip or tar (.tar.gz, .tar.bz2, .tar.xz) of images, instead of images.",
        },
    },
}

JOB_ROUTES = (
    Route(
        "POST",
        "/v1/jobs",
        create_job,
        "Make a job",
        (_ACCEPTED,),
        query=ManifestQuery,
        takes=(
            Media("multipart/form-data", schema=_UPLOAD, parts=(JobSpec,)),
            Media("application/json", JobRequest),
            Media("application/x-ndjson", ImageReference),
            Media("text/csv", schema={"type": "string", "description": "s3_uri or url, custom_id."}),
        ),
        headers=("Idempotency-Key",),
        refusals=_SUBMIT_REFUSALS,
        scope=Scope.SUBMIT,
    ),
    Route(
        "GET",
        "/v1/jobs",
        list_jobs,
        "List jobs",
        (Answer(200, "A page of jobs.", JobPage),),
        JobsQuery,
        scope=Scope.READ,
    ),
    Route(
        "GET",
        "/v1/jobs/{job_id}",
        read_job,
        "Read a job",
        (
            Answer(200, "The job.", Job, headers=_STATE),
            Answer(304, "The job has not changed.", headers=_STATE),
        ),
        JobQuery,
        headers=("If-None-Match",),
        refusals=_ONE,
        scope=Scope.READ,
    ),
    Route(
        "DELETE",
        "/v1/jobs/{job_id}",
        delete_job,
        "Delete a job",
        (Answer(202, "The job is gone; its images and rows follow.", DeletedJob),),
        refusals=_ONE,
        scope=Scope.SUBMIT,
    ),
    Route(
        "POST",
        "/v1/jobs/{job_id}/cancel",
        cancel_job,
        "Cancel a job",
        (_ACCEPTED,),
        refusals=(*_ONE, "job_state_conflict"),
        scope=Scope.SUBMIT,
    ),
    Route(
        "POST",
        "/v1/jobs/{job_id}/retry",
        retry_job,
        "Retry what failed",
        (_ACCEPTED,),
        refusals=(*_ONE, "job_state_conflict", "quota_exceeded"),
        scope=Scope.SUBMIT,
    ),
)
