"""Transactions that meet on PostgreSQL: nobody waits in a circle, nor without need."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, text, update

from jobs.errors import DatabaseUnavailable, ItemCode, ItemError, RowsLocked
from jobs.queue.embedded import EmbeddedQueue
from jobs.settings import Settings
from jobs.store import Store
from jobs.store.bulk import insert_chunks
from jobs.store.chunks import ChunkResult, ItemResult, close_chunk
from jobs.store.database import SESSION, open_database
from jobs.store.locks import lock_job
from jobs.tables import ItemRow, JobRow
from tests.contract.stores import captioned, claim, lose, new_job, store
from tests.processes import PATIENCE_S, wait_until
from worker.recorder import Recorder

__all__ = ["store"]

pytestmark = pytest.mark.parametrize("store", ["postgresql"], indirect=True)
WAITING = (
    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
)


def meet(
    store: Store,
    begin: Callable[[Connection], Any],
    other: Callable[[], Any],
    end: Callable[[Connection], Any],
) -> Any:
    """Begin a transaction, let another one run into it, end the first; return what the other one did."""

    def waits() -> bool:
        with store.database.read() as connection:
            return bool(connection.execute(text(WAITING)).scalar())

    with ThreadPoolExecutor(1) as threads:
        with store.database.write() as connection:
            begin(connection)
            met = threads.submit(other)
            wait_until(lambda: met.done() or waits(), what="the two to meet")
            assert not met.done(), met.exception() or "they did not meet"
            end(connection)
        return met.result(PATIENCE_S)


def set_item(job_id: str, **values: Any) -> Callable[[Connection], Any]:
    return lambda connection: connection.execute(
        update(ItemRow).where(ItemRow.job_id == job_id, ItemRow.position == 0).values(**values)
    )


def touch_job(job_id: str) -> Callable[[Connection], Any]:
    return lambda connection: connection.execute(
        update(JobRow).where(JobRow.id == job_id).values(version=JobRow.version + 1)
    )


@pytest.fixture
def impatient(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Give a setting of every session another value."""

    def change(name: str, value: str) -> None:
        monkeypatch.setitem(SESSION, name, value)
        store.database.engine.dispose()

    return change


def failed_job(store: Store) -> str:
    job_id = new_job(store, 1)
    held = claim(store, job_id, 0)
    error = ItemError(ItemCode.CAPTION_FAILED, "no")
    store.chunks.record([ChunkResult(held, [ItemResult(0, error=error)])])
    return job_id


def test_a_retry_and_an_edit(store: Store) -> None:
    job_id = failed_job(store)
    edit = set_item(job_id, edited_caption="mine")
    messages = meet(store, edit, lambda: store.jobs.retry("ann", job_id), touch_job(job_id))
    assert len(messages) == 1


def test_a_cancel_and_a_recording(store: Store) -> None:
    job_id = new_job(store, 1)
    held = claim(store, job_id, 0)
    store.jobs.cancel("ann", job_id)
    caption = set_item(job_id, caption="a dog", status="succeeded")
    meet(store, lambda connection: close_chunk(connection, held), store.sweeps.finish_cancels, caption)
    while store.sweeps.finish_cancels():
        pass
    assert store.jobs.get("ann", job_id)[0].status == "canceled"


def test_a_removal_and_a_recording(store: Store) -> None:
    job_id = new_job(store, 1)
    held = claim(store, job_id, 0)
    store.jobs.delete("ann", job_id)
    caption = set_item(job_id, caption="a dog", status="succeeded")
    meet(
        store,
        lambda connection: close_chunk(connection, held),
        lambda: store.retention.delete_rows(job_id),
        caption,
    )
    assert store.retention.deleted_jobs() == []


def test_a_cancel_and_a_chunk_that_is_handed_back(store: Store) -> None:
    """Where the sweep finds nothing open, then waits for what is in hand and is open again."""
    job_id = new_job(store, 1)
    held = claim(store, job_id, 0)
    store.jobs.cancel("ann", job_id)

    def begin(connection: Connection) -> None:
        freed = "update chunks set state = 'open', owner = null, lease_until = null where job_id = :job"
        connection.execute(text(freed), {"job": job_id})

    meet(store, begin, store.sweeps.finish_cancels, lambda _: None)
    assert not store.chunks.hand_back(held)
    job = store.jobs.get("ann", job_id)[0]
    assert (job.status, job.counts.canceled) == ("canceled", 1)
    assert [item.status for page in store.jobs.results("ann", job_id) for item in page] == ["canceled"]
    with store.database.read() as connection:
        assert connection.execute(text("select status from items")).scalars().all() == ["canceled"]


def test_what_refers_to_a_job_does_not_wait_for_its_lock(store: Store) -> None:
    job_id = new_job(store, 1)
    with store.database.write() as first, store.database.write() as second:
        assert lock_job(first, JobRow.id == job_id) is not None
        second.execute(text("set local lock_timeout = '2s'"))
        assert insert_chunks(second, job_id, 1, 1, 1, 1) == 1


def test_the_sweep_waits_for_no_chunk(store: Store) -> None:
    job_id = new_job(store, 1)
    lose(store, job_id)
    with store.database.write() as connection:
        connection.execute(text("select 1 from chunks for update"))
        assert store.sweeps.unclaimed(at_once=True)
        assert store.sweeps.due_retries() == []


def test_who_stands_still_in_a_transaction_holds_up_nobody_for_long(
    store: Store, impatient: Callable[[str, str], None]
) -> None:
    impatient("idle_in_transaction_session_timeout", "200ms")
    job_id = new_job(store, 1)
    held = claim(store, job_id, 0)

    def stand_still() -> None:
        with store.database.write() as frozen:
            lock_job(frozen, JobRow.id == job_id)
            assert store.chunks.record([captioned(held)]).closed == [held]
            touch_job(job_id)(frozen)

    with pytest.raises(DatabaseUnavailable, match="connection broke"):
        stand_still()
    assert store.jobs.get("ann", job_id)[0].status == "completed"


def test_a_job_that_somebody_has_locked_holds_up_no_other(
    store: Store, impatient: Callable[[str, str], None]
) -> None:
    impatient("lock_timeout", "100ms")
    locked, free = (claim(store, new_job(store, 1), 0) for _ in range(2))
    recorder = Recorder(store.chunks, EmbeddedQueue(), lambda: 1)
    with store.database.write() as connection:
        assert lock_job(connection, JobRow.id == locked.job_id) is not None
        with pytest.raises(RowsLocked):
            store.chunks.record([captioned(locked)])
        late = recorder.record(captioned(locked))
        assert recorder.record(captioned(free)).result(PATIENCE_S)
        assert not late.done()
    assert late.result(PATIENCE_S)
    recorder.close()


def test_a_recorder_that_ends_gives_up_what_somebody_has_locked(
    store: Store, impatient: Callable[[str, str], None]
) -> None:
    impatient("lock_timeout", "100ms")
    held = claim(store, new_job(store, 1), 0)
    recorder = Recorder(store.chunks, EmbeddedQueue(), lambda: 1)
    with store.database.write() as connection:
        lock_job(connection, JobRow.id == held.job_id)
        late = recorder.record(captioned(held))
        recorder.close()
        assert isinstance(late.exception(PATIENCE_S), RowsLocked)


def test_limits_that_the_operator_chose_stay(store: Store, postgres_url: str) -> None:
    url = f"{postgres_url}?options=-c%20lock_timeout%3D3s"
    database = open_database(Settings(database_url=url, redis_url="redis://localhost:1", bucket="unused"))
    with database.read() as connection:
        shown = {name: connection.execute(text(f"show {name}")).scalar() for name in SESSION}
    database.close()
    assert shown["lock_timeout"] == "3s"
    assert shown["idle_in_transaction_session_timeout"] == "15s"
