"""Who calls: the owner of the API key, or the one local user of embedded mode."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from flask import Request

from jobs.errors import RequestError
from jobs.settings import Settings, is_loopback
from jobs.store.keys import LOCAL_OWNER

REMEMBERED_S = 3.0
MOST_REMEMBERED = 1000
_BEARER = re.compile(r"bearer +([\x21-\x7e]{1,256})", re.IGNORECASE)


class KeyRing:
    """Valid keys seen in the last few seconds, by hash; a revoked key works no longer than that."""

    def __init__(self, owner_of: Callable[[str], str | None]) -> None:
        self._owner_of = owner_of
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[str, float]] = {}

    def owner(self, key: str) -> str | None:
        """Return whose key this is, or ``None`` for unknown and revoked ones."""
        digest = hashlib.sha256(key.encode()).digest()
        with self._lock:
            owner, until = self._known.get(digest, (None, 0.0))
        if owner is not None and time.monotonic() < until:
            return owner
        owner = self._owner_of(key)
        with self._lock:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            if owner is None:
                self._known.pop(digest, None)
            else:
                self._known[digest] = (owner, time.monotonic() + REMEMBERED_S)
        return owner


def authenticate(settings: Settings, keys: KeyRing, request: Request) -> str:
    """Return the caller's owner; raise ``RequestError`` unauthorized or forbidden."""
    if not settings.keys_required:
        if settings.embedded:
            _refuse_other_sites(request)
        return LOCAL_OWNER
    header = request.headers.get("Authorization")
    if header is None:
        raise RequestError("unauthorized", "this call needs the header `Authorization: Bearer <API key>`")
    match = _BEARER.fullmatch(header.strip())
    owner = keys.owner(match[1]) if match else None
    if owner is None:
        raise RequestError("unauthorized", "the API key is unknown or revoked")
    return owner


def _refuse_other_sites(request: Request) -> None:
    """Without keys, keep web pages of other sites out: they can reach this machine through its browser.

    A page can send simple requests to 127.0.0.1 (its Origin gives it away), and read the answers once its
    own name resolves to 127.0.0.1 (the Host gives it away).
    """
    host = request.headers.get("Host", "localhost")
    if not is_loopback(urlsplit(f"//{host}").hostname or ""):
        message = f"without API keys only this machine is served, not {host}: set CAPTIONFLEET_REQUIRE_KEYS=1"
        raise RequestError("forbidden", message)
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != host:
        raise RequestError("forbidden", f"pages of {origin} may not use this API")
