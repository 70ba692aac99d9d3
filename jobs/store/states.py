"""States as constants in the SQL: a partial index serves only queries in which its condition is seen."""

from __future__ import annotations

from sqlalchemy import ColumnElement, literal_column

from jobs.records import ItemStatus, JobStatus
from jobs.store.database import Database
from jobs.tables import ChunkRow, ItemRow, JobRow, WorkerRow


def _constant(state: str) -> ColumnElement[str]:
    return literal_column(f"'{state}'")


ACTIVE = (JobStatus.PREPARING, JobStatus.QUEUED, JobStatus.RUNNING)
"""A job's chunks may be claimed and recorded."""

# Written as the index of active jobs has it, in its order.
IS_ACTIVE = JobRow.status.in_([_constant(status) for status in ACTIVE])
IS_CANCELING = JobRow.status == _constant(JobStatus.CANCELING)
IS_OPEN = ChunkRow.state == _constant("open")
IS_LEASED = ChunkRow.state == _constant("leased")
# No item that waits for a worker.
IS_FINAL = ItemRow.status != _constant(ItemStatus.QUEUED)

WORKER_ALIVE_S = 45


def is_alive(database: Database) -> ColumnElement[bool]:
    """Return the condition that a worker of the register was seen lately."""
    return WorkerRow.last_seen > database.now(-WORKER_ALIVE_S)
