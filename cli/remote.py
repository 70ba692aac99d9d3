"""The HTTP side of the client commands: patient with a busy server, clear about one that is not there."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import httpx

from cli.console import CommandFailed, say
from jobs.settings import Settings, is_loopback

ATTEMPTS = 10
LONGEST_PAUSE_S = 60.0
BUSY = frozenset({429, 502, 503, 504})
Body = Callable[[], Iterable[bytes]]


class Refused(CommandFailed):
    """The server answered with an error, its stable ``code``, and ``retry_after`` seconds if it said so."""

    def __init__(self, response: httpx.Response) -> None:
        problem = _problem(response)
        self.code = str(problem.get("code", "")) or f"HTTP {response.status_code}"
        self.http_status = response.status_code
        self.retry_after = _seconds(response.headers.get("Retry-After"))
        super().__init__(f"{problem.get('detail') or response.reason_phrase} ({self.code})")


class Remote:
    """One Captionfleet server."""

    def __init__(self, settings: Settings) -> None:
        self.url = settings.url.rstrip("/")
        self._met = False
        key = settings.api_key
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(120, connect=5),
            # A proxy has no business between this machine and itself.
            trust_env=not is_loopback(httpx.URL(self.url).host),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def answers(self, path: str) -> bool:
        """Whether a GET succeeds right now."""
        try:
            return self._http.get(path).is_success
        except httpx.TransportError:
            return False

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON of a GET."""
        given = {name: value for name, value in params.items() if value is not None}
        return _json(self._patiently(lambda: self._http.get(path, params=given)))

    def post(self, path: str, body: Body | None = None, headers: Mapping[str, str] | None = None) -> Any:
        """Return the JSON of a POST.

        ``body`` makes the bytes anew for each attempt. Without an Idempotency-Key an attempt that may have
        reached the server is not repeated.
        """
        safe = headers is not None and "Idempotency-Key" in headers
        response = self._patiently(
            lambda: self._http.post(path, content=body() if body else None, headers=headers), safe=safe
        )
        return _json(response)

    def delete(self, path: str) -> None:
        """Send a DELETE."""
        self._patiently(lambda: self._http.delete(path))

    @contextmanager
    def stream(self, path: str, **params: Any) -> Iterator[Iterator[bytes]]:
        """Open a GET whose body is too large for memory."""
        try:
            with self._http.stream("GET", path, params=params) as response:
                self._met = True
                if response.is_error:
                    response.read()
                yield _accepted(response).iter_bytes()
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _patiently(self, call: Callable[[], httpx.Response], *, safe: bool = True) -> httpx.Response:
        """Call until the server answers, waiting as long as it says, or a little longer each time."""
        for attempt in itertools.count(1):
            try:
                response = call()
                self._met = True
                return _accepted(response)
            except Refused as error:
                if attempt == ATTEMPTS or not _passing(error):
                    raise
                _pause(attempt, error.retry_after, error.message)
            except httpx.TransportError as error:
                unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if attempt == ATTEMPTS or not self._met or not (safe or unsent):
                    raise self._unreachable(error) from error
                _pause(attempt, None, _reason(error))
        raise AssertionError("counting ended")

    def _unreachable(self, error: httpx.HTTPError) -> CommandFailed:
        if self._met:
            return CommandFailed(f"the connection to {self.url} broke ({_reason(error)})")
        return CommandFailed(
            f"no Captionfleet server answers at {self.url} ({_reason(error)}); "
            "start one with `captionfleet serve` or set CAPTIONFLEET_URL"
        )


def _pause(attempt: int, asked: float | None, reason: str) -> None:
    # Jitter keeps many waiting clients from coming back at the same moment.
    pause = asked if asked is not None else min(2 ** (attempt - 1), 15) * random.uniform(0.5, 1.0)  # noqa: S311
    pause = min(pause, LONGEST_PAUSE_S)
    say(f"captionfleet: {reason}; trying again in {pause:.0f} s")
    time.sleep(pause)


def _passing(error: Refused) -> bool:
    return error.http_status in BUSY or error.code == "idempotency_in_progress"


def _accepted(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    raise Refused(response)


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    return problem if isinstance(problem, dict) else {"detail": _stranger(response)}


def _json(response: httpx.Response) -> Any:
    try:
        return response.json() if response.content else None
    except ValueError as error:
        raise CommandFailed(_stranger(response)) from error


def _stranger(response: httpx.Response) -> str:
    url = response.request.url
    return f"{url.scheme}://{url.netloc.decode()} does not answer like a Captionfleet server"


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isdigit() else None


def _reason(error: httpx.HTTPError) -> str:
    return str(error).rpartition("] ")[2].strip().lower() or type(error).__name__
