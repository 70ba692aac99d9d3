"""What an operator has to look at: jobs that do not go on by themselves, why, and setting them going."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, or_, select, update

from jobs.errors import RequestError
from jobs.queue import Message, queue_name
from jobs.records import ItemStatus, JobStatus
from jobs.store.chunks import Progress, advance_job
from jobs.store.database import Database
from jobs.store.locks import lock_chunks, lock_job
from jobs.store.states import IS_ACTIVE, IS_CANCELING, IS_LEASED, IS_OPEN, is_alive
from jobs.store.sweeps import MOST_BLAME, NOTICE_S
from jobs.tables import ChunkRow, DeliveryRow, ExpansionRow, ItemRow, JobRow, LeaseRow, WorkerRow

# Longer than every recovery takes that needs no hand.
UNCLAIMED_S = 120
LATE_S = 60
FAILURES = 2
SUSPICIONS = 2
MOST = 1000


@dataclass(frozen=True)
class Stuck:
    """One thing that keeps a job from its end; ``chunk`` is ``None`` where it concerns the whole job."""

    job_id: str
    owner: str
    model: str
    chunk: int | None
    problem: str


class StuckStore:
    """Finding what does not go on, and setting it going."""

    def __init__(self, database: Database, retention_s: float) -> None:
        self._database = database
        self._retention_s = retention_s

    def find(self, limit: int = MOST) -> list[Stuck]:
        """Return what is stuck in all owners' jobs, by job and chunk."""
        with self._database.read() as connection:
            served = self._served(connection)
            rows = connection.execute(self._suspect_chunks().limit(limit)).all()
            found = [_stuck(row, row.number, self._problem(row, served)) for row in rows]
            found += self._whole_jobs(connection)
        return sorted(found, key=lambda one: (one.job_id, -1 if one.chunk is None else one.chunk))[:limit]

    def swept(self) -> bool:
        """Whether any process sweeps: without one nothing recovers."""
        with self._database.read() as connection:
            lately = LeaseRow.until > self._database.now(-LATE_S)
            query = select(LeaseRow.name).where(LeaseRow.name == "sweep", lately)
            return connection.execute(query).first() is not None

    def failed_deliveries(self, seconds: float) -> int:
        """Return how many webhooks were given up that began within the last ``seconds``."""
        lately = DeliveryRow.created_at > self._database.now(-seconds)
        query = select(func.count()).select_from(DeliveryRow).where(DeliveryRow.status == "failed", lately)
        with self._database.read() as connection:
            return connection.execute(query).scalar_one()

    def _served(self, connection: Connection) -> set[str]:
        served = select(WorkerRow.model).where(is_alive(self._database)).distinct()
        return set(connection.execute(served).scalars())

    def _suspect_chunks(self) -> Select[*tuple[Any, ...]]:
        """Select chunks that lost workers, fail again and again, or that nobody takes."""
        released = and_(IS_OPEN, ChunkRow.number < JobRow.released)
        unclaimed = and_(released, ChunkRow.noticed_at < self._database.now(-UNCLAIMED_S))
        late = and_(IS_LEASED, ChunkRow.lease_until < self._database.now(-LATE_S))
        trouble = or_(ChunkRow.suspicions >= SUSPICIONS, ChunkRow.failures >= FAILURES, unclaimed, late)
        return (
            select(
                ChunkRow,
                JobRow.owner.label("job_owner"),
                JobRow.model,
                unclaimed.label("unclaimed"),
                late.label("late"),
            )
            .join(JobRow, JobRow.id == ChunkRow.job_id)
            .where(IS_ACTIVE, or_(IS_OPEN, IS_LEASED), trouble)
            .order_by(ChunkRow.job_id, ChunkRow.number)
        )

    def _problem(self, row: Row[Any], served: set[str]) -> str:
        if row.late:
            return "its worker is gone and no process sweeps: start an API or worker process"
        if row.failures >= FAILURES:
            due = f"; next try at {row.not_before:%H:%M:%S} UTC" if row.not_before else ""
            return f"failed {row.failures} times for reasons outside of its images{due}"
        if row.suspicions >= SUSPICIONS:
            return _suspicion(row)
        if row.model not in served:
            return f"no worker serves {row.model}"
        return f"nobody took it since {row.noticed_at:%H:%M:%S} UTC"

    def _whole_jobs(self, connection: Connection) -> Iterator[Stuck]:
        columns = (JobRow.id.label("job_id"), JobRow.owner.label("job_owner"), JobRow.model)
        expanding = (
            select(*columns, ExpansionRow.failures, ExpansionRow.deaths, ExpansionRow.not_before)
            .join(ExpansionRow, ExpansionRow.job_id == JobRow.id)
            .where(IS_ACTIVE, or_(ExpansionRow.failures >= FAILURES, ExpansionRow.deaths >= FAILURES))
        )
        for row in connection.execute(expanding):
            problem = f"{row.deaths} processes in a row died while they prepared it"
            if row.failures >= FAILURES:
                due = f"next try at {row.not_before:%H:%M:%S} UTC"
                problem = f"its sources could not be read {row.failures} times; {due}"
            yield _stuck(row, None, problem)
        chunks = select(ChunkRow.number).where(ChunkRow.job_id == JobRow.id, ChunkRow.state != "done")
        ended = select(*columns).where(IS_ACTIVE, JobRow.status != JobStatus.PREPARING, ~chunks.exists())
        for job in connection.execute(ended):
            yield _stuck(job, None, "its counters do not add up: every chunk is done, but not the job")

    def redrive(self, job_id: str) -> list[Message]:
        """Set a job going again; return the messages to send.

        Waiting times and counted failures are forgotten, chunks of dead workers are freed, counters are taken
        from the rows. Suspicions stay: an image that kills its worker goes on being tried alone.
        Raises ``RequestError`` job_not_found, and job_state_conflict for a job that is over.
        """
        with self._database.write() as connection:
            job = connection.execute(
                select(JobRow).where(JobRow.id == job_id, JobRow.deleted_at.is_(None))
            ).first()
            if job is None:
                raise RequestError("job_not_found", f"there is no job {job_id}")
            if JobStatus(job.status).final:
                message = f"the job is {job.status}; `captionfleet retry` tries what failed again"
                raise RequestError("job_state_conflict", message)
            self._free(connection, job_id)
            self._recount(connection, job_id)
            advance_job(connection, self._database, job_id, Progress(), self._retention_s)
            queue = queue_name(job.model, fast=job.fast)
            waiting = connection.execute(_waiting(job_id)).scalars()
            return [Message(queue, job_id, number) for number in waiting]

    def _free(self, connection: Connection, job_id: str) -> None:
        # The sweep sends a message at once for what waits so long.
        now, long_ago = self._database.now(), self._database.now(-NOTICE_S - 1)
        alive = select(WorkerRow.id).where(is_alive(self._database))
        mine = ChunkRow.job_id == job_id
        lock_chunks(connection, job_id, or_(IS_OPEN, IS_LEASED))
        for statement in (
            update(ChunkRow)
            .where(mine, IS_LEASED, ChunkRow.owner.not_in(alive))
            .values(state="open", owner=None, lease_until=None, alone=False),
            update(ChunkRow).where(mine, IS_OPEN).values(failures=0, not_before=None, noticed_at=long_ago),
            update(ExpansionRow)
            .where(ExpansionRow.job_id == job_id)
            .values(failures=0, deaths=0, not_before=now),
        ):
            connection.execute(statement)

    def _recount(self, connection: Connection, job_id: str) -> None:
        """Take the job's counters from its rows."""
        # Nobody records while this counts: a recording ends with the job's row.
        lock_job(connection, JobRow.id == job_id)

        def items(status: ItemStatus) -> int:
            counted = select(func.count()).where(ItemRow.job_id == job_id, ItemRow.status == status)
            return connection.execute(counted).scalar_one()

        done = select(func.count()).where(ChunkRow.job_id == job_id, ChunkRow.state == "done")
        values = {
            "succeeded": items(ItemStatus.SUCCEEDED),
            "failed": items(ItemStatus.FAILED),
            "closed": connection.execute(done).scalar_one(),
        }
        connection.execute(update(JobRow).where(JobRow.id == job_id, ~IS_CANCELING).values(**values))


def _waiting(job_id: str) -> Select[int]:
    return (
        select(ChunkRow.number)
        .join(JobRow, JobRow.id == ChunkRow.job_id)
        .where(ChunkRow.job_id == job_id, IS_OPEN, IS_ACTIVE, ChunkRow.number < JobRow.released)
        .order_by(ChunkRow.number)
        .limit(MOST)
    )


def _suspicion(row: Row[Any]) -> str:
    if row.deaths_alone:
        return f"its worker died while this image ran alone; blamed by {row.deaths_alone} of {MOST_BLAME}"
    images = "this image" if row.first == row.last else f"these {row.last - row.first + 1} images"
    return f"{row.suspicions} workers died with {images} in hand; it runs alone now"


def _stuck(row: Any, chunk: int | None, problem: str) -> Stuck:
    return Stuck(row.job_id, row.job_owner, row.model, chunk, problem)
