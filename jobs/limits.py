"""How much callers may ask for: the settings' limits, and what a key says otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.settings import Settings

RATE_PATTERN = r"^ *([1-9]\d{0,8}) *(?:/|per) *([1-9]\d{0,4})? *(second|minute|hour|day)s? *$"
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


@dataclass(frozen=True)
class Rate:
    """So many requests in so many seconds."""

    requests: int
    seconds: int


@lru_cache(maxsize=256)
def parse_rate(text: str) -> Rate:
    """Read ``50/second`` or ``1000 per 10 seconds``; raise ``ValueError``."""
    match = re.fullmatch(RATE_PATTERN, text)
    if match is None:
        raise ValueError(f"{text!r} is no rate; write 50/second or 1000 per 10 seconds")
    return Rate(int(match[1]), int(match[2] or 1) * _SECONDS[match[3]])


@dataclass(frozen=True)
class Limits:
    """What a caller may do at most; ``None``: as much as wanted.

    Requests are counted by key; jobs, images and bytes by owner.
    """

    requests: str | None = None
    concurrent_jobs: int | None = None
    images_per_day: int | None = None
    bytes_per_day: int | None = None
    images_per_job: int | None = None

    def changed(self, changes: Mapping[str, Any]) -> Limits:
        """Return these limits but for what a key says otherwise; names of a newer version are not read."""
        known = {name: limit for name, limit in changes.items() if name in _NAMES}
        return replace(self, **known) if known else self


_NAMES = frozenset(field.name for field in fields(Limits))
NO_LIMITS = Limits()


def usual_limits(settings: Settings) -> Limits:
    """Return the limits of keys that say nothing else."""
    limited = settings.keys_required and settings.rate_limit != "none"
    return Limits(
        requests=settings.rate_limit if limited else None,
        concurrent_jobs=settings.concurrent_jobs,
        images_per_day=settings.images_per_day,
        bytes_per_day=settings.bytes_per_day,
    )


def images_per_job(most: int, limits: Limits | None) -> int:
    """Return how many images a job may hold: a key's limit narrows that of the settings."""
    own = limits.images_per_job if limits else None
    return most if own is None else min(most, own)
