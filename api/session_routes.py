"""Routes of browser sessions: a key is shown once, then a cookie that no script can read stands for it."""

from __future__ import annotations

from datetime import datetime

from flask import Response, request

from api.answers import json_answer
from api.auth import SESSION_COOKIE, csrf_token
from api.limiting import check_rate
from api.origins import is_secure, refuse_other_sites
from api.routes import Answer, Call, Media, NoQuery, Route
from jobs.callers import LOCAL_CALLER, Caller, in_order
from jobs.errors import RequestError
from jobs.records import Session, SignIn

SIGN_IN_BYTES = 4096


def create_session(call: Call[NoQuery]) -> Response:
    """Begin a browser session: the answer sets a cookie that stands for the key until one of both ends."""
    refuse_other_sites(request)
    given = call.json(SignIn, SIGN_IN_BYTES)
    if not call.services.settings.keys_required:
        return json_answer(_session(LOCAL_CALLER, None))
    caller = call.context.doors.keys.caller(given.key)
    if caller is None or caller.key_id is None:
        raise RequestError("unauthorized", "the API key is unknown, expired or revoked")
    check_rate(call.context.limiter, caller, call.context.limits.changed(caller.limits))
    seconds = call.services.settings.session_hours * 3600
    token, ends = call.services.store.sessions.create(caller.key_id, seconds)
    answer = json_answer(_session(caller, token, min(ends, caller.expires_at or ends)))
    answer.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=round(seconds),
        httponly=True,
        samesite="Strict",
        secure=is_secure(request),
    )
    return answer


def read_session(call: Call[NoQuery]) -> Response:
    """Say who calls; in a session also what its other calls must show."""
    return json_answer(_session(call.caller, _cookie(call)))


def end_session(call: Call[NoQuery]) -> Response:
    """End a browser session."""
    token = _cookie(call)
    if token is not None:
        call.services.store.sessions.end(token)
        call.context.doors.sessions.forget(token)
    answer = Response(status=204, headers={"Cache-Control": "no-store"})
    answer.delete_cookie(SESSION_COOKIE, httponly=True, samesite="Strict", secure=is_secure(request))
    return answer


def _cookie(call: Call[NoQuery]) -> str | None:
    """Return the token of the session that a call is made in, if it is made in one."""
    if "Authorization" in request.headers or call.caller.key_id is None:
        return None
    return request.cookies.get(SESSION_COOKIE)


def _session(caller: Caller, token: str | None, ends: datetime | None = None) -> Session:
    return Session(
        owner=caller.owner,
        scopes=in_order(caller.scopes),
        csrf_token=csrf_token(token) if token else None,
        expires_at=ends or caller.expires_at,
    )


SESSION_ROUTES = (
    Route(
        "POST",
        "/v1/session",
        create_session,
        "Begin a browser session",
        (Answer(200, "The session; its cookie is set.", Session, headers=("Set-Cookie",)),),
        takes=(Media("application/json", SignIn),),
        refusals=("unauthorized", "forbidden", "unsupported_media_type", "upload_too_large", "rate_limited"),
        keyless=True,
        tag="keys",
        scope=None,
    ),
    Route(
        "GET",
        "/v1/session",
        read_session,
        "Who calls?",
        (Answer(200, "The caller.", Session),),
        tag="keys",
        scope=None,
    ),
    Route(
        "DELETE",
        "/v1/session",
        end_session,
        "End a browser session",
        (Answer(204, "It has ended; its cookie is gone."),),
        tag="keys",
        scope=None,
    ),
)
