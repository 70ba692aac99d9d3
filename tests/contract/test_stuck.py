"""What does not go on by itself is shown with its reason, and one call sets it going; on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, update

from jobs.errors import RequestError
from jobs.store import Store
from jobs.store.workers import Worker
from jobs.tables import ChunkRow, DeliveryRow, JobRow
from tests.contract.stores import captioned, change_chunks, claim, lose, new_job, run_to_end, store

__all__ = ["store"]

LONG_AGO = datetime.now(UTC) - timedelta(hours=1)


def problems(store: Store) -> list[tuple[int | None, str]]:
    return [(one.chunk, one.problem) for one in store.stuck.find()]


def serve(store: Store) -> None:
    store.workers.see(Worker("w1", "small", "1", "", "cpu", 1.0))


def test_a_job_that_goes_on_is_not_stuck(store: Store) -> None:
    job_id = new_job(store, 100)
    claim(store, job_id, 0)
    lose(store, job_id)
    claim(store, job_id, 1)
    assert problems(store) == []
    with pytest.raises(RequestError, match="there is no job"):
        store.stuck.redrive("job_0")


def test_chunks_that_nobody_takes(store: Store) -> None:
    job_id = new_job(store, 100)
    change_chunks(store, job_id, ChunkRow.number == 2, noticed_at=LONG_AGO)
    assert problems(store) == [(2, "no worker serves small")]
    serve(store)
    ((chunk, problem),) = problems(store)
    assert (chunk, problem.startswith("nobody took it since ")) == (2, True)


def test_chunks_that_fail_again_and_again_are_tried_at_once(store: Store) -> None:
    job_id = new_job(store, 100)
    for _ in range(3):
        change_chunks(store, job_id, not_before=None)
        assert store.chunks.postpone(claim(store, job_id, 1), 3600)
    ((chunk, problem),) = problems(store)
    assert (chunk, problem.startswith("failed 3 times")) == (1, True)
    assert store.chunks.claim(job_id, 1, "w1", 30, 2) is None
    messages = store.stuck.redrive(job_id)
    assert [message.chunk for message in messages] == [0, 1, 2, 3]
    assert claim(store, job_id, 1).failures == 0
    assert problems(store) == []


def test_an_image_that_kills_its_workers_stays_suspected(store: Store) -> None:
    job_id = new_job(store, 1)
    for _ in range(2):
        claim(store, job_id, 0)
        lose(store, job_id)
    assert problems(store) == [(0, "2 workers died with this image in hand; it runs alone now")]
    held = claim(store, job_id, 0)
    assert held.alone
    store.chunks.mark_alone(held)
    lose(store, job_id)
    assert problems(store)[0][1].endswith("died while this image ran alone; blamed by 1 of 6")
    store.stuck.redrive(job_id)
    assert claim(store, job_id, 0).alone


def test_chunks_of_dead_workers_are_freed_and_those_of_living_ones_are_not(store: Store) -> None:
    job_id = new_job(store, 100)
    serve(store)
    claim(store, job_id, 0, worker="w1")
    claim(store, job_id, 1, worker="dead")
    change_chunks(store, job_id, ChunkRow.number == 1, lease_until=LONG_AGO)
    assert problems(store)[0][1].startswith("its worker is gone and no process sweeps")
    assert [message.chunk for message in store.stuck.redrive(job_id)] == [1, 2, 3]
    assert store.chunks.claim(job_id, 0, "w2", 30, 2) is None


def test_counters_are_taken_from_the_rows(store: Store) -> None:
    job_id = new_job(store, 64)
    for chunk in (0, 1):
        store.chunks.record([captioned(claim(store, job_id, chunk))])
    with store.database.write() as connection:
        lost = {"status": "running", "succeeded": 32, "closed": 1, "finished_at": None, "expires_at": None}
        connection.execute(update(JobRow).where(JobRow.id == job_id).values(**lost))
    assert problems(store) == [(None, "its counters do not add up: every chunk is done, but not the job")]
    assert store.stuck.redrive(job_id) == []
    job, _ = store.jobs.get("ann", job_id)
    assert (job.status, job.counts.succeeded) == ("completed", 64)
    assert problems(store) == []


def test_a_job_that_is_over_is_retried_not_redriven(store: Store) -> None:
    job_id = new_job(store, 2)
    run_to_end(store, job_id)
    with pytest.raises(RequestError, match="captionfleet retry"):
        store.stuck.redrive(job_id)


def test_the_service_s_own_state(store: Store) -> None:
    assert not store.stuck.swept()
    assert store.sweeps.take_turn("sweep", "a", 15)
    assert store.stuck.swept()
    assert store.stuck.failed_deliveries(86400) == 0
    row = {"id": "evt_1", "owner": "ann", "job_id": "job_1", "type": "job.completed", "url": "", "body": ""}
    now = datetime.now(UTC)
    with store.database.write() as connection:
        connection.execute(insert(DeliveryRow).values(status="failed", log=[], created_at=now, **row))
    assert store.stuck.failed_deliveries(86400) == 1
