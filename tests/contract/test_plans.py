"""The hot queries read what they need and no more: each has an index, on both databases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event, text, update

from jobs.errors import ItemCode, ItemError
from jobs.records import ItemStatus
from jobs.store import Store
from jobs.store.chunks import ChunkResult, ItemResult
from jobs.tables import JobRow
from tests.contract.stores import captioned, claim, new_job, store

__all__ = ["store"]

IMAGES = 1000


class Plans:
    """Explains every statement while it runs; keeps what reads a whole table of items, chunks or jobs."""

    def __init__(self, store: Store) -> None:
        self._sqlite = store.database.is_sqlite
        self._explaining = False
        self.scans: list[str] = []

    def __call__(
        self, connection: Connection, _cursor: Any, statement: str, parameters: Any, *rest: Any
    ) -> None:
        if self._explaining or not re.match(r"\s*(SELECT|UPDATE|DELETE)", statement):
            return
        self._explaining = True
        try:
            if not self._sqlite:
                # A small table is read whole for speed; here that is to show only where no index serves.
                connection.exec_driver_sql("SET enable_seqscan = off")
            given = parameters[0] if isinstance(parameters, list) else parameters
            verb = "EXPLAIN QUERY PLAN" if self._sqlite else "EXPLAIN"
            rows = connection.exec_driver_sql(f"{verb} {statement}", given)
            plan = "\n".join(str(row[-1]) for row in rows)
        finally:
            self._explaining = False
        whole = r"SCAN (items|chunks|jobs)$" if self._sqlite else r"Seq Scan on (items|chunks|jobs)"
        if re.search(whole, plan, re.MULTILINE):
            self.scans.append(f"{statement}\n{plan}")


@contextmanager
def no_scans(store: Store) -> Iterator[None]:
    plans = Plans(store)
    event.listen(store.database.engine, "before_cursor_execute", plans)
    try:
        yield
    finally:
        event.remove(store.database.engine, "before_cursor_execute", plans)
    assert not plans.scans, "\n\n".join(plans.scans)


class Wasted:
    """Runs every statement under EXPLAIN ANALYZE before its time; keeps how many rows were read in vain."""

    def __init__(self) -> None:
        self._explaining = False
        self.rows: dict[str, int] = {}

    def __call__(
        self, connection: Connection, _cursor: Any, statement: str, parameters: Any, *rest: Any
    ) -> None:
        if self._explaining or not re.match(r"\s*(SELECT|UPDATE|WITH|DELETE)", statement):
            return
        self._explaining = True
        driver: Any = connection.connection.driver_connection
        try:
            with driver.transaction(force_rollback=True):
                connection.exec_driver_sql("SET enable_seqscan = off")
                explained = connection.exec_driver_sql(
                    f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
                )
                self.rows[statement] = _removed(explained.scalar_one()[0]["Plan"])
        finally:
            self._explaining = False


def _removed(plan: dict[str, Any]) -> int:
    """Count the rows that a plan's filters and joins throw away."""
    parts = plan.get("Plans", [])
    own = sum(count for name, count in plan.items() if name.startswith("Rows Removed"))
    if plan["Node Type"] == "Hash Join":
        own += max(0, parts[0]["Actual Rows"] - plan["Actual Rows"])
    return int(own * plan["Actual Loops"]) + sum(map(_removed, parts))


def _end(store: Store, job_id: str) -> None:
    """End a job, some of whose images failed."""
    with store.database.write() as connection:
        failed = "update items set status = 'failed' where job_id = :job and position between 1000 and 1999"
        connection.execute(text(failed), {"job": job_id})
        connection.execute(update(JobRow).where(JobRow.id == job_id).values(status="completed"))


def _analyse_single_images(store: Store) -> None:
    columns = "position, status, attempts, name, custom_id, source"
    single = f"insert into items (job_id, {columns}) select 'job_' || n, 0, 'queued', 0, 'a', 'a', 'upload' "
    with store.database.write() as connection:
        connection.execute(text(f"{single} from generate_series(1, 5000) as n"))
        connection.execute(text("analyze items"))


# SQLite plans without statistics.
@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
@pytest.mark.parametrize("skewed", [False, True], ids=["before any analyze", "beside single images"])
def test_what_a_chunk_costs_does_not_grow_with_its_job(store: Store, skewed: bool) -> None:
    """The planner guesses a few rows of a job that it has not seen: it must have no choice but the keys."""
    if skewed:
        _analyse_single_images(store)
    job_id = new_job(store, 20 * IMAGES)
    with store.database.write() as connection:
        done = "update items set status = 'succeeded', caption = 'x' where job_id = :job and position >= 5000"
        connection.execute(text(done), {"job": job_id})
        known = (
            "insert into cached_captions (key, owner, job_id, position) "
            "select 'k' || position, 'ann', job_id, position from items where status = 'succeeded'"
        )
        connection.execute(text(known))
    wasted = Wasted()
    event.listen(store.database.engine, "before_cursor_execute", wasted)
    try:
        held = claim(store, job_id, 6)
        assert len(store.cache.find([f"k{n}" for n in range(5000, 5032)])) == 32
        assert store.chunks.record([captioned(held)]).closed
        # Rows of other tables with a handful of rows.
        assert max(wasted.rows.values()) < 100, wasted.rows
        _end(store, job_id)
        store.jobs.retry("ann", job_id)
        store.jobs.delete("ann", job_id)
        while store.retention.delete_rows(job_id):
            pass
    finally:
        event.remove(store.database.engine, "before_cursor_execute", wasted)
    for seen in ("UPDATE items SET status = ", "UPDATE items SET status=", "DELETE FROM items"):
        assert any(seen in statement for statement in wasted.rows), seen
    # What failed may be looked for from the job's beginning to its end, once.
    assert sum(wasted.rows.values()) < 21 * IMAGES, wasted.rows


@pytest.fixture
def busy(store: Store) -> str:
    """A large job of ann with a few chunks done and failed; many old jobs of hers beside it."""
    job_id = new_job(store, IMAGES)
    for number in range(4):
        store.chunks.record([captioned(claim(store, job_id, number))])
    held = claim(store, job_id, 4)
    torn = ItemError(ItemCode.IMAGE_CORRUPT, "torn")
    store.chunks.record([ChunkResult(held, [ItemResult(item.position, error=torn) for item in held.items])])
    for _ in range(3):
        new_job(store, 1)
    with store.database.write() as connection:
        old = update(JobRow).where(JobRow.id != job_id).values(status="completed")
        connection.execute(old)
    with store.database.write() as connection:
        connection.execute(text("ANALYZE"))
    return job_id


def claim_and_record(store: Store, job_id: str) -> None:
    held = claim(store, job_id, 6)
    store.chunks.renew("w1", 30, [held])
    store.chunks.record([captioned(held)])
    store.chunks.postpone(claim(store, job_id, 7), 1)


def read_status(store: Store, job_id: str) -> None:
    claim(store, job_id, 5)
    assert store.jobs.get("ann", job_id)[0].counts.running


def list_items(store: Store, job_id: str) -> None:
    for status in (ItemStatus.FAILED, ItemStatus.SUCCEEDED, ItemStatus.QUEUED, None):
        assert store.jobs.items("ann", job_id, status, 50, 100)[0]


def sweep(store: Store, job_id: str) -> None:
    store.sweeps.recover_leases()
    store.sweeps.due_retries()
    store.sweeps.unclaimed()
    store.sweeps.overtaken()
    store.sweeps.widen_windows()


def cancel(store: Store, job_id: str) -> None:
    store.jobs.cancel("ann", job_id)
    while store.sweeps.finish_cancels():
        pass


def test_nothing_reads_a_whole_table(store: Store, busy: str) -> None:
    for work in (read_status, claim_and_record, list_items, sweep, cancel):
        with no_scans(store):
            work(store, busy)


def test_a_status_is_one_question(store: Store) -> None:
    job_id = new_job(store, 300)
    claim(store, job_id, 0)
    states: list[str] = []

    def note(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT"):
            driver: Any = connection.connection.dbapi_connection
            states.append("IDLE" if store.database.is_sqlite else driver.info.transaction_status.name)

    event.listen(store.database.engine, "after_cursor_execute", note)
    job, _ = store.jobs.get("ann", job_id)
    event.remove(store.database.engine, "after_cursor_execute", note)
    assert job.counts.running
    # Where a BEGIN went to PostgreSQL before it, a COMMIT would follow: each is a way there and back.
    assert states == ["IDLE"]
