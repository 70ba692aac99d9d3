"""Claim, renew, hand back and record chunks: the statements that keep every image captioned exactly once.

A chunk is ``open`` -> ``leased`` -> ``done``, and may be claimed once its number is below the job's
``released``. Its lease is the one recovery timer; ``(round, attempt)`` fences a worker that lost it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, and_, case, exists, func, or_, select, tuple_, update

from jobs.errors import DatabaseUnavailable, ItemError
from jobs.objects import is_immutable
from jobs.queue import Message, queue_name
from jobs.records import CaptionOptions, ItemStatus, JobStatus
from jobs.store.cache import CacheEntry, CacheStore
from jobs.store.database import Database
from jobs.store.locks import lock_job
from jobs.store.record import write_final
from jobs.store.states import IS_ACTIVE, IS_LEASED, IS_OPEN
from jobs.store.webhooks import announce
from jobs.store.window import window_size
from jobs.tables import ChunkRow, ItemRow, JobRow

log = logging.getLogger(__name__)
_CLAIMED_JOB = (JobRow.owner, JobRow.model, JobRow.fast, JobRow.options, JobRow.traceparent)


@dataclass(frozen=True)
class ClaimedItem:
    """One image of a claimed chunk."""

    position: int
    source: str
    object_key: str | None
    sha256: str | None
    """The digest of bytes that cannot have changed since; ``None`` where they are to be looked at again."""


@dataclass(frozen=True)
class Claim:
    """A chunk this worker holds until its lease ends, and the items in it that wait for a caption."""

    job_id: str
    number: int
    round: int
    attempt: int
    alone: bool
    failures: int
    owner: str
    model: str
    fast: bool
    options: CaptionOptions
    items: tuple[ClaimedItem, ...]
    traceparent: str | None = None

    @property
    def message(self) -> Message:
        """The message that brings this chunk to a worker again."""
        return Message(queue_name(self.model, fast=self.fast), self.job_id, self.number)


@dataclass(frozen=True)
class ItemResult:
    """The final state of one item: captions, best first, or an error."""

    position: int
    captions: tuple[tuple[str, float], ...] = ()
    error: ItemError | None = None
    model: str | None = None
    width: int | None = None
    height: int | None = None
    sha256: str | None = None
    cache_key: str | None = None
    """Where a new caption is to be remembered."""


@dataclass(frozen=True)
class ChunkResult:
    """What became of every item of a claim."""

    claim: Claim
    items: Sequence[ItemResult]


@dataclass
class Recorded:
    """What a recording did: chunks it closed (others were no longer this worker's), and messages to send."""

    closed: list[Claim] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)


class ChunkStore:
    """The life of chunks."""

    def __init__(self, database: Database, retention_s: float) -> None:
        self._database = database
        self._cache = CacheStore(database)
        self._retention_s = retention_s

    def claim(self, job_id: str, number: int, worker: str, lease_s: float, alone_after: int) -> Claim | None:
        """Take an open, released chunk of a running job; ``None`` if there is nothing to take.

        From ``alone_after`` lost leases on, the claim asks to be run alone in its process.
        """
        with self._database.write() as connection:
            now = self._database.now()
            released = exists().where(
                JobRow.id == ChunkRow.job_id, IS_ACTIVE, ChunkRow.number < JobRow.released
            )
            taken = connection.execute(
                update(ChunkRow)
                .where(ChunkRow.job_id == job_id, ChunkRow.number == number, IS_OPEN, released)
                .where(or_(ChunkRow.not_before.is_(None), ChunkRow.not_before <= now))
                .values(
                    state="leased",
                    owner=worker,
                    lease_until=self._database.now(lease_s),
                    attempt=ChunkRow.attempt + 1,
                    alone=False,
                    # What was announced earlier and is still unclaimed has been overtaken: see the sweep.
                    noticed_at=func.coalesce(ChunkRow.noticed_at, now),
                )
                .returning(
                    ChunkRow.round,
                    ChunkRow.attempt,
                    ChunkRow.first,
                    ChunkRow.last,
                    ChunkRow.suspicions,
                    ChunkRow.failures,
                )
            ).first()
            if taken is None:
                return None
            connection.execute(
                update(JobRow)
                .where(JobRow.id == job_id, JobRow.round_started_at.is_(None))
                .values(
                    # A job goes on being prepared while its first images are captioned.
                    status=case((JobRow.status == JobStatus.QUEUED, JobStatus.RUNNING), else_=JobRow.status),
                    started_at=func.coalesce(JobRow.started_at, now),
                    round_started_at=now,
                    version=JobRow.version + 1,
                )
            )
            return self._read_claim(connection, job_id, number, taken, alone_after)

    def _read_claim(
        self, connection: Connection, job_id: str, number: int, taken: Any, alone_after: int
    ) -> Claim:
        job = connection.execute(select(*_CLAIMED_JOB).where(JobRow.id == job_id)).one()
        rows = connection.execute(
            select(ItemRow.position, ItemRow.source, ItemRow.object_key, ItemRow.sha256)
            .where(ItemRow.job_id == job_id, ItemRow.position.between(taken.first, taken.last))
            .where(ItemRow.status == ItemStatus.QUEUED)
            .order_by(ItemRow.position)
        )
        return Claim(
            job_id=job_id,
            number=number,
            round=taken.round,
            attempt=taken.attempt,
            alone=taken.suspicions >= alone_after,
            failures=taken.failures,
            owner=job.owner,
            model=job.model,
            fast=job.fast,
            options=CaptionOptions(**job.options),
            items=tuple(_claimed(row) for row in rows),
            traceparent=job.traceparent,
        )

    def renew(self, worker: str, lease_s: float, held: Sequence[Claim]) -> set[tuple[str, int, int]]:
        """Extend the leases of the chunks this worker has in hand, in one statement.

        Returns (job, number, attempt) of those that are still the worker's. A chunk that it does not know it
        holds, because the answer to its claim got lost, is left to expire.
        """
        if not held:
            return set()
        key = tuple_(ChunkRow.job_id, ChunkRow.number)
        # Locked in the order in which recordings lock them, so that the two never wait for each other.
        mine = (
            select(ChunkRow.job_id, ChunkRow.number)
            .where(IS_LEASED, ChunkRow.owner == worker)
            .where(key.in_([(claim.job_id, claim.number) for claim in held]))
            .order_by(ChunkRow.job_id, ChunkRow.number)
            .with_for_update()
        )
        with self._database.write() as connection:
            renewed = connection.execute(
                update(ChunkRow)
                .where(key.in_(mine))
                .values(lease_until=self._database.now(lease_s))
                .returning(ChunkRow.job_id, ChunkRow.number, ChunkRow.attempt)
            )
            return {(row.job_id, row.number, row.attempt) for row in renewed}

    def mark_alone(self, claim: Claim) -> bool:
        """Note that from now on nothing else runs in this process: its death would be this item's doing."""
        with self._database.write() as connection:
            return bool(connection.execute(update(ChunkRow).where(_held(claim)).values(alone=True)).rowcount)

    def absolve(self, claims: Sequence[Claim]) -> None:
        """Take the blame for these lost leases back from their images: the worker lives, none killed it."""
        with self._database.write() as connection:
            # Locked in the order in which recordings lock them.
            for claim in sorted(claims, key=lambda claim: (claim.job_id, claim.number)):
                blame = ChunkRow.deaths_alone if claim.alone else ChunkRow.suspicions
                connection.execute(
                    update(ChunkRow)
                    .where(ChunkRow.job_id == claim.job_id, ChunkRow.number == claim.number)
                    .where(ChunkRow.round == claim.round, ChunkRow.attempt >= claim.attempt)
                    .where(ChunkRow.state != "done", blame > 0)
                    .values({blame: blame - 1})
                )

    def hand_back(self, claim: Claim) -> bool:
        """Open a claimed chunk again without counting it against its images (a shutdown)."""
        with self._database.write() as connection:
            freed = update(ChunkRow).where(_held(claim)).values(**_OPEN)
            return bool(connection.execute(freed).rowcount)

    def postpone(self, claim: Claim, delay_s: float) -> bool:
        """Open a claimed chunk again after a transient failure, to be claimed in ``delay_s`` seconds."""
        with self._database.write() as connection:
            freed = (
                update(ChunkRow)
                .where(_held(claim))
                .values(**_OPEN, failures=ChunkRow.failures + 1, not_before=self._database.now(delay_s))
            )
            return bool(connection.execute(freed).rowcount)

    def record(self, results: Sequence[ChunkResult]) -> Recorded:
        """Write final items, close chunks, move counters and release what comes next, in one transaction.

        Jobs are taken in one order and each job's row last, so that recordings never deadlock.
        The caller sends ``messages`` after this returns.
        """
        by_job: defaultdict[str, list[ChunkResult]] = defaultdict(list)
        for result in results:
            by_job[result.claim.job_id].append(result)
        recorded = Recorded()
        with self._database.write() as connection:
            for job_id in sorted(by_job):
                self._record_job(connection, job_id, by_job[job_id], recorded)
        self._remember(results, {claim.message for claim in recorded.closed})
        return recorded

    def _remember(self, results: Sequence[ChunkResult], closed: set[Message]) -> None:
        entries = [
            CacheEntry(item.cache_key, result.claim.owner, result.claim.job_id, item.position)
            for result in results
            for item in result.items
            if item.cache_key and result.claim.message in closed
        ]
        if not entries:
            return
        try:
            self._cache.remember(entries)
        except DatabaseUnavailable as error:
            log.warning("%d captions are not remembered: %s", len(entries), error)

    def _record_job(
        self, connection: Connection, job_id: str, results: list[ChunkResult], recorded: Recorded
    ) -> None:
        savepoint = connection.begin_nested()
        ordered = sorted(results, key=lambda result: result.claim.number)
        closed = [result for result in ordered if close_chunk(connection, result.claim)]
        moved = {
            status: _write_items(connection, self._database, closed, status)
            for status in (ItemStatus.SUCCEEDED, ItemStatus.FAILED)
        }
        messages = advance_job(
            connection,
            self._database,
            job_id,
            Progress(len(closed), moved[ItemStatus.SUCCEEDED], moved[ItemStatus.FAILED]),
            self._retention_s,
        )
        if messages is None:
            # The job was canceled or deleted meanwhile: nothing of this may count.
            savepoint.rollback()
            closed = []
        else:
            savepoint.commit()
            recorded.messages += messages
        recorded.closed += [result.claim for result in closed]


_OPEN = {"state": "open", "owner": None, "lease_until": None, "alone": False, "noticed_at": None}


def _claimed(row: Row[int, str, str | None, str | None]) -> ClaimedItem:
    sha256 = row.sha256 if is_immutable(row.object_key) else None
    return ClaimedItem(row.position, row.source, row.object_key, sha256)


def _held(claim: Claim) -> Any:
    return and_(
        ChunkRow.job_id == claim.job_id,
        ChunkRow.number == claim.number,
        ChunkRow.round == claim.round,
        ChunkRow.attempt == claim.attempt,
        IS_LEASED,
    )


def close_chunk(connection: Connection, claim: Claim) -> bool:
    """Mark a chunk done if this claim still holds it."""
    done = (
        update(ChunkRow).where(_held(claim)).values(state="done", owner=None, lease_until=None, alone=False)
    )
    return connection.execute(done).rowcount == 1


def _write_items(
    connection: Connection, database: Database, results: list[ChunkResult], status: ItemStatus
) -> int:
    """Write the items that end in ``status``; return how many rows really changed."""
    failed = status is ItemStatus.FAILED
    rows = [
        _item_values(result.claim, item)
        for result in results
        for item in result.items
        if (item.error is not None) == failed
    ]
    job_id = results[0].claim.job_id if results else ""
    return write_final(connection, database, job_id, status, rows)


def _item_values(claim: Claim, item: ItemResult) -> dict[str, Any]:
    """Return one row's parameters: names with an underscore for the conditions, columns for the values."""
    best = item.captions[0] if item.captions else (None, None)
    return {
        "_position": item.position,
        "_attempt": claim.attempt,
        "_sha256": item.sha256,
        "caption": best[0],
        "score": best[1],
        "alternatives": [{"text": text, "score": score} for text, score in item.captions[1:]],
        "model": item.model,
        "width": item.width,
        "height": item.height,
        "error_code": item.error.code if item.error else None,
        "error_message": item.error.message if item.error else None,
    }


@dataclass(frozen=True)
class Progress:
    """What one recording adds to its job."""

    closed: int = 0
    succeeded: int = 0
    failed: int = 0
    added: int = 0
    """New chunks, where a suspicious one was split."""


def advance_job(
    connection: Connection, database: Database, job_id: str, progress: Progress, retention_s: float
) -> list[Message] | None:
    """Move a job's counters and release its next chunks; ``None`` if it no longer runs.

    The window is a function of the counters (``released`` never exceeds ``closed`` + window), so neither a
    repeated delivery can widen it nor a crash narrow it. The job's row is locked last and for one statement.
    """
    window = window_size(connection, database, job_id)
    job = lock_job(connection, JobRow.id == job_id, IS_ACTIVE)
    if job is None:
        return None
    succeeded, failed = job.succeeded + progress.succeeded, job.failed + progress.failed
    closed, chunk_count = job.closed + progress.closed, job.chunk_count + progress.added
    released = max(job.released, min(chunk_count, closed + window))
    values: dict[str, Any] = {"released": released, "closed": closed, "chunk_count": chunk_count}
    if progress.succeeded or progress.failed:
        values |= {"succeeded": succeeded, "failed": failed, "version": JobRow.version + 1}
    finished = succeeded + failed >= job.total and job.status != JobStatus.PREPARING
    if finished:
        values |= {
            "status": JobStatus.COMPLETED,
            "finished_at": database.now(),
            "expires_at": database.now(retention_s),
            "version": JobRow.version + 1,
        }
    connection.execute(update(JobRow).where(JobRow.id == job_id).values(**values))
    if finished:
        announce(connection, database, job_id)
    queue = queue_name(job.model, fast=job.fast)
    return [Message(queue, job_id, number) for number in range(job.released, released)]
