"""Items and chunks written many at a time: COPY on PostgreSQL, one statement for all rows on SQLite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, insert, select

from jobs.errors import DatabaseUnavailable, ItemError
from jobs.records import ItemStatus
from jobs.store.database import Database
from jobs.tables import ChunkRow, ItemRow, WorkerRow

CHUNK_SECONDS = 4
LARGEST_CHUNK = 256
USUAL_CHUNK = 32

_COLUMNS = "job_id, position, status, attempts, name, custom_id, source, object_key, content_type, sha256"
_COPY = f"COPY items ({_COLUMNS}) FROM STDIN"
_INSERT = f"INSERT INTO items ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608


class NewItem(NamedTuple):
    """One image of a job to be."""

    name: str
    custom_id: str
    source: str
    object_key: str | None = None
    content_type: str | None = None
    sha256: str | None = None
    # Why it will never have a caption, where that is known before any worker sees it.
    error: ItemError | None = None
    # The direct upload that the job takes.
    upload_id: str | None = None


def insert_items(
    connection: Connection, database: Database, job_id: str, first: int, items: Sequence[NewItem]
) -> int:
    """Insert items at the positions from ``first`` on; return how many of them have failed already."""
    queued: list[tuple[Any, ...]] = []
    failed: list[dict[str, Any]] = []
    for position, item in enumerate(items, start=first):
        if item.error is None:
            queued.append(
                (
                    job_id,
                    position,
                    "queued",
                    0,
                    item.name,
                    item.custom_id,
                    item.source,
                    item.object_key,
                    item.content_type,
                    item.sha256,
                )
            )
        else:
            failed.append(_failed(job_id, position, item))
    if queued and database.is_sqlite:
        connection.exec_driver_sql(_INSERT, queued)
    elif queued:
        _copy(connection, queued)
    if failed:
        connection.execute(insert(ItemRow).values(finished_at=database.now()), failed)
    return len(failed)


def _copy(connection: Connection, rows: Iterable[tuple[Any, ...]]) -> None:
    import psycopg

    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.OperationalError as error:
        # The driver is spoken to directly here, so nobody else says its errors in our words.
        raise DatabaseUnavailable(f"the database does not answer: {error}") from error


def _failed(job_id: str, position: int, item: NewItem) -> dict[str, Any]:
    assert item.error is not None
    return {
        "job_id": job_id,
        "position": position,
        "status": ItemStatus.FAILED,
        "attempts": 0,
        "name": item.name,
        "custom_id": item.custom_id,
        "source": item.source,
        "object_key": item.object_key,
        "content_type": item.content_type,
        "sha256": item.sha256,
        "error_code": item.error.code,
        "error_message": item.error.message,
    }


def insert_chunks(connection: Connection, job_id: str, number: int, first: int, count: int, size: int) -> int:
    """Cut ``count`` positions from ``first`` on into chunks numbered from ``number`` on; return how many."""
    end = first + count
    rows = [
        chunk_values(job_id, number + index, 1, start, min(end, start + size) - 1)
        for index, start in enumerate(range(first, end, size))
    ]
    if rows:
        connection.execute(insert(ChunkRow), rows)
    return len(rows)


def chunk_values(job_id: str, number: int, job_round: int, first: int, last: int) -> dict[str, Any]:
    """Return the row of a new, open chunk."""
    return {
        "job_id": job_id,
        "number": number,
        "round": job_round,
        "first": first,
        "last": last,
        "state": "open",
        "attempt": 0,
        "suspicions": 0,
        "alone": False,
        "deaths_alone": 0,
        "failures": 0,
    }


def chunk_size(connection: Connection, model: str) -> int:
    """Return how many images make about four seconds of work for one worker."""
    rate = connection.execute(
        select(func.avg(WorkerRow.images_per_second)).where(WorkerRow.model == model)
    ).scalar_one()
    return max(1, min(LARGEST_CHUNK, round(CHUNK_SECONDS * rate))) if rate else USUAL_CHUNK
