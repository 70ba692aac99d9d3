"""Who calls: by an API key, by a browser session that a key began, or the local user of embedded mode."""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from flask import Request

from api.origins import refuse_other_hosts, refuse_other_sites
from jobs.callers import LOCAL_CALLER, Caller
from jobs.errors import RequestError
from jobs.settings import Settings

REMEMBERED_S = 3.0
MOST_REMEMBERED = 1000
SESSION_COOKIE = "captionfleet_session"
CSRF_HEADER = "X-CSRF-Token"
_SAFE = frozenset({"GET", "HEAD"})
_BEARER = re.compile(r"bearer +([\x21-\x7e]{1,256})", re.IGNORECASE)


class Remembered:
    """Callers seen in the last few seconds, by the hash of their secret; a revoked one works no longer."""

    def __init__(self, find: Callable[[str], Caller | None]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[Caller, float]] = {}

    def caller(self, secret: str) -> Caller | None:
        """Return whose secret this is, or ``None`` for unknown, expired and revoked ones."""
        digest = _digest(secret)
        with self._lock:
            known, until = self._known.get(digest, (None, 0.0))
        if known is not None and time.monotonic() < until:
            return known
        caller = self._find(secret)
        with self._lock:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            if caller is None:
                self._known.pop(digest, None)
            else:
                self._known[digest] = (caller, time.monotonic() + REMEMBERED_S)
        return caller

    def forget(self, secret: str) -> None:
        """Look a secret up anew when it comes again."""
        with self._lock:
            self._known.pop(_digest(secret), None)


@dataclass(frozen=True)
class Doors:
    """The two ways to show who calls."""

    keys: Remembered
    sessions: Remembered


def authenticate(settings: Settings, doors: Doors, request: Request) -> Caller:
    """Return the caller; raise ``RequestError`` unauthorized, or forbidden for what other sites send."""
    if not settings.keys_required:
        if settings.embedded:
            refuse_other_hosts(request)
        refuse_other_sites(request)
        return LOCAL_CALLER
    header = request.headers.get("Authorization")
    if header is not None:
        match = _BEARER.fullmatch(header.strip())
        return _known(doors.keys.caller(match[1]) if match else None)
    token = request.cookies.get(SESSION_COOKIE)
    if token is None:
        raise RequestError("unauthorized", "this call needs the header `Authorization: Bearer <API key>`")
    refuse_other_sites(request)
    return _in_session(doors, request, token)


def _known(caller: Caller | None) -> Caller:
    if caller is None:
        raise RequestError("unauthorized", "the API key is unknown, expired or revoked")
    return caller


def _in_session(doors: Doors, request: Request, token: str) -> Caller:
    """Return a session's caller; what changes something must also show that our own page sends it."""
    caller = doors.sessions.caller(token)
    if caller is None:
        raise RequestError("unauthorized", "the session has ended; sign in again")
    shown = request.headers.get(CSRF_HEADER, "")
    if request.method not in _SAFE and not hmac.compare_digest(shown.encode(), csrf_token(token).encode()):
        message = f"in a session this call needs the header `{CSRF_HEADER}` with what GET /v1/session says"
        raise RequestError("unauthorized", message)
    return caller


def csrf_token(token: str) -> str:
    """Return what a session's page shows; it is made of the cookie, which no script can read."""
    return hashlib.sha256(b"csrf " + token.encode()).hexdigest()


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
