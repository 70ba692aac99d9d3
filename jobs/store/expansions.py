"""Jobs that are being prepared: what is left to expand, who does it, and each slice in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from jobs.errors import CaptionfleetError
from jobs.limits import NO_LIMITS, Limits
from jobs.queue import Message
from jobs.records import FAST_JOB_IMAGES, JobStatus
from jobs.store.bulk import NewItem, chunk_size, insert_chunks, insert_items
from jobs.store.chunks import Progress, advance_job
from jobs.store.database import Database
from jobs.store.locks import lock_job
from jobs.store.usage import charge_some, images_used_up
from jobs.store.webhooks import announce
from jobs.tables import ExpansionRow, JobRow


@dataclass(frozen=True)
class NewExpansion:
    """What a job is to be made of: a kind of source, what it needs to know, and where it begins."""

    kind: str
    parameters: dict[str, Any] = field(default_factory=dict)
    cursor: Any = None
    # How many that will be, where it is known: they count against the quota at once, else as they are found.
    images: int | None = None


@dataclass(frozen=True)
class Expansion:
    """The rest of a job that is being prepared, as its holder knows it."""

    job_id: str
    owner: str
    kind: str
    parameters: dict[str, Any]
    cursor: Any
    position: int
    slices: int
    failures: int
    # Against which images count as they are found; None: they were counted with the job.
    limits: Limits | None = None
    # How many holders died in a row since the last slice was written.
    deaths: int = 0


@dataclass(frozen=True)
class Cursor:
    """Where a source goes on after a slice."""

    value: Any


@dataclass(frozen=True)
class Written:
    """What became of a slice: messages to send, what is left to do, and whether the job is prepared."""

    messages: list[Message] = field(default_factory=list)
    left: Expansion | None = None
    ended: bool = False


class _NotOurs(Exception):
    """Another process wrote this slice, or the job was canceled or deleted."""


class ExpansionStore:
    """The life of expansions."""

    def __init__(self, database: Database, retention_s: float) -> None:
        self._database = database
        self._retention_s = retention_s

    def claim(self, holder: str, lease_s: float, kinds: Collection[str]) -> Expansion | None:
        """Take the expansion, of these kinds, that has waited longest; ``None`` if there is none to take."""
        with self._database.write() as connection:
            now = self._database.now()
            row = connection.execute(
                select(ExpansionRow)
                .where(ExpansionRow.not_before <= now)
                .where(or_(ExpansionRow.lease_until.is_(None), ExpansionRow.lease_until < now))
                .where(ExpansionRow.kind.in_(kinds))
                .order_by(ExpansionRow.not_before)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).first()
            if row is None:
                return None
            # Who gives it back says so: a holder that is still named has died, or stood still for too long.
            deaths = row.deaths + (row.holder not in (None, holder))
            lease_until = self._database.now(lease_s)
            self._change(connection, row.job_id, holder=holder, lease_until=lease_until, deaths=deaths)
            owner = connection.execute(select(JobRow.owner).where(JobRow.id == row.job_id)).scalar_one()
        return Expansion(
            job_id=row.job_id,
            owner=owner,
            kind=row.kind,
            parameters=row.parameters,
            cursor=row.cursor,
            position=row.position,
            slices=row.slices,
            failures=row.failures,
            deaths=deaths,
            limits=None if row.limits is None else NO_LIMITS.changed(row.limits),
        )

    def keep(self, job_id: str, holder: str, lease_s: float) -> bool:
        """Prolong a lease; false where somebody else has it, or nobody, or nothing is left to expand."""
        held = (ExpansionRow.job_id == job_id, ExpansionRow.holder == holder)
        with self._database.write() as connection:
            longer = update(ExpansionRow).where(*held).values(lease_until=self._database.now(lease_s))
            return connection.execute(longer).rowcount == 1

    def release(self, expansion: Expansion) -> None:
        """Let the next holder go on; other jobs come first."""
        with self._database.write() as connection:
            free = {"holder": None, "lease_until": None, "not_before": self._database.now()}
            connection.execute(_held(expansion).values(**free))

    def postpone(self, expansion: Expansion, delay_s: float) -> None:
        """Let an expansion wait after a transient failure."""
        with self._database.write() as connection:
            free = {"holder": None, "lease_until": None, "not_before": self._database.now(delay_s)}
            connection.execute(_held(expansion).values(**free, failures=ExpansionRow.failures + 1))

    def write(
        self,
        expansion: Expansion,
        items: Sequence[NewItem],
        cursor: Cursor | None,
        failure: CaptionfleetError | None,
        lease_s: float,
    ) -> Written:
        """Write a slice with its chunks and the new cursor (``None``: the last slice), all or nothing.

        The job's row is locked last. A slice that another process wrote already, or of a job that was
        canceled or deleted, changes nothing.
        """
        try:
            with self._database.write() as connection:
                allowed = self._charge(connection, expansion, len(items))
                if allowed < len(items):
                    items, cursor = items[:allowed], None
                    failure = images_used_up(expansion.limits)
                self._move(connection, expansion, len(items), cursor, lease_s)
                failed = insert_items(connection, self._database, expansion.job_id, expansion.position, items)
                job = self._lock(connection, expansion.job_id)
                size = chunk_size(connection, job.model)
                first = expansion.position
                added = insert_chunks(connection, job.id, job.chunk_count, first, len(items), size)
                values = _grown(job, len(items), failed)
                if cursor is None:
                    values |= self._prepared(job, values["total"], failure)
                connection.execute(update(JobRow).where(JobRow.id == job.id).values(**values))
                if values.get("status") == JobStatus.FAILED:
                    announce(connection, self._database, job.id)
                progress = Progress(failed=failed, added=added)
                messages = advance_job(connection, self._database, job.id, progress, self._retention_s)
        except _NotOurs:
            self._forget_if_over(expansion.job_id)
            return Written()
        left = None if cursor is None else _after(expansion, len(items), cursor)
        return Written(messages or [], left, ended=cursor is None)

    def _charge(self, connection: Connection, expansion: Expansion, images: int) -> int:
        """Count images against their owner's quota; return how many it allows."""
        if expansion.limits is None or not images:
            return images
        return charge_some(connection, self._database, expansion.owner, expansion.limits, images)

    def _move(
        self,
        connection: Connection,
        expansion: Expansion,
        items: int,
        cursor: Cursor | None,
        lease_s: float,
    ) -> None:
        if cursor is None:
            own = delete(ExpansionRow).where(
                ExpansionRow.job_id == expansion.job_id, ExpansionRow.slices == expansion.slices
            )
        else:
            own = _held(expansion).values(
                cursor=cursor.value,
                position=expansion.position + items,
                slices=expansion.slices + 1,
                failures=0,
                deaths=0,
                lease_until=self._database.now(lease_s),
            )
        if connection.execute(own).rowcount != 1:
            raise _NotOurs

    def _lock(self, connection: Connection, job_id: str) -> Row[Any]:
        job = lock_job(connection, JobRow.id == job_id, JobRow.status == JobStatus.PREPARING)
        if job is None:
            raise _NotOurs
        return job

    def _prepared(self, job: Row[Any], total: int, failure: CaptionfleetError | None) -> dict[str, Any]:
        """Return the job's values at the end of its preparation."""
        error = {"code": failure.code, "message": failure.message} if failure else None
        if total == 0:
            nothing = {"code": "invalid_request", "message": "the source has no images"}
            over = {"finished_at": self._database.now(), "expires_at": self._database.now(self._retention_s)}
            return {"status": JobStatus.FAILED, "error": error or nothing, **over}
        status = JobStatus.RUNNING if job.round_started_at else JobStatus.QUEUED
        # A job of one small slice goes with the other small ones; nothing of it is released yet.
        return {"status": status, "error": error, "fast": job.total == 0 and total <= FAST_JOB_IMAGES}

    def _forget_if_over(self, job_id: str) -> None:
        with self._database.write() as connection:
            preparing = select(JobRow.id).where(JobRow.id == job_id, JobRow.status == JobStatus.PREPARING)
            if connection.execute(preparing).first() is None:
                connection.execute(delete(ExpansionRow).where(ExpansionRow.job_id == job_id))

    def _change(self, connection: Connection, job_id: str, **values: Any) -> None:
        connection.execute(update(ExpansionRow).where(ExpansionRow.job_id == job_id).values(**values))


def insert_expansion(
    connection: Connection, database: Database, job_id: str, new: NewExpansion, position: int, limits: Limits
) -> None:
    """Note what is left of a new job, from ``position`` on."""
    connection.execute(
        insert(ExpansionRow).values(
            job_id=job_id,
            kind=new.kind,
            parameters=new.parameters,
            cursor=new.cursor,
            position=position,
            limits=asdict(limits) if new.images is None else None,
            not_before=database.now(),
        )
    )


def _held(expansion: Expansion) -> Any:
    """Return an update of the expansion that only who knows its last slice can make."""
    return update(ExpansionRow).where(
        ExpansionRow.job_id == expansion.job_id, ExpansionRow.slices == expansion.slices
    )


def _grown(job: Row[Any], items: int, failed: int) -> dict[str, Any]:
    return {
        "total": job.total + items,
        "round_base": job.round_base + failed,
        "version": job.version + 1,
    }


def _after(expansion: Expansion, items: int, cursor: Cursor) -> Expansion:
    return replace(
        expansion,
        cursor=cursor.value,
        position=expansion.position + items,
        slices=expansion.slices + 1,
        failures=0,
        deaths=0,
    )
