"""The URL guard: the one way to call an address that a client named, without becoming the client's tool.

Every connection, also after a redirect, goes to an address that was checked: the name is resolved once, the
connection is made to that very address (so a second answer of the name server changes nothing), and Host and
the TLS name stay the URL's own. Proxies of the environment are not used: they would resolve names themselves.
"""

from __future__ import annotations

import io
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import IO, Any
from urllib.parse import quote, urljoin, urlsplit

from jobs.addresses import Trusted, is_public, parse_address
from jobs.errors import ItemCode, ItemError

log = logging.getLogger(__name__)

SCHEMES = {"http": 80, "https": 443}
# Below 1024 only the web's own: mail, shells and databases of old are nobody's image host.
FIRST_FREE_PORT = 1024
LONGEST_URL = 2048
CONNECT_S = 10.0
REDIRECTS = 5
BLOCK_BYTES = 64 * 1024
AGENT = "captionfleet"
_REDIRECTING = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({404, 410})
_DENIED = frozenset({401, 403})
_PASSING = frozenset({408, 425, 429})
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")
_SAFE_IN_PATH = "/%:@!$&'()*+,;=~-._"


class UrlError(ItemError):
    """A URL that was not fetched; ``passing`` where another try may succeed.

    The code is ``url_forbidden`` where it may not be called at all. No message tells what a name resolves to.
    """

    def __init__(self, code: ItemCode, message: str, *, passing: bool = False) -> None:
        super().__init__(code, message)
        self.passing = passing


@dataclass(frozen=True)
class Limits:
    """What a fetch may take: bytes of the body, seconds in all, and types by their beginnings (none: any)."""

    max_bytes: int
    timeout_s: float
    types: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fetched:
    """What an address served in the end, after redirects."""

    url: str
    content_type: str
    body: bytes


@dataclass(frozen=True)
class Reply:
    """The answer to a POST: its status and the beginning of its body."""

    status: int
    body: bytes


@dataclass(frozen=True)
class _Target:
    """A URL taken apart: ``authority`` is what the Host header says, ``path`` includes the query."""

    scheme: str
    host: str
    port: int
    authority: str
    path: str


class UrlGuard:
    """Calls URLs that clients name; ``allowed`` are hosts and networks to reach although they are not public.

    ``tls`` replaces the system's trust in certificate authorities.
    """

    def __init__(self, allowed: Sequence[str] = (), tls: ssl.SSLContext | None = None) -> None:
        self._trusted = Trusted.parse(allowed)
        self._tls = tls
        self._lock = threading.Lock()

    def check(self, url: str) -> None:
        """Raise ``UrlError`` url_forbidden for what can be refused without asking a name server."""
        host = self._parse(url).host
        try:
            permitted = self._permits(host) or self._trusted.host(host)
        except ValueError:
            return  # A name: what it resolves to is looked at when it is called.
        if not permitted:
            raise _forbidden("the address of the URL is not a public one")

    def fetch(self, url: str, limits: Limits) -> Fetched:
        """Return what a GET of ``url`` serves, following redirects; raise ``UrlError``."""
        deadline = time.monotonic() + limits.timeout_s
        for _ in range(REDIRECTS + 1):
            with self._call("GET", url, deadline, headers={"Accept": "image/*, */*;q=0.1"}) as response:
                if response.status not in _REDIRECTING:
                    return Fetched(url, *_content(response, limits))
                url = _next(url, response)
        raise UrlError(ItemCode.DOWNLOAD_FAILED, f"the address redirects more than {REDIRECTS} times")

    def post(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float, max_bytes: int
    ) -> Reply:
        """POST once, without following redirects; return any status, or raise ``UrlError``."""
        deadline = time.monotonic() + timeout_s
        with self._call("POST", url, deadline, body=body, headers=headers) as response:
            return Reply(response.status, response.read1(max_bytes))

    @contextmanager
    def _call(
        self, method: str, url: str, deadline: float, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> Iterator[HTTPResponse]:
        target = self._parse(url)
        with _translated(), self._connect(target, deadline) as connected:
            connection = HTTPConnection(target.host, target.port)
            # Handed a connected socket, http.client neither resolves nor connects by itself.
            connection.sock = _TimedSocket(connected, deadline)
            fixed = {"Host": target.authority, "User-Agent": AGENT, "Accept-Encoding": "identity"}
            connection.request(method, target.path, body, {**headers, **fixed, "Connection": "close"})
            with connection.getresponse() as response:
                yield response

    def _parse(self, url: str) -> _Target:
        if len(url) > LONGEST_URL or _UNSAFE.search(url):
            raise _forbidden(f"the URL has control characters or more than {LONGEST_URL} characters")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
            host = host if host.isascii() else host.encode("idna").decode()
        except ValueError as error:
            raise _forbidden("the URL is not a valid one") from error
        if parts.scheme not in SCHEMES or not host:
            raise _forbidden("only http:// and https:// URLs with a host are called")
        if "@" in parts.netloc:
            raise _forbidden("a URL with a user name or password is not called")
        port = SCHEMES[parts.scheme] if port is None else port
        if port not in SCHEMES.values() and port < FIRST_FREE_PORT and not self._trusted.host(host):
            raise _forbidden(f"port {port} is not called")
        return _Target(parts.scheme, host, port, _authority(parts.scheme, host, port), _path(parts))

    @contextmanager
    def _connect(self, target: _Target, deadline: float) -> Iterator[socket.socket]:
        """Connect to the first permitted address that answers, and no other."""
        failure: OSError = TimeoutError("no time is left")
        for family, name in self._resolve(target):
            with socket.socket(family, socket.SOCK_STREAM) as plain:
                try:
                    plain.settimeout(min(CONNECT_S, _left(deadline)))
                    plain.connect(name)
                except OSError as error:
                    failure = error
                    continue
                with self._secured(plain, target, deadline) as secured:
                    yield secured
                return
        raise failure

    def _resolve(self, target: _Target) -> list[tuple[int, Any]]:
        """Return the addresses of a host that may be connected to; raise ``UrlError``."""
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            passing = error.errno == socket.EAI_AGAIN
            message = "the host name of the URL cannot be resolved"
            raise UrlError(ItemCode.DOWNLOAD_FAILED, message, passing=passing) from error
        except UnicodeError as error:
            raise _forbidden("the host name of the URL is not a valid one") from error
        by_name = self._trusted.host(target.host)
        permitted: list[tuple[int, Any]] = [
            (family, name) for family, _, _, _, name in found if by_name or self._permits(str(name[0]))
        ]
        if not permitted:
            log.info("a URL of host %s was refused: none of its addresses is public", target.host)
            raise _forbidden("the host of the URL has no public address")
        return permitted

    def _permits(self, text: str) -> bool:
        address = parse_address(text)
        return is_public(address) or self._trusted.address(address)

    def _secured(self, plain: socket.socket, target: _Target, deadline: float) -> socket.socket:
        if target.scheme == "http":
            return plain
        plain.settimeout(_left(deadline))
        return self._tls_context().wrap_socket(plain, server_hostname=target.host)

    def _tls_context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
            return self._tls


class _TimedSocket:
    """The part of a socket that http.client uses, every wait bounded by one deadline of the whole exchange.

    With a time-out for each read, a server that sends a byte now and then would hold a thread for days.
    """

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._connected = connected
        self._deadline = deadline

    def sendall(self, data: Any) -> None:
        """Send everything."""
        self._connected.settimeout(_left(self._deadline))
        self._connected.sendall(data)

    def makefile(self, mode: str) -> IO[bytes]:
        """Return a reader of what comes."""
        return io.BufferedReader(_TimedReader(self._connected, self._deadline), BLOCK_BYTES)

    def close(self) -> None:
        """Leave closing to whoever connected."""


class _TimedReader(io.RawIOBase):
    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._connected = connected
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connected.settimeout(_left(self._deadline))
        return self._connected.recv_into(buffer)


def _content(response: HTTPResponse, limits: Limits) -> tuple[str, bytes]:
    """Return type and body of a successful answer within its limits; raise ``UrlError``."""
    _accept_status(response.status)
    content_type = response.headers.get_content_type() if response.headers.get("Content-Type") else ""
    if limits.types and content_type and not content_type.startswith(limits.types):
        message = f"the address serves {ascii(content_type)[1:80]}, not an image"
        raise UrlError(ItemCode.UNSUPPORTED_FORMAT, message)
    body = io.BytesIO()
    if (response.length or 0) > limits.max_bytes:
        raise _too_large(limits)
    while block := response.read1(BLOCK_BYTES):
        body.write(block)
        if body.tell() > limits.max_bytes:
            raise _too_large(limits)
    if response.length:
        raise UrlError(ItemCode.DOWNLOAD_FAILED, "the connection ended within the body", passing=True)
    return content_type, body.getvalue()


def _accept_status(status: int) -> None:
    if status in (200, 203):
        return
    if status in _GONE:
        raise UrlError(ItemCode.OBJECT_NOT_FOUND, f"the address answers {status}: there is nothing")
    if status in _DENIED:
        raise UrlError(ItemCode.ACCESS_DENIED, f"the address answers {status}: it lets nobody read")
    passing = status in _PASSING or status >= 500
    raise UrlError(ItemCode.DOWNLOAD_FAILED, f"the address answers {status}", passing=passing)


def _next(url: str, response: HTTPResponse) -> str:
    location = response.headers.get("Location")
    if not location:
        raise UrlError(ItemCode.DOWNLOAD_FAILED, f"the address answers {response.status} without a Location")
    try:
        return urljoin(url, location.strip())
    except ValueError as error:
        raise _forbidden("the address redirects to what is not a valid URL") from error


def _authority(scheme: str, host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port == SCHEMES[scheme] else f"{name}:{port}"


def _path(parts: Any) -> str:
    path = quote(parts.path or "/", safe=_SAFE_IN_PATH)
    return f"{path}?{quote(parts.query, safe=_SAFE_IN_PATH + '?')}" if parts.query else path


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no time is left")
    return left


def _forbidden(message: str) -> UrlError:
    return UrlError(ItemCode.URL_FORBIDDEN, message)


def _too_large(limits: Limits) -> UrlError:
    return UrlError(ItemCode.IMAGE_TOO_LARGE, f"the address serves more than {limits.max_bytes} bytes")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        message = f"the certificate of the address is not valid: {error.verify_message}"
        raise UrlError(ItemCode.DOWNLOAD_FAILED, message) from error
    except TimeoutError as error:
        raise UrlError(ItemCode.DOWNLOAD_FAILED, "the address takes too long", passing=True) from error
    except (OSError, HTTPException) as error:
        message = f"the address does not answer as it should: {type(error).__name__}"
        raise UrlError(ItemCode.DOWNLOAD_FAILED, message, passing=True) from error
