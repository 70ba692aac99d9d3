"""Claims, leases, recordings and windows, the same on both databases."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Connection, func, select

from jobs.errors import ItemCode, ItemError
from jobs.records import ItemStatus, Priority
from jobs.store import Store, window
from jobs.store.chunks import ChunkResult, Claim, ItemResult
from jobs.store.database import Database
from jobs.store.window import SMALLEST_WINDOW
from jobs.tables import ChunkRow, ItemRow, JobRow
from tests.contract.stores import (
    LONG_AGO,
    age_leases,
    captioned,
    change_chunks,
    claim,
    crash,
    lose,
    new_job,
    run_to_end,
    store,
)

__all__ = ["store"]


def counters_equal_rows(store: Store, job_id: str) -> None:
    with store.database.read() as connection:
        job = connection.execute(select(JobRow).where(JobRow.id == job_id)).one()
        counts = dict(
            connection.execute(
                select(ItemRow.status, func.count()).where(ItemRow.job_id == job_id).group_by(ItemRow.status)
            ).all()
        )
        closed = connection.execute(
            select(func.count()).where(ChunkRow.job_id == job_id, ChunkRow.state == "done")
        ).scalar_one()
    assert (job.succeeded, job.failed) == (counts.get("succeeded", 0), counts.get("failed", 0))
    assert job.closed == closed


def test_a_job_runs_from_submit_to_completed(store: Store) -> None:
    job_id = new_job(store, 70)
    job, version = store.jobs.get("ann", job_id)
    assert (job.status, job.counts.total, job.counts.queued) == ("queued", 70, 70)
    held = claim(store, job_id, 0)
    job, later = store.jobs.get("ann", job_id)
    assert (job.status, job.counts.running, job.counts.queued) == ("running", 32, 38)
    assert later > version
    store.chunks.record([captioned(held)])
    assert store.jobs.get("ann", job_id)[0].counts.succeeded == 32
    run_to_end_from(store, job_id, 1)
    job, _ = store.jobs.get("ann", job_id)
    assert (job.status, job.progress, job.counts.succeeded) == ("completed", 1.0, 70)
    assert job.finished_at is not None
    assert job.expires_at is not None
    items, more = store.jobs.items("ann", job_id, None, 100, -1)
    assert [item.position for item in items] == list(range(70))
    assert more is None
    assert {(item.status, item.caption, item.score, item.model, item.attempts) for item in items} == {
        ("succeeded", "a dog runs", -0.5, "m-1", 1)
    }
    counters_equal_rows(store, job_id)


def run_to_end_from(store: Store, job_id: str, first: int) -> None:
    number = first
    while (taken := store.chunks.claim(job_id, number, "w1", 30, 2)) is not None:
        store.chunks.record([captioned(taken)])
        number += 1


def test_a_chunk_is_claimed_once_however_many_ask(store: Store) -> None:
    job_id = new_job(store, 200)
    taken: list[Claim] = []
    barrier = threading.Barrier(8)

    def ask(worker: int) -> None:
        barrier.wait()
        asked = (store.chunks.claim(job_id, number, f"w{worker}", 30, 2) for number in range(7))
        taken.extend(held for held in asked if held is not None)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(held.number for held in taken) == list(range(7))
    positions = [item.position for held in taken for item in held.items]
    assert sorted(positions) == list(range(200))


def test_recordings_of_several_jobs_at_once_never_deadlock(store: Store) -> None:
    jobs = [new_job(store, 96) for _ in range(4)]
    held = [[claim(store, job_id, number, f"w{number}") for job_id in jobs] for number in range(3)]
    failures: list[Exception] = []

    def record(claims: list[Claim], reverse: bool) -> None:
        try:
            store.chunks.record([captioned(c) for c in (reversed(claims) if reverse else claims)])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=record, args=(held[n], n % 2 == 1)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for job_id in jobs:
        assert store.jobs.get("ann", job_id)[0].status == "completed"
        counters_equal_rows(store, job_id)


def test_a_repeated_or_early_delivery_claims_nothing(store: Store) -> None:
    job_id = new_job(store, 5000)
    assert store.chunks.claim(job_id, SMALLEST_WINDOW, "w1", 30, 2) is None  # not released yet
    claim(store, job_id, 0)
    assert store.chunks.claim(job_id, 0, "w2", 30, 2) is None
    assert store.chunks.claim(job_id, 99999, "w2", 30, 2) is None
    assert store.chunks.claim("job_none", 0, "w2", 30, 2) is None


def test_a_stale_workers_recording_is_refused(store: Store) -> None:
    job_id = new_job(store, 10)
    first = claim(store, job_id, 0, "w1")
    age_leases(store, job_id)
    messages = store.sweeps.recover_leases()
    assert [(m.job_id, m.chunk) for m in messages] == [(job_id, 0)]
    second = claim(store, job_id, 0, "w2")
    recorded = store.chunks.record([captioned(first, "stale words")])
    assert recorded.closed == []
    store.chunks.record([captioned(second, "fresh words")])
    assert store.chunks.record([captioned(second, "again")]).closed == []
    items, _ = store.jobs.items("ann", job_id, None, 100, -1)
    assert {item.caption for item in items} == {"fresh words"}
    counters_equal_rows(store, job_id)


def test_a_renewed_lease_does_not_expire_and_others_do(store: Store) -> None:
    job_id = new_job(store, 96)
    alive = claim(store, job_id, 0, "alive")
    claim(store, job_id, 1, "dead")
    # The answer to this claim got lost: its worker does not know that it holds the chunk.
    claim(store, job_id, 2, "alive")
    age_leases(store, job_id)
    assert store.chunks.renew("alive", 30, [alive]) == {(job_id, 0, 1)}
    assert [message.chunk for message in store.sweeps.recover_leases()] == [1, 2]
    store.jobs.cancel("ann", job_id)
    while store.sweeps.finish_cancels():
        pass
    assert store.chunks.renew("alive", 30, [alive]) == set()


def test_the_window_is_a_function_of_the_counters(store: Store) -> None:
    job_id = new_job(store, 32 * 100)
    held = claim(store, job_id, 0)
    recorded = store.chunks.record([captioned(held)])
    assert [message.chunk for message in recorded.messages] == [SMALLEST_WINDOW]
    # A second delivery of the same chunk must not widen it, a crash before sending must not narrow it.
    assert store.chunks.record([captioned(held)]).messages == []
    assert store.sweeps.widen_windows() == []
    assert [message.chunk for message in store.sweeps.unclaimed(at_once=True)] == list(
        range(1, SMALLEST_WINDOW + 1)
    )


def test_owners_get_equal_windows_and_priorities_share_them(store: Store) -> None:
    def released(job_id: str) -> int:
        with store.database.read() as connection:
            return connection.execute(select(JobRow.released).where(JobRow.id == job_id)).scalar_one()

    high = new_job(store, 3200, owner="ann", priority=Priority.HIGH)
    low = new_job(store, 3200, owner="ann", priority=Priority.LOW)
    other = new_job(store, 3200, owner="bob")
    assert released(other) == SMALLEST_WINDOW
    assert released(low) == 1
    assert released(high) == SMALLEST_WINDOW  # it was alone when it came
    store.jobs.cancel("ann", high)
    store.sweeps.finish_cancels()
    store.sweeps.widen_windows()
    assert released(low) == SMALLEST_WINDOW


def test_a_job_that_comes_while_windows_are_widened_is_for_the_next_round(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_job(store, 3200)
    count = window.owner_window

    def meanwhile(connection: Connection, database: Database, model: str) -> int:
        monkeypatch.undo()
        new_job(store, 3200, owner="bob")
        return count(connection, database, model)

    monkeypatch.setattr(window, "owner_window", meanwhile)
    assert store.sweeps.widen_windows() == []


def test_failed_items_are_counted_and_only_they_are_retried(store: Store) -> None:
    job_id = new_job(store, 10)
    held = claim(store, job_id, 0)
    broken = ItemError(ItemCode.IMAGE_CORRUPT, "the file ends in the middle")
    results = [
        ItemResult(i.position, error=broken)
        if i.position in (2, 7)
        else ItemResult(i.position, (("ok", -1.0),))
        for i in held.items
    ]
    store.chunks.record([ChunkResult(held, results)])
    job, _ = store.jobs.get("ann", job_id)
    assert (job.status, job.counts.succeeded, job.counts.failed) == ("completed", 8, 2)
    failed, _ = store.jobs.items("ann", job_id, ItemStatus.FAILED, 10, -1)
    assert [(i.position, i.error.code) for i in failed if i.error] == [
        (2, "image_corrupt"),
        (7, "image_corrupt"),
    ]

    messages = store.jobs.retry("ann", job_id)
    again = claim(store, job_id, messages[0].chunk)
    assert [item.position for item in again.items] == [2, 7]
    assert again.round == 2
    assert store.chunks.record([captioned(held)]).closed == []
    store.chunks.record([captioned(again)])
    job, _ = store.jobs.get("ann", job_id)
    assert (job.status, job.counts.succeeded, job.counts.failed) == ("completed", 10, 0)
    assert store.jobs.item("ann", job_id, 2)[0].attempts == 2
    counters_equal_rows(store, job_id)


def test_a_transient_failure_waits_and_comes_back(store: Store) -> None:
    job_id = new_job(store, 3)
    held = claim(store, job_id, 0)
    for failures in (1, 2):
        assert store.chunks.postpone(held, 60)
        assert not store.chunks.postpone(held, 60)
        assert store.chunks.claim(job_id, 0, "w1", 30, 2) is None
        assert store.sweeps.due_retries() == []
        change_chunks(store, job_id, not_before=LONG_AGO)
        assert [message.chunk for message in store.sweeps.due_retries()] == [0]
        held = claim(store, job_id, 0)
        assert held.failures == failures


def test_a_shutdown_hands_back_uncounted(store: Store) -> None:
    job_id = new_job(store, 3)
    for _ in range(6):
        held = claim(store, job_id, 0)
        assert not held.alone
        assert store.chunks.hand_back(held)
    run_to_end(store, job_id)


def test_three_lost_leases_fail_no_good_image_and_the_third_run_is_alone(store: Store) -> None:
    job_id = new_job(store, 3)
    for _ in range(2):
        claim(store, job_id, 0)
        lose(store, job_id)
    # The chunk was split: each image now runs alone in its process.
    assert store.chunks.claim(job_id, 0, "w1", 30, 2) is None
    held = claim(store, job_id, 1)
    assert held.alone
    assert len(held.items) == 1
    lose(store, job_id)  # the third time, before the image ran
    for number in (1, 2, 3):
        store.chunks.record([captioned(claim(store, job_id, number))])
    job, _ = store.jobs.get("ann", job_id)
    assert (job.status, job.counts.succeeded, job.counts.failed) == ("completed", 3, 0)
    counters_equal_rows(store, job_id)


@pytest.mark.parametrize("ends", ["cc", "llllll", "lcll", "clc"])
def test_an_image_that_kills_its_workers_alone_fails_and_only_it(store: Store, ends: str) -> None:
    """Two crashes are enough, or six deaths that may have been chance."""
    job_id = new_job(store, 3)
    for _ in range(2):
        claim(store, job_id, 0)
        lose(store, job_id)
    for end in ends:
        held = claim(store, job_id, 2)
        assert store.chunks.mark_alone(held)
        if end == "c":
            crash(store)
        else:
            lose(store, job_id)
    assert store.chunks.claim(job_id, 2, "w1", 30, 2) is None
    for number in (1, 3):
        store.chunks.record([captioned(claim(store, job_id, number))])
    job, _ = store.jobs.get("ann", job_id)
    assert (job.status, job.counts.succeeded, job.counts.failed) == ("completed", 2, 1)
    item, _, _ = store.jobs.item("ann", job_id, 1)
    assert item.error is not None
    assert item.error.code == "worker_crashed"
    counters_equal_rows(store, job_id)


def test_five_losses_by_chance_while_alone_fail_no_good_image(store: Store) -> None:
    job_id = new_job(store, 1)
    for _ in range(7):
        held = claim(store, job_id, 0)
        if held.alone:
            assert store.chunks.mark_alone(held)
        lose(store, job_id)
    run_to_end(store, job_id)
    assert store.jobs.get("ann", job_id)[0].counts.succeeded == 1


def test_what_a_dead_worker_had_in_hand_is_free_at_once(store: Store) -> None:
    job_id = new_job(store, 96)
    dead, other = claim(store, job_id, 0), claim(store, job_id, 1, worker="w2")
    found = store.sweeps.recover_worker("w1", crashed=False)
    assert [(message.job_id, message.chunk) for message in found] == [(job_id, 0)]
    assert store.sweeps.recover_worker("w1", crashed=False) == []
    assert store.chunks.record([captioned(dead)]).closed == []
    assert store.chunks.record([captioned(other)]).closed == [other]
    for number in (0, 2):
        store.chunks.record([captioned(claim(store, job_id, number))])
    assert store.jobs.get("ann", job_id)[0].counts.succeeded == 96
    counters_equal_rows(store, job_id)


def test_lost_messages_are_found_after_a_while(store: Store) -> None:
    job_id = new_job(store, 64)
    assert store.sweeps.unclaimed() == []  # noticed now
    change_chunks(store, job_id, ChunkRow.noticed_at.is_not(None), noticed_at=LONG_AGO)
    lost = store.sweeps.unclaimed()
    assert [(m.job_id, m.chunk, m.queue) for m in lost] == [
        (job_id, 0, "captionfleet.small"),
        (job_id, 1, "captionfleet.small"),
    ]
    store.sweeps.renotice(lost)
    assert store.sweeps.unclaimed() == []


@pytest.mark.parametrize("already_taken", [True, False])
def test_cancel_is_final_also_for_chunks_already_taken(store: Store, already_taken: bool) -> None:
    job_id = new_job(store, 100)
    held = claim(store, job_id, 0)
    if not already_taken:
        store.chunks.record([captioned(held)])
    store.jobs.cancel("ann", job_id)
    job, _ = store.jobs.get("ann", job_id)
    done = 0 if already_taken else 32
    assert (job.status, job.counts.canceled, job.counts.succeeded) == ("canceling", 100 - done, done)
    assert store.chunks.claim(job_id, 1, "w1", 30, 2) is None
    if already_taken:
        assert store.chunks.record([captioned(held)]).closed == []
    items, _ = store.jobs.items("ann", job_id, ItemStatus.CANCELED, 200, -1)
    assert len(items) == 100 - done
    while store.sweeps.finish_cancels():
        pass
    job, _ = store.jobs.get("ann", job_id)
    assert (job.status, job.counts.canceled) == ("canceled", 100 - done)
    store.jobs.retry("ann", job_id)
    run_to_end_from(store, job_id, 4)
    job, _ = store.jobs.get("ann", job_id)
    assert (job.status, job.counts.succeeded) == ("completed", 100)
    counters_equal_rows(store, job_id)


def test_a_worker_that_lives_clears_the_images_it_lost(store: Store) -> None:
    """It was cut off, or frozen, twice while an image ran alone: that is not the image's doing."""
    job_id = new_job(store, 3)
    for _ in range(2):
        claim(store, job_id, 0)
        lose(store, job_id)
    for _ in range(3):
        held = claim(store, job_id, 2)
        assert store.chunks.mark_alone(held)
        lose(store, job_id)
        store.chunks.absolve([held])
    for number in (1, 2, 3):
        store.chunks.record([captioned(claim(store, job_id, number))])
    job, _ = store.jobs.get("ann", job_id)
    assert (job.status, job.counts.succeeded, job.counts.failed) == ("completed", 3, 0)
