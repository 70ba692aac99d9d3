"""Reading jobs and items, and the turns a client may give a job: cancel, retry, delete."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, case, exists, func, insert, or_, select, update

from jobs.errors import RequestError
from jobs.limits import NO_LIMITS, Limits
from jobs.queue import Message, queue_name
from jobs.records import LARGEST_POSITION, Item, ItemStatus, Job, JobStatus
from jobs.store.bulk import chunk_values
from jobs.store.database import Database
from jobs.store.locks import lock_chunks, lock_job
from jobs.store.outputs import output_states, renew_output
from jobs.store.search import SEARCHED_ROWS, Rank, caption_holds, ranks_below
from jobs.store.states import IS_FINAL, IS_LEASED
from jobs.store.usage import charge
from jobs.store.views import ItemView, item_columns, leased_ranges, to_job
from jobs.store.window import window_size
from jobs.tables import ChunkRow, ItemRow, JobRow, OutputRow

SLICE = 5000

CANCELABLE = (JobStatus.PREPARING, JobStatus.QUEUED, JobStatus.RUNNING)
# What an item's source says where its bytes came with the request.
UPLOAD = "upload"
RESULT_ROWS_AT_ONCE = 2500
RETRY_CHUNK = 64
_IN_HAND = select(func.coalesce(func.sum(ChunkRow.last - ChunkRow.first + 1), 0)).where(
    ChunkRow.job_id == JobRow.id, IS_LEASED
)
# All that a job's status says, in one question.
_SHOWN = select(
    JobRow,
    _IN_HAND.scalar_subquery().label("in_hand"),
    exists().where(OutputRow.job_id == JobRow.id).label("has_output"),
)
# Put together once: that takes longer than to answer it.
_OWN = (
    JobRow.id == bindparam("job_id"),
    JobRow.owner == bindparam("owner"),
    JobRow.deleted_at.is_(None),
)
_SHOWN_OWN, _JOB_OWN = _SHOWN.where(*_OWN), select(JobRow).where(*_OWN)


class JobStore:
    """Jobs and items as their owner sees them; whatever belongs to somebody else does not exist."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, owner: str, job_id: str) -> tuple[Job, int]:
        """Return a job and its version, in constant time; raise ``RequestError`` job_not_found."""
        with self._database.read() as connection:
            row = self._found(connection, _SHOWN_OWN, owner, job_id)
            output = output_states(connection, [job_id])[job_id] if row.has_output else None
            return to_job(row, row.in_hand, output), row.version

    def versions(self, job_ids: Collection[str]) -> dict[str, int]:
        """Return the versions of these jobs, whoever owns them, in one query; deleted ones are left out."""
        query = select(JobRow.id, JobRow.version).where(JobRow.id.in_(job_ids), JobRow.deleted_at.is_(None))
        with self._database.read() as connection:
            return {row.id: row.version for row in connection.execute(query)}

    def page(
        self, owner: str, status: JobStatus | None, limit: int, before: str | None
    ) -> tuple[list[Job], str | None]:
        """Return jobs, newest first, older than the job ``before``, and the cursor of the next page."""
        query = _SHOWN.where(JobRow.owner == owner, JobRow.deleted_at.is_(None))
        if status is not None:
            query = query.where(JobRow.status == status)
        if before is not None:
            query = query.where(JobRow.id < before)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(JobRow.id.desc()).limit(limit + 1)).all()
            outputs = output_states(connection, [row.id for row in rows[:limit] if row.has_output])
        jobs = [to_job(row, row.in_hand, outputs.get(row.id)) for row in rows[:limit]]
        return jobs, jobs[-1].id if len(rows) > limit else None

    def items(
        self,
        owner: str,
        job_id: str,
        status: ItemStatus | None,
        limit: int,
        after: int,
        text: str | None = None,
    ) -> tuple[list[Item], int | None]:
        """Return items by position from ``after`` + 1 on, and the position to go on from.

        Of those whose caption holds ``text``, a page may be short, even empty, before the end: it looks at
        ``SEARCHED_ROWS`` positions at most.
        """
        fields, more = self._page(owner, job_id, status, limit, after, text)
        return [Item(**entry) for entry in fields], more

    def ranked(
        self,
        owner: str,
        job_id: str,
        status: ItemStatus | None,
        limit: int,
        after: Rank | None,
        text: str | None = None,
    ) -> tuple[list[Item], Rank | None]:
        """Return items by score, best first and those without one last, and the rank to go on from.

        Each page reads the whole job once: an index would make recording every caption slower.
        """
        with self._database.read() as connection:
            query, view = self._listing(connection, owner, job_id, status, text)
            if after is not None:
                query = query.where(ranks_below(after))
            order = (ItemRow.score.desc().nulls_last(), ItemRow.position)
            rows = connection.execute(query.order_by(*order).limit(limit + 1)).all()
        more = Rank(rows[limit - 1].score, rows[limit - 1].position) if len(rows) > limit else None
        return [view.item(row) for row in rows[:limit]], more

    def edit(self, owner: str, job_id: str, position: int, caption: str | None) -> Item:
        """Store an edited caption beside the model's own, or remove it; raise ``RequestError`` not_found."""
        with self._database.write() as connection:
            self._find(connection, owner, job_id)
            # The item before its job, as in recording, so that the two do not wait for each other.
            connection.execute(
                update(ItemRow)
                .where(ItemRow.job_id == job_id, ItemRow.position == position)
                .values(edited_caption=caption)
            )
            connection.execute(update(JobRow).where(JobRow.id == job_id).values(version=JobRow.version + 1))
            return self._item(connection, owner, job_id, position)[0]

    def _listing(
        self, connection: Connection, owner: str, job_id: str, status: ItemStatus | None, text: str | None
    ) -> tuple[Select[Any], ItemView]:
        job = self._find(connection, owner, job_id)
        view = ItemView(job.status, leased_ranges(connection, job_id))
        query = select(*item_columns(self._database)).where(ItemRow.job_id == job_id)
        if status is not None:
            query = query.where(view.condition(status))
        if text:
            query = query.where(caption_holds(self._database, text))
        return query, view

    def _page(
        self,
        owner: str,
        job_id: str,
        status: ItemStatus | None,
        limit: int,
        after: int,
        text: str | None = None,
    ) -> tuple[list[dict[str, Any]], int | None]:
        with self._database.read() as connection:
            query, view = self._listing(connection, owner, job_id, status, text)
            searched = min(after + SEARCHED_ROWS, LARGEST_POSITION)
            if text:
                query = query.where(ItemRow.position <= searched)
            query = query.where(ItemRow.position > after).order_by(ItemRow.position).limit(limit + 1)
            rows = connection.execute(query).all()
            following = rows[limit - 1].position if len(rows) > limit else None
            if text and following is None:
                following = _unsearched(connection, job_id, searched)
        return [view.fields(row) for row in rows[:limit]], following

    def item(self, owner: str, job_id: str, position: int) -> tuple[Item, str | None, str | None]:
        """Return one item, its object key and content type; raise ``RequestError`` not_found."""
        with self._database.read() as connection:
            return self._item(connection, owner, job_id, position)

    def results(self, owner: str, job_id: str) -> Iterator[list[Item]]:
        """Yield all items in pages by position, each read on its own: a slow reader holds nothing."""
        for page in self.result_fields(owner, job_id):
            yield [Item(**fields) for fields in page]

    def result_fields(self, owner: str, job_id: str, after: int = -1) -> Iterator[list[dict[str, Any]]]:
        """Yield what ``results`` does as plain fields, in the order of ``Item``: downloads are long."""
        following: int | None = after
        while following is not None:
            page, following = self._page(owner, job_id, None, RESULT_ROWS_AT_ONCE, following)
            yield page

    def cancel(self, owner: str, job_id: str) -> None:
        """Flag a job as canceling; raise ``RequestError`` job_state_conflict when it is over already."""
        with self._database.write() as connection:
            job = self._find(connection, owner, job_id)
            if job.status in (JobStatus.CANCELING, JobStatus.CANCELED):
                return
            changed = connection.execute(
                update(JobRow)
                .where(JobRow.id == job_id, JobRow.status.in_(CANCELABLE))
                .values(status=JobStatus.CANCELING, version=JobRow.version + 1)
            ).rowcount
        if not changed:
            raise RequestError(
                "job_state_conflict", f"the job is {job.status}; only a job that runs can be canceled"
            )

    def retry(self, owner: str, job_id: str, limits: Limits = NO_LIMITS) -> list[Message]:
        """Queue every item of a finished job that has no caption again; return the messages to send.

        Raises ``RequestError`` job_state_conflict while the job runs or when nothing is left to retry, and
        quota_exceeded.
        """
        with self._database.write() as connection:
            _check_over(self._find(connection, owner, job_id))
            lock_chunks(connection, job_id, ChunkRow.state != "done")
            positions = _reopen_items(connection, job_id)
            job = _check_over(lock_job(connection, JobRow.id == job_id))
            if not positions:
                raise RequestError(
                    "job_state_conflict", "no image of this job can be tried again; nothing to retry"
                )
            renew_output(connection, self._database, job_id)
            chunks = _retry_chunks(job, positions)
            connection.execute(
                update(ChunkRow)
                .where(ChunkRow.job_id == job_id, ChunkRow.state != "done")
                .values(state="done")
            )
            connection.execute(insert(ChunkRow), chunks)
            failed = _still_failed(connection, job_id)
            connection.execute(
                update(JobRow).where(JobRow.id == job_id).values(**_reopened(job, len(chunks), failed))
            )
            released = min(
                job.chunk_count + len(chunks),
                job.chunk_count + window_size(connection, self._database, job_id),
            )
            connection.execute(update(JobRow).where(JobRow.id == job_id).values(released=released))
            charge(connection, self._database, owner, limits, images=len(positions), new_job=True)
        queue = queue_name(job.model, fast=job.fast)
        return [Message(queue, job_id, number) for number in range(job.chunk_count, released)]

    def delete(self, owner: str, job_id: str) -> None:
        """Hide a job for good; the sweep removes its objects, then its rows."""
        with self._database.write() as connection:
            self._find(connection, owner, job_id)
            connection.execute(
                update(JobRow)
                .where(JobRow.id == job_id)
                .values(
                    deleted_at=self._database.now(),
                    status=case((JobRow.status.in_(CANCELABLE), JobStatus.CANCELING), else_=JobRow.status),
                    version=JobRow.version + 1,
                )
            )

    def _find(self, connection: Connection, owner: str, job_id: str) -> Row[Any]:
        return self._found(connection, _JOB_OWN, owner, job_id)

    def _found(self, connection: Connection, query: Select[Any], owner: str, job_id: str) -> Row[Any]:
        row = connection.execute(query, {"job_id": job_id, "owner": owner}).first()
        if row is None:
            raise RequestError("job_not_found", f"there is no job {job_id}")
        return row

    def _item(
        self, connection: Connection, owner: str, job_id: str, position: int
    ) -> tuple[Item, str | None, str | None]:
        job = self._find(connection, owner, job_id)
        columns = item_columns(self._database)
        row = connection.execute(
            select(*columns, ItemRow.object_key, ItemRow.content_type).where(
                ItemRow.job_id == job_id, ItemRow.position == position
            )
        ).first()
        if row is None:
            raise RequestError("not_found", f"the job has no item at position {position}")
        view = ItemView(job.status, leased_ranges(connection, job_id))
        return view.item(row[: len(columns)]), row.object_key, row.content_type


def _unsearched(connection: Connection, job_id: str, searched: int) -> int | None:
    """Return the last position a search has looked at, unless that was the job's last."""
    beyond = select(ItemRow.position).where(ItemRow.job_id == job_id, ItemRow.position > searched).limit(1)
    return None if connection.execute(beyond).first() is None else searched


def _check_over(job: Row[Any] | None) -> Row[Any]:
    assert job is not None
    if job.status not in (JobStatus.COMPLETED, JobStatus.CANCELED):
        raise RequestError("job_state_conflict", f"the job is {job.status}; retry it when it has finished")
    return job


def _reopen_items(connection: Connection, job_id: str) -> list[int]:
    """Queue failed and canceled items whose bytes there are; return their positions in order."""
    again = (
        select(ItemRow.position)
        .where(ItemRow.job_id == job_id)
        .where(or_(ItemRow.object_key.is_not(None), ItemRow.source != UPLOAD))
        .where(IS_FINAL, ItemRow.status.in_([ItemStatus.FAILED, ItemStatus.CANCELED]))
        .order_by(ItemRow.position)
        .with_for_update()
    )
    positions = list(connection.execute(again).scalars())
    for start in range(0, len(positions), SLICE):
        some = positions[start : start + SLICE]
        connection.execute(
            update(ItemRow)
            # Bounds and values: a subquery here would let PostgreSQL read the whole job for each of them.
            .where(ItemRow.job_id == job_id, ItemRow.position.between(some[0], some[-1]))
            .where(ItemRow.position.in_(some))
            .values(status=ItemStatus.QUEUED, error_code=None, error_message=None, finished_at=None)
        )
    return positions


def _still_failed(connection: Connection, job_id: str) -> int:
    """Return how many items failed for good: uploads that were refused and so never stored."""
    failed = (ItemRow.job_id == job_id, IS_FINAL, ItemRow.status == ItemStatus.FAILED)
    return connection.execute(select(func.count()).select_from(ItemRow).where(*failed)).scalar_one()


def _retry_chunks(job: Row[Any], positions: Sequence[int]) -> list[dict[str, Any]]:
    """Return the next round's chunk rows for these positions; what lies between them is final already."""
    groups = [positions[start : start + RETRY_CHUNK] for start in range(0, len(positions), RETRY_CHUNK)]
    return [
        chunk_values(job.id, job.chunk_count + index, job.round + 1, group[0], group[-1])
        for index, group in enumerate(groups)
    ]


def _reopened(job: Row[Any], new_chunks: int, failed: int) -> dict[str, Any]:
    """Return the job's values at the start of its next round: every older chunk counts as closed."""
    return {
        "status": JobStatus.QUEUED,
        "round": job.round + 1,
        "version": job.version + 1,
        "failed": failed,
        "closed": job.chunk_count,
        "released": job.chunk_count,
        "chunk_count": job.chunk_count + new_chunks,
        "round_base": job.succeeded + failed,
        "round_started_at": None,
        "finished_at": None,
        "expires_at": None,
    }
