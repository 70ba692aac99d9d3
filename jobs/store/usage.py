"""What owners use up of their quotas, counted in the transactions that accept the work.

One row an owner: whoever adds to it waits for its lock, so that submissions of one owner are judged one after
the other, by whichever processes they come.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, case, func, select
from sqlalchemy.dialects import postgresql, sqlite

from jobs.errors import RequestError
from jobs.limits import Limits
from jobs.store.database import Database
from jobs.store.states import IS_ACTIVE
from jobs.tables import JobRow, UsageRow

# When to ask again for a place that any job's end may free.
JOB_RETRY_S = 30


@dataclass(frozen=True)
class Usage:
    """What an owner has used of today's quotas, and how many jobs are on their way."""

    images: int
    bytes: int
    jobs: int
    resets_at: datetime

    def check(self, limits: Limits, *, images: int = 1, size: int = 0) -> None:
        """Raise ``RequestError`` quota_exceeded where a job of so many images and bytes cannot be accepted.

        What it says may have changed when the job comes to be stored: ``charge`` decides.
        """
        if limits.concurrent_jobs is not None and self.jobs >= limits.concurrent_jobs:
            raise _too_many_jobs(limits.concurrent_jobs)
        if limits.images_per_day is not None and self.images + images > limits.images_per_day:
            raise images_used_up(limits)
        if size and limits.bytes_per_day is not None and self.bytes + size > limits.bytes_per_day:
            raise bytes_used_up(limits)


class UsageStore:
    """Quotas as far as they are used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, owner: str) -> Usage:
        """Return what an owner has used."""
        today = (UsageRow.owner == owner, UsageRow.day == self._database.today())
        with self._database.read() as connection:
            row = connection.execute(select(UsageRow.images, UsageRow.bytes).where(*today)).first()
            jobs = _active_jobs(connection, owner)
        images, size = row or (0, 0)
        return Usage(images, size, jobs, next_midnight())


def charge(
    connection: Connection,
    database: Database,
    owner: str,
    limits: Limits,
    *,
    images: int = 0,
    size: int = 0,
    new_job: bool = False,
) -> None:
    """Count images and bytes, and judge the number of active jobs, in the transaction that accepts them.

    ``new_job``: this transaction has made a job active. Later statements must take no lock that another
    submission may hold while it waits here.

    Raises ``RequestError`` quota_exceeded; with the transaction undone, nothing is counted.
    """
    used_images, used_bytes = _add(connection, database, owner, images, size)
    if images and limits.images_per_day is not None and used_images > limits.images_per_day:
        raise images_used_up(limits)
    if size and limits.bytes_per_day is not None and used_bytes > limits.bytes_per_day:
        raise bytes_used_up(limits)
    most = limits.concurrent_jobs
    # Jobs that other submissions of this owner made are seen here: they held the lock that is held now.
    if new_job and most is not None and _active_jobs(connection, owner) > most:
        raise _too_many_jobs(most)


def charge_some(connection: Connection, database: Database, owner: str, limits: Limits, images: int) -> int:
    """Count as many of these images as the quota allows; return how many those are."""
    used, _ = _add(connection, database, owner, images, 0)
    over = 0 if limits.images_per_day is None else max(0, min(images, used - limits.images_per_day))
    if over:
        _add(connection, database, owner, -over, 0)
    return images - over


def images_used_up(limits: Limits | None) -> RequestError:
    """Return the refusal of more images."""
    return _used_up(limits.images_per_day if limits else None, "images")


def bytes_used_up(limits: Limits) -> RequestError:
    """Return the refusal of more bytes."""
    return _used_up(limits.bytes_per_day, "bytes")


def _used_up(most: int | None, what: str) -> RequestError:
    seconds = (next_midnight() - datetime.now(UTC)).total_seconds()
    message = f"the quota of {most} {what} a day is used up, or would be; it begins anew at midnight UTC"
    return RequestError("quota_exceeded", message, retry_after=max(1, round(seconds)))


def next_midnight() -> datetime:
    """Return when daily quotas begin anew: midnight, UTC."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def _too_many_jobs(most: int) -> RequestError:
    message = f"{most} jobs at once are allowed, and so many are on their way; wait for one to end"
    return RequestError("quota_exceeded", message, retry_after=JOB_RETRY_S)


def _active_jobs(connection: Connection, owner: str) -> int:
    active = (IS_ACTIVE, JobRow.owner == owner, JobRow.deleted_at.is_(None))
    return connection.execute(select(func.count()).select_from(JobRow).where(*active)).scalar_one()


def _add(connection: Connection, database: Database, owner: str, images: int, size: int) -> tuple[int, int]:
    """Add to what was used today; return all of it. The owner's row is locked from here on."""
    today = database.today()
    dialect: Any = sqlite if database.is_sqlite else postgresql
    same_day = UsageRow.day == today
    row = connection.execute(
        dialect.insert(UsageRow)
        .values(owner=owner, day=today, images=images, bytes=size)
        .on_conflict_do_update(
            index_elements=["owner"],
            set_={
                "day": today,
                "images": case((same_day, UsageRow.images), else_=0) + images,
                "bytes": case((same_day, UsageRow.bytes), else_=0) + size,
            },
        )
        .returning(UsageRow.images, UsageRow.bytes)
    ).one()
    return row.images, row.bytes
