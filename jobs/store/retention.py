"""What is past its time: old jobs with all that is theirs, uploads whose request died, old rows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, delete, func, select, update
from sqlalchemy.orm import InstrumentedAttribute

from jobs.store.cache import forget_slice
from jobs.store.database import Database
from jobs.store.locks import lock_chunks, lock_job
from jobs.tables import (
    ChunkRow,
    DeliveryRow,
    ExpansionRow,
    IdempotencyRow,
    ItemRow,
    JobRow,
    OutputRow,
    UploadRow,
    WorkerRow,
)

SLICE = 5000
JOBS_AT_ONCE = 100
UPLOAD_SILENT_S = 900
DAY_S = 86400


class RetentionStore:
    """Finding and removing what nobody keeps, in slices; every step is safe to repeat."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def expire_jobs(self) -> None:
        """Mark what is past its time as deleted."""
        with self._database.write() as connection:
            connection.execute(
                update(JobRow)
                .where(JobRow.expires_at < self._database.now(), JobRow.deleted_at.is_(None))
                .values(deleted_at=self._database.now(), version=JobRow.version + 1)
            )

    def deleted_jobs(self, refused: Collection[str] = ()) -> list[str]:
        """Return jobs whose objects and rows are to be removed: longest deleted first, ``refused`` last."""
        with self._database.read() as connection:
            query = select(JobRow.id).where(JobRow.deleted_at.is_not(None))
            query = query.order_by(*_behind(JobRow.id, refused), JobRow.deleted_at)
            return list(connection.execute(query.limit(JOBS_AT_ONCE)).scalars())

    def delete_rows(self, job_id: str) -> bool:
        """Delete a slice of a deleted job's rows, at last the job; return whether something is left."""
        with self._database.write() as connection:
            if forget_slice(connection, job_id):
                return True
            # First, so that no recording has items of theirs in hand.
            if chunks := lock_chunks(connection, job_id, limit=SLICE):
                gone = (ChunkRow.job_id == job_id, ChunkRow.number <= chunks[-1].number)
                connection.execute(delete(ChunkRow).where(*gone))
            if _delete_items(connection, job_id) or len(chunks) == SLICE:
                return True
            connection.execute(delete(ExpansionRow).where(ExpansionRow.job_id == job_id))
            # An output that ends at this moment locks the job before its row, too.
            lock_job(connection, JobRow.id == job_id)
            connection.execute(delete(OutputRow).where(OutputRow.job_id == job_id))
            connection.execute(delete(DeliveryRow).where(DeliveryRow.job_id == job_id))
            connection.execute(delete(JobRow).where(JobRow.id == job_id))
            # Once more, behind whoever was remembering a caption while the job was still there.
            forget_slice(connection, job_id)
            return False

    def abandoned_uploads(self, refused: Collection[str] = ()) -> list[str]:
        """Return job ids whose request died before the job was made; ``refused`` ones last."""
        with self._database.read() as connection:
            silent = UploadRow.heartbeat_at < self._database.now(-UPLOAD_SILENT_S)
            query = select(UploadRow.job_id).where(silent).order_by(*_behind(UploadRow.job_id, refused))
            return list(connection.execute(query.limit(JOBS_AT_ONCE)).scalars())

    def forget_old(self) -> None:
        """Drop idempotency keys after a day and workers that were not seen for a day."""
        with self._database.write() as connection:
            yesterday = self._database.now(-DAY_S)
            connection.execute(delete(IdempotencyRow).where(IdempotencyRow.created_at < yesterday))
            connection.execute(delete(WorkerRow).where(WorkerRow.last_seen < yesterday))


def _delete_items(connection: Connection, job_id: str) -> bool:
    """Delete a job's next items; return whether something may be left.

    By bounds: a subquery that named them would let PostgreSQL read the whole job for each slice.
    """
    mine = ItemRow.job_id == job_id
    next_ones = select(ItemRow.position).where(mine).order_by(ItemRow.position).limit(SLICE)
    positions = connection.execute(next_ones).scalars().all()
    if positions:
        between = ItemRow.position.between(positions[0], positions[-1])
        connection.execute(delete(ItemRow).where(mine, between))
    return len(positions) == SLICE


def _behind(key: InstrumentedAttribute[str], refused: Collection[str]) -> tuple[ColumnElement[Any], ...]:
    """Return an order that has these last, and those by chance: none of them may hold up the others."""
    if not refused:
        return ()
    return key.in_(refused), case((key.in_(refused), func.random()))
