"""How many chunks of a job may be in hand at once, so that owners share the workers evenly."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from jobs.records import FAST_JOB_IMAGES
from jobs.store.database import Database
from jobs.store.states import IS_ACTIVE, is_alive
from jobs.tables import JobRow, WorkerRow

# Chunks of one owner in the queue or in hand: enough to keep every worker busy while messages travel.
SMALLEST_WINDOW = 16
CHUNKS_PER_WORKER = 4
# Chunks of one image each, and as many again where suspicious ones were split.
WHOLE_SMALL_JOB = 2 * FAST_JOB_IMAGES
BULK = (IS_ACTIVE, JobRow.fast.is_(False))


def window_size(connection: Connection, database: Database, job_id: str) -> int:
    """Return the job's window in chunks: its owner's window, shared among the owner's running jobs by weight.

    Every owner gets the same number of chunks in the queue, which serves first in, first out: chunks are thus
    handed out round-robin by owner. A small job (fast queue) is released whole.
    """
    job = connection.execute(
        select(JobRow.owner, JobRow.model, JobRow.weight, JobRow.fast).where(JobRow.id == job_id)
    ).first()
    if job is None:
        return 0
    if job.fast:
        return WHOLE_SMALL_JOB
    siblings = connection.execute(
        select(func.sum(JobRow.weight)).where(JobRow.owner == job.owner, JobRow.model == job.model, *BULK)
    ).scalar_one()
    return _share(owner_window(connection, database, job.model), job.weight, int(siblings or 0))


def _share(window: int, weight: int, siblings: int) -> int:
    return max(1, window * weight // max(siblings, weight))


def owner_window(connection: Connection, database: Database, model: str) -> int:
    """Return how many chunks one owner may have released for a model."""
    alive = connection.execute(
        select(func.count()).select_from(WorkerRow).where(WorkerRow.model == model, is_alive(database))
    ).scalar_one()
    return max(SMALLEST_WINDOW, CHUNKS_PER_WORKER * int(alive))


def narrow_jobs(connection: Connection, database: Database, limit: int) -> list[str]:
    """Return jobs that have fewer chunks released than their share, such as after a sibling finished."""
    groups = connection.execute(
        select(JobRow.owner, JobRow.model, func.sum(JobRow.weight))
        .where(*BULK)
        .group_by(JobRow.owner, JobRow.model)
    ).all()
    siblings = {(owner, model): int(weight) for owner, model, weight in groups}
    windows = {model: owner_window(connection, database, model) for _, model, _ in groups}
    jobs = connection.execute(
        select(JobRow.id, JobRow.owner, JobRow.model, JobRow.weight, JobRow.released, JobRow.closed)
        .where(*BULK, JobRow.released < JobRow.chunk_count)
        .order_by(JobRow.id)
        .limit(limit)
    )
    # On PostgreSQL the second question may find jobs that the first one did not: the next round has them.
    return [
        job.id
        for job in jobs
        if (weight := siblings.get((job.owner, job.model)))
        and job.released - job.closed < _share(windows[job.model], job.weight, weight)
    ]
