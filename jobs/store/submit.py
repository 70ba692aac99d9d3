"""New jobs: reservations before the first byte, then job, items and chunks in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.errors import RequestError
from jobs.limits import NO_LIMITS, Limits
from jobs.queue import Message
from jobs.records import FAST_JOB_IMAGES, JobSpec, JobStatus
from jobs.store.bucket_events import take_events
from jobs.store.bulk import NewItem, chunk_size, insert_chunks, insert_items
from jobs.store.chunks import Progress, advance_job
from jobs.store.database import Database
from jobs.store.expansions import NewExpansion, insert_expansion
from jobs.store.outputs import insert_output
from jobs.store.uploads import take_uploads
from jobs.store.usage import charge
from jobs.tables import IdempotencyRow, JobRow, UploadRow

__all__ = ["NewExpansion", "NewItem", "NewJob", "Reservation", "SubmitStore"]

T = TypeVar("T")

RESERVATION_ALIVE_S = 30
ROWS_AT_ONCE = 2000


@dataclass(frozen=True)
class NewJob:
    """A job to be, without its items."""

    id: str
    owner: str
    model: str
    source: str
    spec: JobSpec
    idempotency_key: str | None = None
    fingerprint: str | None = None
    limits: Limits = NO_LIMITS
    # Bytes that count against the owner's quota.
    size: int = 0
    # Where in a trace it is made.
    traceparent: str | None = None


@dataclass(frozen=True)
class Reservation:
    """Who an idempotency key belongs to: a finished request's job, or this request."""

    job_id: str
    fingerprint: str | None
    mine: bool


class SubmitStore:
    """Writes new jobs."""

    def __init__(self, database: Database, retention_s: float) -> None:
        self._database = database
        self._retention_s = retention_s

    def reserve(self, owner: str, key: str, job_id: str) -> Reservation:
        """Reserve an idempotency key for ``job_id``, or return the job it already stands for.

        Raises ``RequestError`` idempotency_in_progress while another request holds it and is alive.
        """
        with self._database.write() as connection:
            now = self._database.now()
            values = {"owner": owner, "key": key, "job_id": job_id, "heartbeat_at": now, "created_at": now}
            dialect = sqlite if self._database.is_sqlite else postgresql
            connection.execute(dialect.insert(IdempotencyRow).values(**values).on_conflict_do_nothing())
            mine = (IdempotencyRow.owner == owner) & (IdempotencyRow.key == key)
            connection.execute(
                update(IdempotencyRow)
                .where(mine, IdempotencyRow.fingerprint.is_(None))
                .where(IdempotencyRow.heartbeat_at < self._database.now(-RESERVATION_ALIVE_S))
                .values(job_id=job_id, heartbeat_at=now)
            )
            row = connection.execute(
                select(IdempotencyRow.job_id, IdempotencyRow.fingerprint).where(mine)
            ).one()
        if row.fingerprint is None and row.job_id != job_id:
            message = "a request with this Idempotency-Key is still being received"
            raise RequestError("idempotency_in_progress", message, retry_after=5)
        return Reservation(row.job_id, row.fingerprint, row.job_id == job_id)

    def release_reservation(self, owner: str, key: str, job_id: str) -> None:
        """Forget a reservation whose request was refused, so that the key can be used again."""
        with self._database.write() as connection:
            connection.execute(
                delete(IdempotencyRow).where(
                    IdempotencyRow.owner == owner,
                    IdempotencyRow.key == key,
                    IdempotencyRow.job_id == job_id,
                    IdempotencyRow.fingerprint.is_(None),
                )
            )

    def begin_upload(self, owner: str, job_id: str) -> None:
        """Commit the row that makes the coming objects findable whatever happens to this process."""
        with self._database.write() as connection:
            dialect = sqlite if self._database.is_sqlite else postgresql
            row = {"job_id": job_id, "owner": owner, "heartbeat_at": self._database.now()}
            connection.execute(dialect.insert(UploadRow).values(**row).on_conflict_do_nothing())

    def heartbeat(self, job_id: str) -> bool:
        """Say that the request storing this job's objects is alive; return whether its upload still is."""
        with self._database.write() as connection:
            now = self._database.now()
            alive = {
                table: connection.execute(
                    update(table).where(table.job_id == job_id).values(heartbeat_at=now)
                ).rowcount
                for table in (UploadRow, IdempotencyRow)
            }
        return bool(alive[UploadRow])

    def forget_upload(self, job_id: str) -> None:
        """Delete the upload row after its objects are gone."""
        with self._database.write() as connection:
            connection.execute(delete(UploadRow).where(UploadRow.job_id == job_id))

    def insert_job(
        self,
        job: NewJob,
        items: Iterable[NewItem],
        rest: NewExpansion | None = None,
        uploads: Iterable[str] = (),
    ) -> list[Message]:
        """Insert job, items and chunks in one transaction; return the messages to send after it.

        A ``rest`` is expanded in the background; ``uploads`` are those that it names.
        Raises ``RequestError`` where an upload or the idempotency key was taken over by another request, and
        quota_exceeded.
        """
        with self._database.write() as connection:
            return self._insert(connection, job, items, rest, uploads)

    def insert_event_job(self, job: NewJob, events: Mapping[str, NewItem]) -> tuple[int, list[Message]]:
        """Insert a job of those events (items by digest) that no job has yet; without any, no job is made.

        Returns how many there were, and the messages to send after it.
        """
        with self._database.write() as connection:
            taken = take_events(connection, self._database, job.id, events)
            items = [item for digest, item in events.items() if digest in taken]
            return len(items), self._insert(connection, job, items) if items else []

    def _insert(
        self,
        connection: Connection,
        job: NewJob,
        items: Iterable[NewItem],
        rest: NewExpansion | None = None,
        uploads: Iterable[str] = (),
    ) -> list[Message]:
        database = self._database
        connection.execute(insert(JobRow).values(**self._job_values(job, preparing=rest is not None)))
        if job.spec.output is not None:
            insert_output(connection, database, job.id, job.spec.output)
        total = failed = 0
        for batch in _slices(items):
            failed += insert_items(connection, database, job.id, total, batch)
            total += len(batch)
            _take(connection, database, job, [item.upload_id for item in batch if item.upload_id])
        for ids in _slices(uploads):
            _take(connection, database, job, ids)
        if rest is not None:
            insert_expansion(connection, database, job.id, rest, total, job.limits)
        elif total == 0:
            raise RequestError("invalid_request", "the job has no images")
        images = total + (rest.images or 0 if rest else 0)
        charge(connection, database, job.owner, job.limits, images=images, size=job.size, new_job=True)
        self._complete_reservation(connection, job)
        sizes = {"total": total, "round_base": failed, "fast": rest is None and total <= FAST_JOB_IMAGES}
        connection.execute(update(JobRow).where(JobRow.id == job.id).values(**sizes))
        numbers = insert_chunks(connection, job.id, 0, 0, total, chunk_size(connection, job.model))
        progress = Progress(failed=failed, added=numbers)
        return advance_job(connection, database, job.id, progress, self._retention_s) or []

    def _job_values(self, job: NewJob, *, preparing: bool) -> dict[str, Any]:
        return {
            "id": job.id,
            "owner": job.owner,
            "status": JobStatus.PREPARING if preparing else JobStatus.QUEUED,
            "model": job.model,
            "options": job.spec.options.model_dump(exclude_none=True),
            "job_metadata": job.spec.metadata,
            "source": job.source,
            "weight": job.spec.priority.weight,
            "webhook_url": job.spec.webhook_url,
            "traceparent": job.traceparent,
            "fast": False,
            "created_at": self._database.now(),
        }

    def _complete_reservation(self, connection: Connection, job: NewJob) -> None:
        connection.execute(delete(UploadRow).where(UploadRow.job_id == job.id))
        if job.idempotency_key is None:
            return
        kept = connection.execute(
            update(IdempotencyRow)
            .where(IdempotencyRow.owner == job.owner, IdempotencyRow.key == job.idempotency_key)
            .where(IdempotencyRow.job_id == job.id, IdempotencyRow.fingerprint.is_(None))
            .values(fingerprint=job.fingerprint)
        ).rowcount
        if not kept:
            message = "this request was silent for too long and its Idempotency-Key went to another one"
            raise RequestError("idempotency_in_progress", message, retry_after=5)


def _take(connection: Connection, database: Database, job: NewJob, uploads: list[str]) -> None:
    if uploads:
        take_uploads(connection, database, job.owner, job.id, uploads)


def _slices(rows: Iterable[T]) -> Iterator[list[T]]:
    source = iter(rows)
    while taken := list(islice(source, ROWS_AT_ONCE)):
        yield taken
