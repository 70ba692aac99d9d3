"""What is wrong with something a client sent, in one sentence."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jobs.errors import RequestError

# Each takes half a kilobyte to say, and a request has room for a million unknown fields.
_MOST_SAID = 1000


def invalid(error: ValidationError, subject: str) -> RequestError:
    """Say a validation error in one sentence about ``subject``, such as "the job part"."""
    if error.error_count() > _MOST_SAID:
        message = f"{subject}: {error.error_count():,} fields are unknown or wrong"
        return RequestError("invalid_request", message)
    errors = error.errors(include_url=False, include_context=True, include_input=False)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return RequestError("invalid_request", f"{subject}: {_sentence(errors[0])}{more}")


def _sentence(error: ErrorDetails) -> str:
    field = _path(error["loc"])
    match error["type"]:
        case "json_invalid":
            return f"not valid JSON: {error.get('ctx', {}).get('error', '')}"
        case "extra_forbidden":
            return f"unknown field {field}"
        case "missing":
            return f"{field} is missing"
    # What our own checks say comes with a heading of pydantic's.
    said = error["msg"].removeprefix("Value error, ")
    message = said[0].lower() + said[1:]
    return f"{field}: {message}" if field else message


def _path(location: tuple[int | str, ...]) -> str:
    """Return ``images[3].s3_uri`` for ``("images", 3, "s3_uri")``."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")
