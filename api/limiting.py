"""Requests per second: each key has so many, counted in Redis for all API processes, or in memory.

The headers are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass

from flask import Flask, Response, g
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage, Storage

from jobs.callers import Caller
from jobs.errors import RequestError
from jobs.limits import Limits, Rate, parse_rate
from jobs.settings import Settings

log = logging.getLogger(__name__)

PREFIX = "captionfleet-rate"
POLICY = "requests"
# One question to Redis a request; what takes longer is not waited for.
REDIS_TIMEOUT_S = 0.25
# After Redis did not answer, for how long it is not asked.
AWAY_S = 5.0


@dataclass(frozen=True)
class Standing:
    """How a key stands: its rate, the requests left in this window, and when the next one begins."""

    rate: Rate
    left: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """Return what tells a client so."""
        return {
            "RateLimit-Policy": f'"{POLICY}";q={self.rate.requests};w={self.rate.seconds}',
            "RateLimit": f'"{POLICY}";r={max(0, self.left)};t={self.reset_s}',
        }


class RateLimiter:
    """Counts requests by key in windows of fixed length. While Redis is away nothing is refused."""

    def __init__(self, settings: Settings) -> None:
        self._redis_url = settings.redis_url
        self._away_until = 0.0
        self._lock = threading.Lock()
        self._made: Storage | None = None

    def hit(self, caller: Caller, limits: Limits) -> Standing | None:
        """Count a request; ``None`` where nothing limits it.

        Raises ``RequestError`` rate_limited with the seconds until the next window.
        """
        if limits.requests is None or time.monotonic() < self._away_until:
            return None
        rate = parse_rate(limits.requests)
        now = time.time()
        window = int(now // rate.seconds)
        count = self._count(f"{caller.key_id or caller.owner}/{rate.seconds}/{window}", rate.seconds)
        if count is None:
            return None
        reset = max(1, math.ceil((window + 1) * rate.seconds - now))
        return Standing(rate, rate.requests - count, reset)

    def close(self) -> None:
        """Let go of the connections to Redis."""
        with self._lock:
            if isinstance(self._made, RedisStorage):
                self._made.storage.close()

    def _count(self, name: str, seconds: int) -> int | None:
        try:
            # Kept a little longer than the window: clocks of hosts differ.
            return self._storage.incr(f"{PREFIX}/{name}", seconds + 5)
        except StorageError as error:
            self._away_until = time.monotonic() + AWAY_S
            log.warning("requests are not limited, for Redis does not answer: %s", error.storage_error)
            return None

    @property
    def _storage(self) -> Storage:
        """Where requests are counted; made when it is first used, in the process that uses it."""
        with self._lock:
            if self._made is None:
                self._made = _redis(self._redis_url) if self._redis_url else MemoryStorage()
            return self._made


def _redis(url: str) -> Storage:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options = {"socket_timeout": REDIS_TIMEOUT_S, "socket_connect_timeout": REDIS_TIMEOUT_S}
    # Once more at once: a connection that was idle may have been closed.
    retry = Retry(NoBackoff(), 1)
    return RedisStorage(url, wrap_exceptions=True, retry=retry, **options)  # type: ignore[arg-type]


def check_rate(limiter: RateLimiter, caller: Caller, limits: Limits) -> None:
    """Count the present request; raise ``RequestError`` rate_limited. Its answer says how the key stands."""
    standing = limiter.hit(caller, limits)
    g.standing = standing
    if standing is not None and standing.left < 0:
        rate = standing.rate
        message = f"this key may send {rate.requests} requests in {rate.seconds} s"
        raise RequestError("rate_limited", message, retry_after=standing.reset_s)


def register_limiting(app: Flask) -> None:
    """Say on every answer how its key stands."""
    app.after_request(_say)


def _say(response: Response) -> Response:
    standing: Standing | None = g.get("standing")
    if standing is not None:
        response.headers.extend(standing.headers())
    return response
