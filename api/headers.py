"""What all requests have in common: an id, a line in the log, headers that keep browsers safe."""

from __future__ import annotations

import logging
import re
import time
from urllib.parse import quote, urlsplit

from flask import Flask, Response, g, request

from api.metering import note_received
from api.routes import request_body
from jobs.errors import TransientError
from jobs.ids import new_id
from jobs.logs import forget_ids, note_ids
from jobs.objects import ObjectStore
from jobs.services import Services
from jobs.settings import Settings

log = logging.getLogger("captionfleet.requests")

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
SANDBOX = f"{NOTHING}; sandbox"


def page_policy(services: Services) -> str:
    """Return the page's Content-Security-Policy: its own files and API, and S3 for its uploads and images."""
    bucket = _bucket_origin(services.objects)
    return (
        f"{NOTHING}; script-src 'self'; style-src 'self'; connect-src 'self'{bucket}; "
        f"img-src 'self'{bucket}{_sources_origin(services.settings)}; "
        "require-trusted-types-for 'script'; trusted-types lit-html"
    )


def _bucket_origin(objects: ObjectStore) -> str:
    """Return where presigned addresses of uploads lead, as a further source."""
    try:
        url = objects.upload_url("page", "image/jpeg", 1, 1)
    except TransientError:
        # Without credentials nothing can be sent there anyway, and readiness says so.
        return ""
    return f" {_origin(url)}" if url else ""


def _sources_origin(settings: Settings) -> str:
    """Return where the images of jobs from S3 lie: at AWS each bucket has a host of its own."""
    server = settings.s3_public_url or settings.s3_endpoint
    if server:
        return f" {_origin(server)}"
    return "" if settings.bucket is None else " https://*.amazonaws.com"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def register_headers(app: Flask) -> None:
    """Number, guard and log every request of an application."""
    app.before_request(_begin)
    app.after_request(_guard)
    app.after_request(_end)


def _begin() -> None:
    g.began = time.monotonic()
    sent = request.headers.get("X-Request-Id", "")
    g.request_id = sent if _SANE_ID.fullmatch(sent) else new_id("req")
    forget_ids()
    note_ids(request=g.request_id)


def _guard(response: Response) -> Response:
    headers = response.headers
    headers["X-Request-Id"] = g.request_id
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["X-Frame-Options"] = "DENY"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers.setdefault("Content-Security-Policy", NOTHING)
    return response


def _end(response: Response) -> Response:
    request_body().settle(response)
    note_received(request_body())
    level = logging.DEBUG if request.path in _QUIET else logging.INFO
    milliseconds = (time.monotonic() - g.began) * 1000
    fields = {
        "method": request.method,
        "path": quote(request.path),
        "status": response.status_code,
        "ms": round(milliseconds),
        "owner": g.get("owner") or "-",
    }
    line = "%(method)s %(path)s %(status)d %(ms)d ms owner=%(owner)s"
    log.log(level, line + f" id={g.request_id}", fields, extra={"fields": fields})
    return response
