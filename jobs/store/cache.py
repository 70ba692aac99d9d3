"""The caption cache: which item holds the caption of an image's bytes, so that it is made once.

An entry points at an item. It serves while that item's job is there: what is deleted is not found.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, select, text, tuple_

from jobs.records import ItemStatus
from jobs.store.database import Database
from jobs.tables import CachedCaptionRow, ItemRow, JobRow

SLICE = 5000
_POSTGRESQL = text(
    "INSERT INTO cached_captions (key, owner, job_id, position) "
    "SELECT * FROM unnest(CAST(:keys AS text[]), CAST(:owners AS text[]), CAST(:jobs AS text[]), "
    "CAST(:positions AS int[])) "
    "ON CONFLICT DO NOTHING"
)
_SQLITE = "INSERT OR IGNORE INTO cached_captions (key, owner, job_id, position) VALUES (?, ?, ?, ?)"
# Put together once: that takes longer than finding a caption.
# Three questions, not a join: of a job that no ANALYZE has seen yet the planner thinks that it has a few
# rows, and would begin with all that are of that job. Most often the first finds nothing.
_PLACES = select(CachedCaptionRow.key, CachedCaptionRow.job_id, CachedCaptionRow.position).where(
    CachedCaptionRow.key.in_(bindparam("keys", expanding=True))
)
_THERE = select(JobRow.id).where(
    JobRow.id.in_(bindparam("jobs", expanding=True)), JobRow.deleted_at.is_(None)
)
_CAPTION = (
    ItemRow.job_id,
    ItemRow.position,
    ItemRow.status,
    ItemRow.caption,
    ItemRow.score,
    ItemRow.alternatives,
    ItemRow.width,
    ItemRow.height,
)
_CAPTIONS_SQLITE = select(*_CAPTION).where(
    tuple_(ItemRow.job_id, ItemRow.position).in_(bindparam("places", expanding=True))
)
# Behind a fence: a list of places that are all of one job would be taken apart into that job and a filter.
_CAPTIONS_POSTGRESQL = text(
    "WITH places AS MATERIALIZED (SELECT * FROM unnest(CAST(:jobs AS text[]), CAST(:positions AS int[])) "  # noqa: S608
    f"AS place(_job_id, _position)) SELECT {', '.join(f'items.{column.key}' for column in _CAPTION)} "
    "FROM places JOIN items ON items.job_id = _job_id AND items.position = _position"
)


@dataclass(frozen=True)
class CachedCaption:
    """What is known of an image that was captioned before: captions, best first, and its size."""

    captions: tuple[tuple[str, float], ...]
    width: int
    height: int


@dataclass(frozen=True)
class CacheEntry:
    """An item that has a caption, under the digest of all that decides it."""

    key: str
    owner: str
    job_id: str
    position: int


class CacheStore:
    """Looks captions up and remembers them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, wanted: Collection[str]) -> dict[str, CachedCaption]:
        """Return what there is under these keys."""
        with self._database.read() as connection:
            places = connection.execute(_PLACES, {"keys": list(wanted)}).all()
            if not places:
                return {}
            jobs = list({place.job_id for place in places})
            there = set(connection.execute(_THERE, {"jobs": jobs}).scalars())
            keys = {(place.job_id, place.position): place.key for place in places if place.job_id in there}
            return {
                keys[item.job_id, item.position]: _cached(item)
                for item in self._items(connection, list(keys))
                if item.status == ItemStatus.SUCCEEDED
            }

    def _items(self, connection: Connection, places: list[tuple[str, int]]) -> Sequence[Row[Any]]:
        if self._database.is_sqlite:
            return connection.execute(_CAPTIONS_SQLITE, {"places": places}).all()
        given = {"jobs": [job for job, _ in places], "positions": [position for _, position in places]}
        return connection.execute(_CAPTIONS_POSTGRESQL, given).all()

    def remember(self, entries: Sequence[CacheEntry]) -> None:
        """Keep entries whose job is still there; what is known already stays.

        In a transaction of its own, after the recording: the job's row is not to be locked for so long.
        """
        with self._database.write() as connection:
            alive = _hold_jobs(connection, {entry.job_id for entry in entries})
            # In one order, so that two processes that know the same images do not wait for each other.
            rows = sorted(
                (entry.key, entry.owner, entry.job_id, entry.position)
                for entry in entries
                if entry.job_id in alive
            )
            if rows and self._database.is_sqlite:
                connection.exec_driver_sql(_SQLITE, rows)
            elif rows:
                keys, owners, jobs, positions = map(list, zip(*rows, strict=True))
                given = {"keys": keys, "owners": owners, "jobs": jobs, "positions": positions}
                connection.execute(_POSTGRESQL, given)


def forget_slice(connection: Connection, job_id: str) -> bool:
    """Delete some of a job's entries; return whether something may be left."""
    keys = select(CachedCaptionRow.key).where(CachedCaptionRow.job_id == job_id).limit(SLICE)
    return (
        connection.execute(delete(CachedCaptionRow).where(CachedCaptionRow.key.in_(keys))).rowcount == SLICE
    )


def _hold_jobs(connection: Connection, job_ids: Collection[str]) -> set[str]:
    """Return the jobs that are there, and keep them from being removed until the transaction ends."""
    query = select(JobRow.id).where(JobRow.id.in_(job_ids), JobRow.deleted_at.is_(None)).order_by(JobRow.id)
    return set(connection.execute(query.with_for_update(read=True, key_share=True)).scalars())


def _cached(row: Any) -> CachedCaption:
    others = ((entry["text"], entry["score"]) for entry in row.alternatives or ())
    return CachedCaption(((row.caption, row.score), *others), row.width, row.height)
