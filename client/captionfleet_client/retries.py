"""When a call is repeated, and after how long."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from captionfleet_client.errors import ApiError, CaptionfleetError, ConnectionFailed, Unavailable


@dataclass(frozen=True)
class Retry:
    """A call that is about to be repeated in ``pause_s`` seconds, after ``attempt`` tries."""

    attempt: int
    pause_s: float
    reason: str


@dataclass(frozen=True)
class Retries:
    """How patient a client is: tries of a call, seconds between them at most, and who hears of each."""

    attempts: int = 10
    longest_pause_s: float = 60.0
    on_retry: Callable[[Retry], None] = lambda _: None

    def after(self, error: CaptionfleetError, attempt: int, *, safe: bool) -> float | None:
        """Return the seconds until the next try, ``None`` where there shall be none.

        A call that is not ``safe`` to repeat is repeated only when the server cannot have acted on it.
        """
        if attempt >= self.attempts or not _passing(error, safe=safe):
            return None
        asked = error.retry_after if isinstance(error, ApiError) else None
        if _used_up(error) and (asked or 0) > self.longest_pause_s:
            return None
        # Jitter keeps many waiting clients from coming back at the same moment.
        jitter = random.uniform(0.5, 1.0)  # noqa: S311
        pause = asked if asked is not None else min(2 ** (attempt - 1), 15) * jitter
        pause = min(pause, self.longest_pause_s)
        reason = error.reason if isinstance(error, ConnectionFailed) else str(error)
        self.on_retry(Retry(attempt, pause, reason))
        return pause


def may_have_acted(error: CaptionfleetError) -> bool:
    """Whether the server may have done what a call asked although it failed in a way that passes."""
    if isinstance(error, ConnectionFailed):
        return not error.unsent
    return isinstance(error, Unavailable) and error.status != 429


def _used_up(error: CaptionfleetError) -> bool:
    """Whether a quota is used up: it does not come back before its time, as a busy server may."""
    return isinstance(error, ApiError) and error.code == "quota_exceeded"


def _passing(error: CaptionfleetError, *, safe: bool) -> bool:
    if isinstance(error, ConnectionFailed) and not error.met:
        # A server that never answered is a wrong address, or not started: that does not pass by waiting.
        return False
    if isinstance(error, ConnectionFailed | Unavailable):
        return safe or not may_have_acted(error)
    return isinstance(error, ApiError) and error.code == "idempotency_in_progress"
