"""What can go wrong, by what a caller can do about it."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx


class CaptionfleetError(Exception):
    """Base of everything this client raises; its text is one sentence for a person."""


class ApiError(CaptionfleetError):
    """The server refused a call: its stable ``code`` (docs/errors.md) and its words."""

    def __init__(
        self, code: str, detail: str, status: int, request_id: str | None, retry_after: float | None
    ) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.detail = detail
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.doubtful = False
        """Whether an earlier try of the same call may have had its effect already."""


class InvalidRequest(ApiError):
    """The call itself is wrong or too large (400, 406, 413, 415): it will be refused again."""


class AccessDenied(ApiError):
    """No key, a wrong one, or no permission for what the call names (401, 403)."""


class NotFound(ApiError):
    """There is no such job, item or address (404)."""


class Conflict(ApiError):
    """The job's state or an idempotency key does not allow the call (409)."""


class Unavailable(ApiError):
    """The server is busy or a part of it is away (429, 502, 503, 504), and stayed so."""


class ConnectionFailed(CaptionfleetError):
    """No answer: ``met`` says whether ``url`` ever answered, ``unsent`` that the call cannot have arrived."""

    def __init__(self, url: str, reason: str, *, met: bool, unsent: bool, store: bool = False) -> None:
        nobody = "no object store" if store else "no Captionfleet server"
        broke = f"the connection to {url} broke" if met else f"{nobody} answers at {url}"
        super().__init__(f"{broke} ({reason})")
        self.url = url
        self.reason = reason
        self.met = met
        self.unsent = unsent


class UnexpectedAnswer(CaptionfleetError):
    """What answered is not a Captionfleet server, or one that this client is too old for."""


class InvalidArgument(CaptionfleetError, ValueError):
    """What was given to this client cannot be sent to any server."""


class UnreadableFile(CaptionfleetError):
    """A file that is to be sent cannot be read."""


class UnusableState(CaptionfleetError):
    """The file that is to remember an upload cannot be used, or is something else."""


class FileChanged(CaptionfleetError):
    """A file became shorter while it was sent."""


class WaitTimeout(CaptionfleetError, TimeoutError):
    """The job was not over in time; it goes on, and waiting for it again is fine."""


_BY_STATUS: dict[int, type[ApiError]] = {
    **dict.fromkeys((400, 406, 413, 415), InvalidRequest),
    **dict.fromkeys((401, 403), AccessDenied),
    404: NotFound,
    409: Conflict,
    **dict.fromkeys((429, 502, 503, 504), Unavailable),
}


def refusal(response: httpx.Response, *, store: bool = False) -> ApiError:
    """Return the error that a response with an error status stands for; its body has been read.

    An object store (``store``) says what it likes; only its status is understood.
    """
    problem = _problem(response, store=store)
    code = str(problem.get("code", "")) or f"HTTP {response.status_code}"
    detail = str(problem.get("detail") or response.reason_phrase)
    kind = _BY_STATUS.get(response.status_code, ApiError)
    if store and response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
        kind = Unavailable  # S3's InternalError: "please try again", says its reference.
    request_id = problem.get("request_id") or response.headers.get("X-Request-Id")
    return kind(code, detail, response.status_code, request_id, _seconds(response.headers.get("Retry-After")))


def json_of(response: httpx.Response) -> Any:
    """Return a response's JSON, ``None`` where it has no body; raise ``UnexpectedAnswer``."""
    try:
        return response.json() if response.content else None
    except ValueError as error:
        raise UnexpectedAnswer(stranger(response)) from error


def origin(url: httpx.URL) -> str:
    """Return scheme, host and port of an address: what may be shown, for presigned ones are secret."""
    return f"{url.scheme}://{url.netloc.decode()}"


def stranger(response: httpx.Response) -> str:
    """Say that no Captionfleet server gave this response."""
    return f"{origin(response.request.url)} does not answer like a Captionfleet server"


def _problem(response: httpx.Response, *, store: bool) -> dict[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict):
        return problem
    taken = f"{origin(response.request.url)} does not take the file"
    return {"detail": taken if store else stranger(response)}


def _seconds(value: str | None) -> float | None:
    """Read Retry-After: seconds, or a date (RFC 9110, section 10.2.3)."""
    if value is None or (value.isascii() and value.isdigit()):
        return None if value is None else float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
