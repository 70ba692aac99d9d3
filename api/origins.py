"""How callers came here; and keeping web pages of other sites out, which come through a browser that may."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from flask import Request

from jobs.errors import RequestError
from jobs.settings import is_loopback

# What browsers say of requests by a page's own site, and by a person: addresses typed, bookmarks.
_OWN = frozenset({"same-origin", "none"})


def is_secure(request: Request) -> bool:
    """Whether the caller came by HTTPS; a proxy that ends it says so. A lie spoils one's own answer only."""
    return request.is_secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https"


def own_address(request: Request) -> str:
    """Return the address of this server as the caller knows it, without a slash at its end."""
    scheme = "https" if is_secure(request) else "http"
    return f"{scheme}://{request.host}"


def refuse_other_hosts(request: Request) -> None:
    """Raise ``RequestError`` forbidden for names other than this machine's own.

    A page whose name comes to resolve to 127.0.0.1 could read the answers; the Host gives it away.
    """
    host = request.headers.get("Host", "localhost")
    parts = _split(f"//{host}")
    if parts is None or not is_loopback(parts.hostname or ""):
        message = f"without API keys only this machine is served, not {host}: set CAPTIONFLEET_REQUIRE_KEYS=1"
        raise RequestError("forbidden", message)


def refuse_other_sites(request: Request) -> None:
    """Raise ``RequestError`` forbidden for what a page of another site sends; its browser gives it away.

    Programs send neither header. Another port of the same host is another site.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        # Browsers judge by the address they see; behind a proxy the Host may be another one.
        if site.lower() not in _OWN:
            raise RequestError("forbidden", f"a {site} page may not use this API")
        return
    origin = request.headers.get("Origin")
    if origin is None:
        return
    parts = _split(origin)
    if parts is None or parts.netloc != request.headers.get("Host", "localhost"):
        raise RequestError("forbidden", f"pages of {origin} may not use this API")


def _split(address: str) -> SplitResult | None:
    """Take an address apart; ``None`` for what is none, such as one whose bracket is not closed."""
    try:
        return urlsplit(address)
    except ValueError:
        return None
