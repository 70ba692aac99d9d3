"""What the sweep reads and mends: lost leases, lost messages, narrow windows, half-done cancels."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    func,
    insert,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from jobs.errors import ItemCode
from jobs.queue import Message, queue_name
from jobs.records import ItemStatus, JobStatus
from jobs.store.bulk import chunk_values
from jobs.store.chunks import Progress, advance_job
from jobs.store.database import Database
from jobs.store.locks import lock_chunks, lock_job
from jobs.store.states import IS_ACTIVE, IS_CANCELING, IS_LEASED, IS_OPEN
from jobs.store.webhooks import announce
from jobs.store.window import narrow_jobs
from jobs.tables import (
    ChunkRow,
    ExpansionRow,
    ItemRow,
    JobRow,
    LeaseRow,
)

SLICE = 5000
# Chunks of a canceled job written at once: some thousand items.
CHUNKS_AT_ONCE = 40
CANCEL_S = 1.0
NOTICE_S = 15
SPLIT_AFTER = 2
# What a death speaks against the image that ran alone. A lease is lost by chance too: a host goes away, a
# process is killed from outside; one that crashed or hung, as its parent saw, seldom has another reason.
LOSS, CRASH = 1, 3
MOST_BLAME = 6


class SweepStore:
    """Finding lost or due work; every step is safe to repeat and to run twice at once."""

    def __init__(self, database: Database, retention_s: float) -> None:
        self._database = database
        self._retention_s = retention_s
        self._canceled_last = ""

    def take_turn(self, name: str, holder: str, seconds: float) -> bool:
        """Take or keep a named lease, so that one process at a time acts."""
        with self._database.write() as connection:
            dialect = sqlite if self._database.is_sqlite else postgresql
            connection.execute(dialect.insert(LeaseRow).values(name=name).on_conflict_do_nothing())
            free = or_(
                LeaseRow.until.is_(None), LeaseRow.until < self._database.now(), LeaseRow.holder == holder
            )
            taken = update(LeaseRow).where(LeaseRow.name == name, free)
            return bool(
                connection.execute(taken.values(holder=holder, until=self._database.now(seconds))).rowcount
            )

    def recover_leases(self) -> list[Message]:
        """Free the chunks whose lease ended; return messages to send."""
        return self._recover_where(ChunkRow.lease_until < self._database.now(), LOSS)

    def recover_worker(self, worker: str, *, crashed: bool) -> list[Message]:
        """Free at once the chunks of a worker that is known to be dead; return messages to send.

        ``crashed`` says that it crashed or hung, and was not killed from outside. A chunk that the dead one's
        last statement still has locked is left to its lease.
        """
        return self._recover_where(ChunkRow.owner == worker, CRASH if crashed else LOSS)

    def recover_all(self) -> None:
        """Free everything: in embedded mode a new process knows that the old one is dead.

        Whether that crashed nobody saw. But no host is taken from it by design, and whoever starts it again,
        often by hand, need not do so eight times.
        """
        self._recover_where(true(), CRASH)
        with self._database.write() as connection:
            connection.execute(update(ExpansionRow).values(lease_until=None))

    def _recover_where(self, lost: ColumnElement[bool], blame: int) -> list[Message]:
        late = (IS_LEASED, lost)
        with self._database.read() as connection:
            query = (
                select(ChunkRow.job_id, ChunkRow.number)
                .where(*late)
                .order_by(ChunkRow.lease_until)
                .limit(SLICE)
            )
            expired = connection.execute(query).all()
        messages: list[Message] = []
        for job_id, number in expired:
            with self._database.write() as connection:
                again = select(ChunkRow).where(ChunkRow.job_id == job_id, ChunkRow.number == number, *late)
                chunk = connection.execute(again.with_for_update(skip_locked=True)).first()
                if chunk is not None:
                    messages += self._recover(connection, chunk, blame)
        return messages

    def _recover(self, connection: Connection, chunk: Row[Any], blame: int) -> list[Message]:
        suspicions = chunk.suspicions + (0 if chunk.alone else 1)
        blame = chunk.deaths_alone + (blame if chunk.alone else 0)
        end: Callable[[Connection, Row[Any]], list[Message] | None] | None = None
        if blame >= MOST_BLAME:
            end = self._fail_crashed
        elif suspicions >= SPLIT_AFTER and chunk.last > chunk.first:
            end = self._split
        if end is not None:
            savepoint = connection.begin_nested()
            messages = end(connection, chunk)
            if messages is not None:
                savepoint.commit()
                return messages
            # The job was canceled or deleted meanwhile: its counters stand still, so nothing may count.
            savepoint.rollback()
        _change(
            connection,
            chunk,
            state="open",
            owner=None,
            lease_until=None,
            alone=False,
            suspicions=suspicions,
            deaths_alone=blame,
            noticed_at=self._database.now(),
        )
        return _messages(connection, [(chunk.job_id, chunk.number)])

    def _fail_crashed(self, connection: Connection, chunk: Row[Any]) -> list[Message] | None:
        message = "worker after worker died while it captioned this image alone"
        failed = connection.execute(
            update(ItemRow)
            .where(_in_chunk(chunk), ItemRow.status == ItemStatus.QUEUED)
            .values(
                status=ItemStatus.FAILED,
                error_code=ItemCode.WORKER_CRASHED,
                error_message=message,
                attempts=ItemRow.attempts + chunk.attempt,
                finished_at=self._database.now(),
            )
        ).rowcount
        _change(connection, chunk, state="done", owner=None, lease_until=None, alone=False)
        return self._advance(connection, chunk.job_id, Progress(closed=1, failed=failed))

    def _split(self, connection: Connection, chunk: Row[Any]) -> list[Message] | None:
        """Replace a suspicious chunk by chunks of one image each, at the end of the job."""
        positions = connection.execute(
            select(ItemRow.position)
            .where(_in_chunk(chunk), ItemRow.status == ItemStatus.QUEUED)
            .order_by(ItemRow.position)
        ).scalars()
        job = lock_job(connection, JobRow.id == chunk.job_id)
        assert job is not None
        rows = [
            chunk_values(chunk.job_id, job.chunk_count + index, chunk.round, position, position)
            | {"suspicions": SPLIT_AFTER}
            for index, position in enumerate(positions)
        ]
        if rows:
            connection.execute(insert(ChunkRow), rows)
        _change(connection, chunk, state="done", owner=None, lease_until=None, alone=False)
        return self._advance(connection, chunk.job_id, Progress(closed=1, added=len(rows)))

    def _advance(self, connection: Connection, job_id: str, progress: Progress) -> list[Message] | None:
        return advance_job(connection, self._database, job_id, progress, self._retention_s)

    def due_retries(self) -> list[Message]:
        """Return messages for the postponed chunks whose time has come."""
        with self._database.write() as connection:
            now = self._database.now()
            due = _unlocked(IS_OPEN, ChunkRow.not_before <= now)
            rows = connection.execute(
                update(ChunkRow)
                .where(_KEY.in_(due))
                .values(not_before=None, noticed_at=now)
                .returning(ChunkRow.job_id, ChunkRow.number)
            ).all()
            return _messages(connection, [(row.job_id, row.number) for row in rows])

    def unclaimed(self, *, at_once: bool = False) -> list[Message]:
        """Return messages for released chunks that nobody claimed for a while (``at_once``: for all)."""
        with self._database.write() as connection:
            now, waiting = self._database.now(), _WAITING
            overdue = ChunkRow.noticed_at < self._database.now(-NOTICE_S)
            rows = connection.execute(
                select(ChunkRow.job_id, ChunkRow.number)
                .where(waiting, true() if at_once else overdue)
                .order_by(ChunkRow.job_id, ChunkRow.number)
                .limit(SLICE)
            ).all()
            unnoticed = _unlocked(waiting, ChunkRow.noticed_at.is_(None))
            connection.execute(update(ChunkRow).where(_KEY.in_(unnoticed)).values(noticed_at=now))
            return _messages(connection, [(row.job_id, row.number) for row in rows])

    def overtaken(self) -> list[Message]:
        """Return messages for chunks that wait although ones announced well after them have been claimed.

        A queue serves first in, first out, so their own messages are lost, however long the queue is.
        """
        messages: list[Message] = []
        with self._database.read() as connection:
            for row in connection.execute(_SERVED).all():
                same_queue = (JobRow.model == row.model, JobRow.fast == row.fast)
                lost = connection.execute(
                    select(ChunkRow.job_id, ChunkRow.number)
                    .where(_WAITING, *same_queue)
                    .where(ChunkRow.noticed_at < row.newest - timedelta(seconds=NOTICE_S))
                    .limit(SLICE)
                ).all()
                queue = queue_name(row.model, fast=row.fast)
                messages += [Message(queue, job_id, number) for job_id, number in lost]
        return messages

    def renotice(self, messages: Sequence[Message]) -> None:
        """Start the waiting time of these chunks again, after their messages were sent."""
        with self._database.write() as connection:
            for message in sorted(messages, key=lambda message: (message.job_id, message.chunk)):
                connection.execute(
                    update(ChunkRow)
                    .where(ChunkRow.job_id == message.job_id, ChunkRow.number == message.chunk)
                    .where(IS_OPEN)
                    .values(noticed_at=self._database.now())
                )

    def widen_windows(self) -> list[Message]:
        """Release chunks of jobs whose window is narrower than their share has become."""
        with self._database.read() as connection:
            narrow = narrow_jobs(connection, self._database, SLICE)
        messages: list[Message] = []
        for job_id in narrow:
            with self._database.write() as connection:
                messages += self._advance(connection, job_id, Progress()) or []
        return messages

    def finish_cancels(self, seconds: float = CANCEL_S) -> bool:
        """Write the items of canceling jobs, a slice a job in turn, for about ``seconds``.

        Returns whether something is left to do. Lost leases are not to wait until a large job is canceled.
        Each call begins after the job that the last one ended with, be it that this one failed.
        """
        until = time.monotonic() + seconds
        query = select(JobRow.id).where(IS_CANCELING, JobRow.deleted_at.is_(None))
        query = query.order_by(JobRow.id <= self._canceled_last, JobRow.id)
        with self._database.read() as connection:
            jobs = deque(connection.execute(query.limit(100)).scalars())
        while jobs:
            job_id = self._canceled_last = jobs.popleft()
            if self._cancel_slice(job_id):
                jobs.append(job_id)
            if time.monotonic() >= until:
                break
        return bool(jobs)

    def _cancel_slice(self, job_id: str) -> bool:
        with self._database.write() as connection:
            now = self._database.now()
            if chunks := self._unfinished(connection, job_id):
                first, last = min(chunk.first for chunk in chunks), max(chunk.last for chunk in chunks)
                connection.execute(
                    update(ItemRow)
                    .where(ItemRow.job_id == job_id, ItemRow.position.between(first, last))
                    .where(ItemRow.status == ItemStatus.QUEUED)
                    .values(status=ItemStatus.CANCELED, finished_at=now)
                )
                connection.execute(
                    update(ChunkRow)
                    .where(ChunkRow.job_id == job_id, ChunkRow.number.in_([chunk.number for chunk in chunks]))
                    .values(state="done", owner=None, lease_until=None, alone=False)
                )
                return True
            if connection.execute(select(_UNDONE.where(ChunkRow.job_id == job_id).exists())).scalar():
                # Handed back while this looked for chunks in hand.
                return True
            canceled = connection.execute(
                update(JobRow)
                .where(JobRow.id == job_id, IS_CANCELING)
                .values(
                    status=JobStatus.CANCELED,
                    finished_at=now,
                    expires_at=self._database.now(self._retention_s),
                    version=JobRow.version + 1,
                )
            ).rowcount
            if canceled:
                announce(connection, self._database, job_id)
            return False

    def _unfinished(self, connection: Connection, job_id: str) -> list[Row[Any]]:
        """Lock some chunks of a job that are not done."""
        waiting = lock_chunks(connection, job_id, IS_OPEN, limit=CHUNKS_AT_ONCE)
        return waiting or lock_chunks(connection, job_id, IS_LEASED, limit=CHUNKS_AT_ONCE)


_KEY = tuple_(ChunkRow.job_id, ChunkRow.number)
_UNDONE = select(ChunkRow.number).where(or_(IS_OPEN, IS_LEASED))
# Chunks that may be claimed now.
_WAITING = and_(
    IS_OPEN,
    ChunkRow.not_before.is_(None),
    ChunkRow.job_id == JobRow.id,
    IS_ACTIVE,
    ChunkRow.number < JobRow.released,
)
# By queue: when the newest of the chunks now in hand was announced.
_SERVED = (
    select(JobRow.model, JobRow.fast, func.max(ChunkRow.noticed_at).label("newest"))
    .where(ChunkRow.job_id == JobRow.id, IS_LEASED, ChunkRow.noticed_at.is_not(None))
    .group_by(JobRow.model, JobRow.fast)
)


def _unlocked(*which: ColumnElement[bool]) -> Select[str, int]:
    """Select the keys of chunks that nobody else has locked: the sweep waits for nobody, and comes again."""
    query = select(ChunkRow.job_id, ChunkRow.number).where(*which).order_by(ChunkRow.job_id, ChunkRow.number)
    return query.correlate(None).with_for_update(skip_locked=True, of=ChunkRow)


def _in_chunk(chunk: Row[Any]) -> Any:
    return and_(ItemRow.job_id == chunk.job_id, ItemRow.position.between(chunk.first, chunk.last))


def _change(connection: Connection, chunk: Row[Any], **values: Any) -> None:
    connection.execute(
        update(ChunkRow)
        .where(ChunkRow.job_id == chunk.job_id, ChunkRow.number == chunk.number)
        .values(**values)
    )


def _messages(connection: Connection, chunks: Sequence[tuple[str, int]]) -> list[Message]:
    """Return messages for chunks of active jobs."""
    jobs = {job_id for job_id, _ in chunks}
    rows = connection.execute(
        select(JobRow.id, JobRow.model, JobRow.fast).where(JobRow.id.in_(jobs), IS_ACTIVE)
    )
    queues = {row.id: queue_name(row.model, fast=row.fast) for row in rows}
    return [Message(queues[job_id], job_id, number) for job_id, number in chunks if job_id in queues]
