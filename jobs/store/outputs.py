"""Results that go to S3 when a job has ended: what is to be written, who writes it, and how far that is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Update, insert, or_, select, update

from jobs.errors import CaptionfleetError
from jobs.records import JobOutput, JobStatus, OutputState, OutputStatus
from jobs.store.database import Database
from jobs.store.locks import lock_job
from jobs.tables import JobRow, OutputRow

ENDED = (JobStatus.COMPLETED, JobStatus.CANCELED, JobStatus.FAILED)


@dataclass(frozen=True)
class Output:
    """A job's output as its holder knows it; ``after`` is the last position whose sidecar is settled."""

    job_id: str
    owner: str
    wanted: JobOutput
    steps: int
    failures: int
    after: int
    written: int
    skipped: int
    failed: int
    object_written: bool


class OutputStore:
    """The life of outputs: ``waiting`` until the job has ended, then ``done`` or ``failed``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, holder: str, lease_s: float) -> Output | None:
        """Take the output that has waited longest of a job that has ended; ``None`` if there is none."""
        with self._database.write() as connection:
            now = self._database.now()
            free = or_(OutputRow.lease_until.is_(None), OutputRow.lease_until < now)
            row = connection.execute(
                select(OutputRow, JobRow.owner)
                .join(JobRow, JobRow.id == OutputRow.job_id)
                .where(OutputRow.status == OutputStatus.WAITING, OutputRow.not_before <= now, free)
                .where(JobRow.status.in_(ENDED), JobRow.deleted_at.is_(None))
                .order_by(OutputRow.not_before)
                .limit(1)
                .with_for_update(skip_locked=True, of=OutputRow)
            ).first()
            if row is None:
                return None
            lease = {"holder": holder, "lease_until": self._database.now(lease_s)}
            # A new number of steps shuts out whoever held it before.
            own = update(OutputRow).where(OutputRow.job_id == row.job_id)
            connection.execute(own.values(**lease, steps=row.steps + 1))
        return Output(
            job_id=row.job_id,
            owner=row.owner,
            wanted=JobOutput.model_validate(row.wanted),
            steps=row.steps + 1,
            failures=row.failures,
            after=row.after,
            written=row.written,
            skipped=row.skipped,
            failed=row.failed,
            object_written=row.object_written,
        )

    def keep(self, output: Output, lease_s: float) -> bool:
        """Prolong the lease; false where the output is no longer this holder's."""
        # One that was just let go stays free.
        mine = _held(output).where(OutputRow.lease_until.is_not(None))
        with self._database.write() as connection:
            longer = mine.values(lease_until=self._database.now(lease_s))
            return connection.execute(longer).rowcount == 1

    def save(self, output: Output, lease_s: float) -> bool:
        """Keep what was done and the lease; false where the output is no longer this holder's."""
        values = {
            "after": output.after,
            "written": output.written,
            "skipped": output.skipped,
            "failed": output.failed,
            "object_written": output.object_written,
            "failures": 0,
            "error": None,
            "lease_until": self._database.now(lease_s),
        }
        return self._change(output, **values)

    def release(self, output: Output) -> None:
        """Let the next holder go on at once."""
        self._change(output, lease_until=None, holder=None)

    def postpone(self, output: Output, delay_s: float, failure: CaptionfleetError) -> None:
        """Let an output wait after a failure, which clients see meanwhile."""
        later = {"lease_until": None, "holder": None, "not_before": self._database.now(delay_s)}
        self._change(output, **later, failures=OutputRow.failures + 1, error=_error(failure))

    def end(self, output: Output, failure: CaptionfleetError | None) -> None:
        """Write that an output is done, or why it is not, together with the job's new version."""
        status = OutputStatus.FAILED if failure else OutputStatus.DONE
        error = _error(failure) if failure else None
        over = {"status": status, "error": error, "holder": None, "lease_until": None}
        with self._database.write() as connection:
            # As a retry of the job does: first the job, then its output.
            job = JobRow.id == output.job_id
            lock_job(connection, job)
            if connection.execute(_held(output).values(**over)).rowcount == 1:
                connection.execute(update(JobRow).where(job).values(version=JobRow.version + 1))

    def _change(self, output: Output, **values: Any) -> bool:
        with self._database.write() as connection:
            return connection.execute(_held(output).values(**values)).rowcount == 1


def _error(failure: CaptionfleetError) -> dict[str, str]:
    return {"code": failure.code, "message": failure.message}


def _held(output: Output) -> Update:
    """Return an update of the output that only its holder can make."""
    return update(OutputRow).where(OutputRow.job_id == output.job_id, OutputRow.steps == output.steps)


def insert_output(connection: Connection, database: Database, job_id: str, wanted: JobOutput) -> None:
    """Note what is to be written when the job has ended."""
    connection.execute(
        insert(OutputRow).values(
            job_id=job_id,
            wanted=wanted.model_dump(mode="json", exclude_none=True),
            status=OutputStatus.WAITING,
            not_before=database.now(),
        )
    )


def renew_output(connection: Connection, database: Database, job_id: str) -> None:
    """Let a job's output be written again, whole: the job runs again."""
    afresh = {"after": -1, "written": 0, "skipped": 0, "failed": 0, "object_written": False, "failures": 0}
    connection.execute(
        update(OutputRow)
        .where(OutputRow.job_id == job_id)
        .values(**afresh, status=OutputStatus.WAITING, steps=OutputRow.steps + 1, error=None, holder=None)
        .values(lease_until=None, not_before=database.now())
    )


def output_states(connection: Connection, job_ids: Collection[str]) -> dict[str, OutputState]:
    """Return what clients see of the outputs of these jobs."""
    rows = connection.execute(select(OutputRow).where(OutputRow.job_id.in_(job_ids)))
    return {
        row.job_id: OutputState(
            **row.wanted,
            status=row.status,
            written=row.written,
            skipped=row.skipped,
            failed=row.failed,
            error=row.error,
        )
        for row in rows
    }


def moved(output: Output, after: int, written: int, skipped: int, failed: int) -> Output:
    """Return an output with some more sidecars settled."""
    return replace(
        output,
        after=after,
        written=output.written + written,
        skipped=output.skipped + skipped,
        failed=output.failed + failed,
        failures=0,
    )
