"""Counting requests: with Redis, without, and while it is away."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
import redis

from api.limiting import AWAY_S, REDIS_TIMEOUT_S, RateLimiter
from jobs.callers import Caller
from jobs.limits import Limits
from jobs.settings import Settings
from tests.servers import Redis

ANN = Caller("ann", frozenset(), "0000abcd")
LIMITS = Limits(requests="100/day")


def left(limiter: RateLimiter, caller: Caller = ANN) -> int | None:
    standing = limiter.hit(caller, LIMITS)
    return None if standing is None else standing.left


def distributed(redis: Redis) -> RateLimiter:
    url = "postgresql://nobody@localhost/none"
    return RateLimiter(Settings(redis_url=redis.url, database_url=url, bucket="none"))


def test_processes_count_together_in_redis(redis_server: Redis) -> None:
    first, second = distributed(redis_server), distributed(redis_server)
    assert [left(first), left(second), left(first)] == [99, 98, 97]
    assert left(second, Caller("ann", frozenset(), "0000abce")) == 99
    for limiter in (first, second):
        limiter.close()


def test_without_redis_this_process_counts(tmp_path: Path) -> None:
    limiter = RateLimiter(Settings(data_dir=tmp_path))
    assert [left(limiter), left(limiter)] == [99, 98]
    assert limiter.hit(ANN, Limits()) is None
    limiter.close()


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_while_redis_is_away_nothing_is_refused_and_little_waited_for(
    redis_server: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    limiter = distributed(redis_server)
    assert left(limiter) == 99
    getattr(redis_server, how)()
    caplog.set_level(logging.WARNING)
    began = time.monotonic()
    assert [left(limiter) for _ in range(50)] == [None] * 50
    assert time.monotonic() - began < 50 * REDIS_TIMEOUT_S / 2, "every request waited for Redis"
    assert caplog.text.count("requests are not limited") == 1
    getattr(redis_server, "start" if how == "kill" else "resume")()
    with redis.Redis.from_url(redis_server.url) as other:
        assert other.ping()
    away = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: away + AWAY_S + 1)
    assert left(limiter) is not None
    limiter.close()
