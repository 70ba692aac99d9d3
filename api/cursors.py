"""Where a page ends, as an opaque string for clients to hand back."""

from __future__ import annotations

import base64
import binascii
import re

from jobs.errors import RequestError
from jobs.records import LARGEST_POSITION
from jobs.store.search import Rank

_JOB = re.compile(r"j(job_[0-9a-z]{26})")
_DELIVERY = re.compile(r"d(evt_[0-9a-z]{26})")
_POSITION = re.compile(r"i([0-9]{1,10})")
_RANK = re.compile(r"s((?:-?0x[01]\.[0-9a-f]{1,13}p[+-][0-9]{1,4}|none):[0-9]{1,10})")


def job_cursor(job_id: str | None) -> str | None:
    """Return the cursor after a job."""
    return None if job_id is None else _opaque(f"j{job_id}")


def item_cursor(position: int | None) -> str | None:
    """Return the cursor after an item."""
    return None if position is None else _opaque(f"i{position}")


def rank_cursor(rank: Rank | None) -> str | None:
    """Return the cursor after an item in the order of scores."""
    if rank is None:
        return None
    # Every bit of the score: a rounded one would show items twice, or never.
    score = "none" if rank.score is None else rank.score.hex()
    return _opaque(f"s{score}:{rank.position}")


def delivery_cursor(delivery_id: str | None) -> str | None:
    """Return the cursor after a delivery."""
    return None if delivery_id is None else _opaque(f"d{delivery_id}")


def read_delivery_cursor(cursor: str | None) -> str | None:
    """Return the delivery a cursor stands after; raise ``RequestError`` invalid_request."""
    return None if cursor is None else _read(cursor, _DELIVERY)


def read_job_cursor(cursor: str | None) -> str | None:
    """Return the job a cursor stands after; raise ``RequestError`` invalid_request."""
    return None if cursor is None else _read(cursor, _JOB)


def read_item_cursor(cursor: str | None) -> int:
    """Return the position a cursor stands after, -1 without one; raise ``RequestError`` invalid_request."""
    return -1 if cursor is None else _position(_read(cursor, _POSITION))


def read_rank_cursor(cursor: str | None) -> Rank | None:
    """Return the rank a cursor stands after; raise ``RequestError`` invalid_request."""
    if cursor is None:
        return None
    score, _, position = _read(cursor, _RANK).partition(":")
    try:
        return Rank(None if score == "none" else float.fromhex(score), _position(position))
    except OverflowError as error:
        raise _refused() from error


def _opaque(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(cursor: str, form: re.Pattern[str]) -> str:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    match = form.fullmatch(text)
    if match is None:
        raise _refused()
    return match[1]


def _position(text: str) -> int:
    position = int(text)
    if position > LARGEST_POSITION:
        raise _refused()
    return position


def _refused() -> RequestError:
    return RequestError("invalid_request", "query parameter: cursor is not one that this list gave out")
