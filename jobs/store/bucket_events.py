"""Event notifications that were taken: each one once, whoever receives it however often."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, delete
from sqlalchemy.dialects import postgresql, sqlite

from jobs.store.database import Database
from jobs.tables import BucketEventRow

# SQS keeps a message for 14 days, and again as long in the dead-letter queue.
KEPT_S = 35 * 86400
ROWS_AT_ONCE = 1000


class BucketEventStore:
    """Forgets events that nobody can repeat any more."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def forget_old(self) -> int:
        """Forget events taken more than 35 days ago; return how many."""
        with self._database.write() as connection:
            old = BucketEventRow.created_at < self._database.now(-KEPT_S)
            return connection.execute(delete(BucketEventRow).where(old)).rowcount


def take_events(connection: Connection, database: Database, job_id: str, digests: Iterable[str]) -> set[str]:
    """Take for a job those events that no job has; return them.

    A transaction that takes the same ones at the same time waits for this one's end. Everybody takes them in
    one order, so nobody waits in a circle.
    """
    taken: set[str] = set()
    ordered = sorted(set(digests))
    for start in range(0, len(ordered), ROWS_AT_ONCE):
        taken |= _take(connection, database, job_id, ordered[start : start + ROWS_AT_ONCE])
    return taken


def _take(connection: Connection, database: Database, job_id: str, digests: Sequence[str]) -> set[str]:
    dialect = sqlite if database.is_sqlite else postgresql
    now = database.now()
    rows = [{"digest": digest, "job_id": job_id, "created_at": now} for digest in digests]
    insert = dialect.insert(BucketEventRow).values(rows).on_conflict_do_nothing()
    return set(connection.execute(insert.returning(BucketEventRow.digest)).scalars())
