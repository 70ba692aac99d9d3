"""Reservations, uploads and what becomes of deleted and expired jobs, the same on both databases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from jobs.callers import Caller, Scope
from jobs.errors import RequestError
from jobs.ids import new_id
from jobs.records import ItemStatus, JobSpec, JobStatus
from jobs.store import Store
from jobs.store.submit import NewItem, NewJob
from jobs.tables import ChunkRow, IdempotencyRow, ItemRow, JobRow, UploadRow
from tests.contract.stores import new_job, run_to_end, store

__all__ = ["store"]

LONG_AGO = datetime.now(UTC) - timedelta(days=40)


def submit(store: Store, job_id: str, key: str | None = None, fingerprint: str | None = None) -> None:
    job = NewJob(job_id, "ann", "small", "upload", JobSpec(), key, fingerprint)
    store.submit.insert_job(job, [NewItem("a.jpg", "a.jpg", "upload", "k/0")])


def rows(store: Store, table: type) -> int:
    with store.database.read() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_a_key_stands_for_one_job(store: Store) -> None:
    assert store.submit.reserve("ann", "k1", "job_1").mine
    submit(store, "job_1", "k1", "print")
    again = store.submit.reserve("ann", "k1", "job_2")
    assert (again.job_id, again.fingerprint, again.mine) == ("job_1", "print", False)
    assert store.submit.reserve("bob", "k1", "job_3").mine


def test_a_live_reservation_is_in_progress_and_a_dead_one_is_taken_over(store: Store) -> None:
    store.submit.reserve("ann", "k1", "job_1")
    with pytest.raises(RequestError) as refusal:
        store.submit.reserve("ann", "k1", "job_2")
    assert (refusal.value.code, refusal.value.retry_after) == ("idempotency_in_progress", 5)
    with store.database.write() as connection:
        connection.execute(update(IdempotencyRow).values(heartbeat_at=LONG_AGO))
    assert store.submit.reserve("ann", "k1", "job_2").mine
    with pytest.raises(RequestError, match="silent for too long"):
        submit(store, "job_1", "k1", "print")
    assert rows(store, JobRow) == 0
    submit(store, "job_2", "k1", "print")


def test_a_refused_request_frees_its_key(store: Store) -> None:
    store.submit.reserve("ann", "k1", "job_1")
    store.submit.release_reservation("ann", "k1", "job_1")
    assert store.submit.reserve("ann", "k1", "job_2").mine


def test_a_failed_insert_leaves_nothing(store: Store) -> None:
    def items() -> Iterator[NewItem]:
        yield NewItem("a.jpg", "a.jpg", "upload", "k/0")
        raise RequestError("too_many_images", "enough")

    with pytest.raises(RequestError, match="enough"):
        store.submit.insert_job(NewJob("job_1", "ann", "small", "upload", JobSpec()), items())
    assert (rows(store, JobRow), rows(store, ItemRow), rows(store, ChunkRow)) == (0, 0, 0)


def test_a_job_without_images_is_refused(store: Store) -> None:
    with pytest.raises(RequestError, match="no images"):
        store.submit.insert_job(NewJob("job_1", "ann", "small", "upload", JobSpec()), [])


def test_an_upload_is_known_before_its_job_and_found_when_its_request_dies(store: Store) -> None:
    store.submit.begin_upload("ann", "job_1")
    assert store.retention.abandoned_uploads() == []
    with store.database.write() as connection:
        connection.execute(update(UploadRow).values(heartbeat_at=LONG_AGO))
    assert store.retention.abandoned_uploads() == ["job_1"]
    store.submit.heartbeat("job_1")
    assert store.retention.abandoned_uploads() == []
    submit(store, "job_1")
    assert rows(store, UploadRow) == 0


def test_small_jobs_travel_on_the_fast_queue(store: Store) -> None:
    def queues(images: int) -> set[str]:
        job_id = new_id("job")
        items = (NewItem(f"{n}", f"{n}", "upload", f"k/{n}") for n in range(images))
        messages = store.submit.insert_job(NewJob(job_id, "ann", "small", "upload", JobSpec()), items)
        return {message.queue for message in messages}

    assert queues(32) == {"captionfleet.small.fast"}
    assert queues(33) == {"captionfleet.small"}


def test_another_owners_job_does_not_exist(store: Store) -> None:
    job_id = new_job(store, 1, owner="ann")
    for call in (
        lambda: store.jobs.get("bob", job_id),
        lambda: store.jobs.items("bob", job_id, None, 10, -1),
        lambda: store.jobs.item("bob", job_id, 0),
        lambda: next(store.jobs.results("bob", job_id)),
        lambda: store.jobs.cancel("bob", job_id),
        lambda: store.jobs.retry("bob", job_id),
        lambda: store.jobs.delete("bob", job_id),
    ):
        with pytest.raises(RequestError) as refusal:
            call()
        assert refusal.value.code == "job_not_found"
    assert store.jobs.page("bob", None, 10, None) == ([], None)


def test_jobs_are_listed_newest_first_in_pages(store: Store) -> None:
    made = [new_job(store, 1) for _ in range(5)]
    run_to_end(store, made[0])
    seen: list[str] = []
    cursor = None
    while True:
        jobs, cursor = store.jobs.page("ann", None, 2, cursor)
        seen += [job.id for job in jobs]
        if cursor is None:
            break
    assert seen == sorted(made, reverse=True)
    assert [job.id for job in store.jobs.page("ann", JobStatus.COMPLETED, 10, None)[0]] == [made[0]]


def test_items_page_by_position_and_status(store: Store) -> None:
    job_id = new_job(store, 70)
    store.chunks.claim(job_id, 1, "w1", 30, 2)
    running, _ = store.jobs.items("ann", job_id, ItemStatus.RUNNING, 100, -1)
    queued, _ = store.jobs.items("ann", job_id, ItemStatus.QUEUED, 100, -1)
    assert [item.position for item in running] == list(range(32, 64))
    assert [item.position for item in queued] == [*range(32), *range(64, 70)]
    page, after = store.jobs.items("ann", job_id, None, 50, -1)
    assert after is not None
    rest, end = store.jobs.items("ann", job_id, None, 50, after)
    assert [item.position for item in page + rest] == list(range(70))
    assert end is None


def test_retry_and_cancel_refuse_the_wrong_state(store: Store) -> None:
    job_id = new_job(store, 1)
    with pytest.raises(RequestError, match="retry it when it has finished"):
        store.jobs.retry("ann", job_id)
    run_to_end(store, job_id)
    with pytest.raises(RequestError, match="nothing to retry"):
        store.jobs.retry("ann", job_id)
    with pytest.raises(RequestError, match="only a job that runs"):
        store.jobs.cancel("ann", job_id)


def test_a_deleted_job_is_gone_at_once_and_its_rows_soon(store: Store) -> None:
    job_id = new_job(store, 40)
    held = store.chunks.claim(job_id, 0, "w1", 30, 2)
    assert held is not None
    store.jobs.delete("ann", job_id)
    with pytest.raises(RequestError):
        store.jobs.get("ann", job_id)
    assert store.chunks.claim(job_id, 1, "w1", 30, 2) is None
    assert store.retention.deleted_jobs() == [job_id]
    assert store.retention.delete_rows(job_id) is False
    assert (rows(store, JobRow), rows(store, ItemRow), rows(store, ChunkRow)) == (0, 0, 0)


def test_finished_jobs_expire_and_running_ones_never(store: Store) -> None:
    finished, running = new_job(store, 1), new_job(store, 1)
    run_to_end(store, finished)
    with store.database.write() as connection:
        connection.execute(update(JobRow).where(JobRow.expires_at.is_not(None)).values(expires_at=LONG_AGO))
        connection.execute(update(JobRow).values(created_at=LONG_AGO))
    store.retention.expire_jobs()
    assert store.retention.deleted_jobs() == [finished]
    assert store.jobs.get("ann", running)[0].status == "queued"


def test_one_process_at_a_time_sweeps(store: Store) -> None:
    assert store.sweeps.take_turn("sweep", "a", 60)
    assert not store.sweeps.take_turn("sweep", "b", 60)
    assert store.sweeps.take_turn("sweep", "a", -1)
    assert store.sweeps.take_turn("sweep", "b", 60)


def test_keys_open_until_revoked_and_are_kept_as_hashes(store: Store) -> None:
    made, key = store.keys.create("ann", "laptop")
    assert re.fullmatch(rf"cf_live_{made.id}_[0-9A-Za-z]{{43}}", key)
    assert store.keys.caller(key) == Caller("ann", frozenset({Scope.SUBMIT, Scope.READ}), made.id)
    assert store.keys.caller(key + "x") is None
    assert key not in repr(store.keys.all())
    store.keys.revoke(made.id)
    assert store.keys.caller(key) is None
    assert not store.keys.any_valid()
    with pytest.raises(RequestError):
        store.keys.revoke("nothere")


def test_grants_are_per_owner_and_repeatable(store: Store) -> None:
    first = store.keys.grant("ann", "s3://photos/2024/")
    assert store.keys.grant("ann", "s3://photos/2024/") == first
    assert store.keys.grants("ann") == [first]
    assert store.keys.grants("bob") == []
    store.keys.ungrant(first)
    assert store.keys.grants("ann") == []
    with pytest.raises(RequestError):
        store.keys.grant("ann", "http://photos/2024/")
