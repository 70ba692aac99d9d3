"""New jobs: reservations before the first byte, then job, items and chunks in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.errors import ItemError, RequestError
from jobs.queue import Message, queue_name
from jobs.records import FAST_JOB_IMAGES, ItemStatus, JobSpec, JobStatus
from jobs.store.database import Database
from jobs.store.uploads import take_uploads
from jobs.store.window import window_size
from jobs.tables import ChunkRow, IdempotencyRow, ItemRow, JobRow, UploadRow, WorkerRow

T = TypeVar("T")

RESERVATION_ALIVE_S = 30
ROWS_AT_ONCE = 2000
CHUNK_SECONDS = 4
LARGEST_CHUNK = 256
USUAL_CHUNK = 32


@dataclass(frozen=True)
class NewItem:
    """One image of a job to be."""

    name: str
    custom_id: str
    source: str
    object_key: str | None = None
    content_type: str | None = None
    sha256: str | None = None
    # Why it will never have a caption, where that is known before any worker sees it.
    error: ItemError | None = None
    # The direct upload that the job takes.
    upload_id: str | None = None


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
            connection.execute(
                insert(UploadRow).values(job_id=job_id, owner=owner, heartbeat_at=self._database.now())
            )

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

    def insert_job(self, job: NewJob, items: Iterable[NewItem]) -> list[Message]:
        """Insert job, items and chunks in one transaction; return the messages to send after it.

        Raises ``RequestError`` where the upload or the idempotency key was taken over by another request.
        """
        with self._database.write() as connection:
            connection.execute(insert(JobRow).values(**self._job_values(job)))
            total = failed = 0
            for batch in _slices(enumerate(items)):
                failed += self._insert_items(connection, job.id, batch)
                uploads = [item.upload_id for _, item in batch if item.upload_id]
                if uploads:
                    take_uploads(connection, self._database, job.owner, job.id, uploads)
                total += len(batch)
            if total == 0:
                raise RequestError("invalid_request", "the job has no images")
            self._complete_reservation(connection, job)
            fast = total <= FAST_JOB_IMAGES
            size = self._chunk_size(connection, job.model)
            numbers = -(-total // size)
            for rows in _slices(_chunk_rows(job.id, total, size)):
                connection.execute(insert(ChunkRow), rows)
            sizes = {"total": total, "failed": failed, "round_base": failed, "chunk_count": numbers}
            connection.execute(update(JobRow).where(JobRow.id == job.id).values(**sizes, fast=fast))
            if failed == total:
                self._complete(connection, job.id)
                return []
            released = min(numbers, window_size(connection, self._database, job.id))
            connection.execute(update(JobRow).where(JobRow.id == job.id).values(released=released))
        queue = queue_name(job.model, fast=fast)
        return [Message(queue, job.id, number) for number in range(released)]

    def _job_values(self, job: NewJob) -> dict[str, Any]:
        return {
            "id": job.id,
            "owner": job.owner,
            "status": JobStatus.QUEUED,
            "model": job.model,
            "options": job.spec.options.model_dump(exclude_none=True),
            "job_metadata": job.spec.metadata,
            "source": job.source,
            "weight": job.spec.priority.weight,
            "fast": False,
            "created_at": self._database.now(),
        }

    def _complete(self, connection: Connection, job_id: str) -> None:
        """Finish a job that no worker can do anything for."""
        over = {
            "status": JobStatus.COMPLETED,
            "finished_at": self._database.now(),
            "expires_at": self._database.now(self._retention_s),
        }
        connection.execute(update(JobRow).where(JobRow.id == job_id).values(**over))

    def _insert_items(self, connection: Connection, job_id: str, batch: list[tuple[int, NewItem]]) -> int:
        """Insert items; return how many of them have failed already."""
        queued = [_item_values(job_id, position, item) for position, item in batch if item.error is None]
        failed = [_failed_values(job_id, position, item) for position, item in batch if item.error]
        if queued:
            connection.execute(insert(ItemRow), queued)
        if failed:
            connection.execute(insert(ItemRow).values(finished_at=self._database.now()), failed)
        return len(failed)

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

    def _chunk_size(self, connection: Connection, model: str) -> int:
        """Return how many images make about four seconds of work for one worker."""
        rate = connection.execute(
            select(func.avg(WorkerRow.images_per_second)).where(WorkerRow.model == model)
        ).scalar_one()
        return max(1, min(LARGEST_CHUNK, round(CHUNK_SECONDS * rate))) if rate else USUAL_CHUNK


def _slices(rows: Iterable[T]) -> Iterator[list[T]]:
    source = iter(rows)
    while taken := list(islice(source, ROWS_AT_ONCE)):
        yield taken


def _item_values(job_id: str, position: int, item: NewItem) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "position": position,
        "status": ItemStatus.QUEUED,
        "attempts": 0,
        "name": item.name,
        "custom_id": item.custom_id,
        "source": item.source,
        "object_key": item.object_key,
        "content_type": item.content_type,
        "sha256": item.sha256,
    }


def _failed_values(job_id: str, position: int, item: NewItem) -> dict[str, Any]:
    assert item.error is not None
    error = {"error_code": item.error.code, "error_message": item.error.message}
    return _item_values(job_id, position, item) | error | {"status": ItemStatus.FAILED}


def _chunk_rows(job_id: str, total: int, size: int) -> Iterator[dict[str, Any]]:
    for number, first in enumerate(range(0, total, size)):
        last = min(total, first + size) - 1
        yield chunk_values(job_id, number, 1, first, last)


def chunk_values(job_id: str, number: int, job_round: int, first: int, last: int) -> dict[str, Any]:
    """Return the row of a new, open chunk."""
    return {
        "job_id": job_id,
        "number": number,
        "round": job_round,
        "first": first,
        "last": last,
        "state": "open",
        "attempt": 0,
        "suspicions": 0,
        "alone": False,
        "deaths_alone": 0,
        "failures": 0,
    }
