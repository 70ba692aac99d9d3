"""Final items written many at a time: one statement from arrays on PostgreSQL, one prepared one on SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, func, text, update

from jobs.records import ItemStatus
from jobs.store.database import Database
from jobs.tables import ItemRow

# Columns that come with every result, and their types as PostgreSQL's arrays have them.
_TYPES = {
    "_position": "int",
    "_attempt": "int",
    "_sha256": "text",
    "caption": "text",
    "score": "float8",
    "alternatives": "text",
    "model": "text",
    "width": "int",
    "height": "int",
    "error_code": "text",
    "error_message": "text",
}
_PLAIN = ("caption", "score", "model", "width", "height", "error_code", "error_message")
# The job's id comes with each row, behind a fence. If the planner knew it, it might read all the job's items
# and join them to the rows here, which it thinks best of a job that no ANALYZE has seen yet.
_POSTGRESQL = text(
    # Names of columns only, from above.
    "WITH done AS MATERIALIZED (SELECT CAST(:job_id AS text) AS _job_id, * "  # noqa: S608
    f"FROM unnest({', '.join(f'CAST(:{name} AS {kind}[])' for name, kind in _TYPES.items())}) "
    f"AS results({', '.join(_TYPES)})) "
    "UPDATE items SET status = :status, attempts = items.attempts + done._attempt, "
    "sha256 = coalesce(done._sha256, items.sha256), alternatives = CAST(done.alternatives AS json), "
    f"{', '.join(f'{name} = done.{name}' for name in _PLAIN)}, finished_at = clock_timestamp() FROM done "
    "WHERE items.job_id = done._job_id AND items.position = done._position AND items.status = 'queued'"
)


def write_final(
    connection: Connection,
    database: Database,
    job_id: str,
    status: ItemStatus,
    rows: Sequence[dict[str, Any]],
) -> int:
    """Write one job's items that end in ``status``; return how many rows really changed.

    A row has its columns by name; what is looked for or computed with has an underscore before it.
    """
    if not rows:
        return 0
    if database.is_sqlite:
        return connection.execute(_sqlite(database, job_id, status), rows).rowcount
    arrays: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in _TYPES}
    arrays["alternatives"] = [orjson.dumps(value).decode() for value in arrays["alternatives"]]
    return connection.execute(_POSTGRESQL, {**arrays, "job_id": job_id, "status": str(status)}).rowcount


# The other columns are set from each row's own names.
def _sqlite(database: Database, job_id: str, status: ItemStatus) -> Any:
    return (
        update(ItemRow)
        .where(ItemRow.job_id == job_id, ItemRow.position == bindparam("_position"))
        .where(ItemRow.status == ItemStatus.QUEUED)
        .values(
            status=status,
            attempts=ItemRow.attempts + bindparam("_attempt"),
            sha256=func.coalesce(bindparam("_sha256"), ItemRow.sha256),
            finished_at=database.now(),
        )
    )
