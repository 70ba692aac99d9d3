"""Every refusal as RFC 9457 problem details with a stable code, the framework's own refusals included."""

from __future__ import annotations

import logging
from http import HTTPStatus

from flask import Flask, Response, g
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from jobs.errors import REQUEST_STATUS, RequestError, TransientError
from jobs.records import Problem

log = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"
TRANSIENT_RETRY_S = 5
_CODES = {status: code for code, status in reversed(REQUEST_STATUS.items())}


def problem_body(code: str, status: int, detail: str, request_id: str) -> Problem:
    """Return the body of a refusal."""
    title = code.replace("_", " ").capitalize()
    return Problem(
        type=f"/docs#{code}", title=title, status=status, detail=detail, code=code, request_id=request_id
    )


def problem(code: str, status: int, detail: str, **headers: str) -> Response:
    """Return a refusal; header names are written with underscores."""
    body = problem_body(code, status, detail, g.get("request_id", ""))
    response = Response(body.model_dump_json() + "\n", status, content_type=PROBLEM_TYPE)
    for name, value in headers.items():
        response.headers[name.replace("_", "-")] = value
    response.headers["Cache-Control"] = "no-store"
    return response


def register_problems(app: Flask) -> None:
    """Answer every error of an application with a problem."""
    app.register_error_handler(RequestError, _refused)
    app.register_error_handler(TransientError, _away)
    app.register_error_handler(HTTPException, _framework)
    app.register_error_handler(Exception, _unexpected)


def _refused(error: RequestError) -> Response:
    headers = {"Retry_After": str(error.retry_after)} if error.retry_after is not None else {}
    if error.code == "unauthorized":
        headers["WWW_Authenticate"] = 'Bearer realm="captionfleet"'
    return problem(error.code, error.status, error.message, **headers)


def _away(error: TransientError) -> Response:
    log.warning("request %s: %s", g.get("request_id"), error)
    detail = f"{error.code.removesuffix('_unavailable')} does not answer at the moment; please try again"
    return problem(error.code, HTTPStatus.SERVICE_UNAVAILABLE, detail, Retry_After=str(TRANSIENT_RETRY_S))


def _framework(error: HTTPException) -> Response:
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        return problem("method_not_allowed", status, f"this address takes {allowed}", Allow=allowed)
    if isinstance(error, NotFound):
        return problem("not_found", status, "there is nothing at this address")
    usual = "invalid_request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal_error"
    return problem(_CODES.get(status, usual), status, error.description or status.phrase)


def _unexpected(error: Exception) -> Response:
    log.error("request %s failed", g.get("request_id"), exc_info=error)
    detail = "the server made a mistake; its log tells more under this request id"
    return problem("internal_error", HTTPStatus.INTERNAL_SERVER_ERROR, detail)
