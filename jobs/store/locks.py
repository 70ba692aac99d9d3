"""Rows are locked in one order, so that nobody waits in a circle: chunks by number, items, then their job."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from jobs.tables import ChunkRow, JobRow


def lock_chunks(
    connection: Connection, job_id: str, *which: ColumnElement[bool], limit: int | None = None
) -> list[Row[Any]]:
    """Lock some of a job's chunks; return (number, first, last) of each, in order."""
    query = select(ChunkRow.number, ChunkRow.first, ChunkRow.last).where(ChunkRow.job_id == job_id, *which)
    return list(connection.execute(query.order_by(ChunkRow.number).limit(limit).with_for_update()))


def lock_job(connection: Connection, *which: ColumnElement[bool]) -> Row[Any] | None:
    """Lock a job against changes, not against rows that refer to it; return it if there is such a job."""
    query = select(JobRow).where(*which)
    return connection.execute(query.with_for_update(key_share=True)).first()
