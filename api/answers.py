"""How jobs and other records become responses."""

from __future__ import annotations

import math

from flask import Response, request
from pydantic import BaseModel

from jobs.records import Job

LONGEST_RETRY_S = 30


def json_answer(body: BaseModel, status: int = 200, **headers: str) -> Response:
    """Return a record as JSON; header names are written with underscores."""
    response = Response(body.model_dump_json() + "\n", status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    for name, value in headers.items():
        response.headers[name.replace("_", "-")] = value
    return response


def job_answer(job: Job, version: int, status: int = 200) -> Response:
    """Return a job with its version as ETag and, while it is not final, when to come again."""
    response = json_answer(job, status)
    # Weak: rate and remaining time move without a new version.
    response.set_etag(str(version), weak=True)
    response.headers["Cache-Control"] = "private, no-cache"
    if status == 202:
        response.headers["Location"] = job.links.self
    if not job.status.final:
        response.headers["Retry-After"] = str(retry_after(job))
    return response


def unless_known(response: Response) -> Response:
    """Return the response, or 304 where the client has this version already."""
    etag, _ = response.get_etag()
    if etag is not None and request.if_none_match.contains_weak(etag):
        headers = {name: value for name, value in response.headers.items() if name in _KEPT}
        return Response(status=304, headers=headers)
    return response


_KEPT = {"ETag", "Retry-After", "Cache-Control"}


def retry_after(job: Job) -> int:
    """Return in how many seconds a job is worth another look."""
    if job.eta_seconds is None:
        return 1
    return max(1, min(LONGEST_RETRY_S, math.ceil(job.eta_seconds)))
