"""The sweep and the tidying as a process runs them: over the store, the objects and a queue."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from jobs.errors import BrokerUnavailable, DatabaseUnavailable, ItemError, RequestError, StorageUnavailable
from jobs.objects import image_key, job_prefix
from jobs.objects.folder import FolderObjects
from jobs.queue import Message
from jobs.queue.embedded import EmbeddedQueue
from jobs.store import Store
from jobs.sweep import Sweep
from jobs.tables import ChunkRow, JobRow, LeaseRow, UploadRow
from jobs.tidying import Tidying
from jobs.urls import UrlGuard
from jobs.webhooks import WebhookSender
from tests.contract.stores import age_leases, captioned, claim, lose, new_job, store

__all__ = ["store"]

BULK = "captionfleet.small"
LONG_AGO = datetime.now(UTC) - timedelta(days=1)


class AwayQueue(EmbeddedQueue):
    """A queue whose broker is away until ``back`` is set."""

    back = False

    def publish(self, messages: Sequence[Message]) -> None:
        if not self.back:
            raise BrokerUnavailable("gone")
        super().publish(messages)

    def depth(self, queue: str) -> int:
        if not self.back:
            raise BrokerUnavailable("gone")
        return super().depth(queue)


def sweeping(store: Store, queue: EmbeddedQueue) -> Sweep:
    """One process's sweep."""
    return Sweep(store, queue, WebhookSender(store.webhooks, UrlGuard()))


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")


def test_lost_messages_are_sent_again_once(store: Store) -> None:
    queue = EmbeddedQueue()
    sweep = sweeping(store, queue)
    new_job(store, 100)
    sweep.run_once()
    assert queue.depth(BULK) == 0  # just noticed; they may still be on their way
    with store.database.write() as connection:
        connection.execute(update(ChunkRow).values(noticed_at=LONG_AGO))
    sweep.run_once()
    assert queue.depth(BULK) == 4
    with store.database.write() as connection:
        connection.execute(update(ChunkRow).values(noticed_at=LONG_AGO))
    sweep.run_once()
    assert queue.depth(BULK) == 4  # a long queue is not a lost message


def test_a_message_that_later_ones_overtook_is_sent_again(store: Store) -> None:
    """However long the queue is: others keep it full for ever, and nobody else has this chunk's message."""
    queue = EmbeddedQueue()
    sweep = sweeping(store, queue)
    job_id = new_job(store, 160)
    queue.publish([Message(BULK, "job_other", number) for number in range(1000)])
    sweep.run_once()
    with store.database.write() as connection:
        connection.execute(update(ChunkRow).where(ChunkRow.number != 1).values(noticed_at=LONG_AGO))
    sweep.run_once()
    assert queue.depth(BULK) == 1000  # all of them may just be waiting for their turn
    claim(store, job_id, 1)
    sweep.run_once()
    assert queue.depth(BULK) == 1004
    sweep.run_once()
    assert queue.depth(BULK) == 1004  # they have their turn again


def test_a_dead_workers_chunk_is_announced_at_once(store: Store) -> None:
    queue = EmbeddedQueue()
    job_id = new_job(store, 100)
    claim(store, job_id, 2)
    age_leases(store, job_id)
    sweeping(store, queue).run_once()
    assert queue.take([BULK], 0) == Message(BULK, job_id, 2)


def test_a_broker_that_is_away_costs_no_work(store: Store) -> None:
    queue = AwayQueue()
    job_id = new_job(store, 100)
    claim(store, job_id, 2)
    age_leases(store, job_id)
    sweep = sweeping(store, queue)
    sweep.run_once()
    queue.back = True
    with store.database.write() as connection:
        connection.execute(update(ChunkRow).values(noticed_at=LONG_AGO))
    sweep.run_once()
    assert queue.depth(BULK) == 4


def test_a_new_embedded_process_takes_everything_up(store: Store) -> None:
    queue = EmbeddedQueue()
    job_id = new_job(store, 100)
    claim(store, job_id, 1)
    sweeping(store, queue).recover_all()
    taken = [queue.take([BULK], 0) for _ in range(queue.depth(BULK))]
    assert sorted(message.chunk for message in taken if message) == [0, 1, 2, 3]


def test_deleting_removes_objects_then_rows(store: Store, objects: FolderObjects) -> None:
    job_id = new_job(store, 2)
    with objects.batch() as batch:
        writer = batch.open(image_key(job_id, 0), "image/jpeg")
        writer.write(b"bytes")
        writer.close()
        batch.flush()
    store.jobs.delete("ann", job_id)
    Tidying(store, objects).run_once()
    assert store.retention.deleted_jobs() == []
    with pytest.raises(ItemError):
        objects.read(image_key(job_id, 0), 10)


def test_what_a_dead_upload_left_is_removed(store: Store, objects: FolderObjects) -> None:
    store.submit.begin_upload("ann", "job_1")
    with objects.batch() as batch:
        writer = batch.open(image_key("job_1", 0), "image/jpeg")
        writer.write(b"bytes")
        writer.close()
        batch.flush()
    with store.database.write() as connection:
        connection.execute(update(UploadRow).values(heartbeat_at=LONG_AGO))
    Tidying(store, objects).run_once()
    assert store.retention.abandoned_uploads() == []
    with pytest.raises(ItemError):
        objects.read(image_key("job_1", 0), 10)


def test_two_processes_sweep_in_turn(store: Store) -> None:
    first, second = (sweeping(store, EmbeddedQueue()) for _ in range(2))
    assert first.run_once()
    assert not second.run_once()


def test_a_cancel_of_many_items_is_finished_by_the_sweep(store: Store) -> None:
    job_id = new_job(store, 12_000)
    store.chunks.record([captioned(claim(store, job_id, 0))])
    store.jobs.cancel("ann", job_id)
    sweep = sweeping(store, EmbeddedQueue())
    while store.jobs.get("ann", job_id)[0].status == "canceling":
        assert sweep.run_once()
    job, _ = store.jobs.get("ann", job_id)
    assert (job.status, job.counts.canceled, job.counts.succeeded) == ("canceled", 11_968, 32)


def test_large_cancels_take_turns_and_little_time_of_the_sweep(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = new_job(store, 6000), new_job(store, 40)
    for job_id in (large, small):
        store.jobs.cancel("ann", job_id)
    left = [store.sweeps.finish_cancels(seconds=0) for _ in range(2)]
    assert left == [True, True], "each call wrote one slice"
    served: list[str] = []
    write_slice = store.sweeps._cancel_slice

    def noted(job_id: str) -> bool:
        served.append(job_id)
        return write_slice(job_id)

    monkeypatch.setattr(store.sweeps, "_cancel_slice", noted)
    while store.sweeps.finish_cancels():
        pass
    assert served.index(small) <= 1, "the small one comes after one slice of the large one"
    assert served.count(large) > 1
    assert [store.jobs.get("ann", job_id)[0].status for job_id in (large, small)] == ["canceled"] * 2


def test_a_cancel_that_cannot_be_finished_holds_up_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, *others = sorted(new_job(store, 2) for _ in range(3))
    for job_id in (stuck, *others):
        store.jobs.cancel("ann", job_id)
    write_slice = store.sweeps._cancel_slice

    def refused(job_id: str) -> bool:
        if job_id == stuck:
            raise DatabaseUnavailable("canceling statement due to lock timeout")
        return write_slice(job_id)

    monkeypatch.setattr(store.sweeps, "_cancel_slice", refused)
    for _ in range(3):
        with contextlib.suppress(DatabaseUnavailable):
            store.sweeps.finish_cancels()
    assert [store.jobs.get("ann", job_id)[0].status for job_id in others] == ["canceled"] * 2
    monkeypatch.undo()
    assert not store.sweeps.finish_cancels()
    assert store.jobs.get("ann", stuck)[0].status == "canceled"


def test_a_cancel_is_final_while_the_broker_is_away(store: Store) -> None:
    queue = AwayQueue()
    job_id = new_job(store, 100)
    store.jobs.cancel("ann", job_id)
    new_job(store, 100)
    with store.database.write() as connection:
        connection.execute(update(ChunkRow).values(noticed_at=LONG_AGO))
    with pytest.raises(BrokerUnavailable):
        sweeping(store, queue).run_once()
    assert store.jobs.get("ann", job_id)[0].status == "canceled"


class ForbiddenObjects(FolderObjects):
    """Objects of which some prefixes cannot be deleted."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.forbidden: dict[str, Exception] = {}

    def delete_prefix(self, prefix: str, meanwhile: Callable[[], object] | None = None) -> int:
        if prefix in self.forbidden:
            raise self.forbidden[prefix]
        return super().delete_prefix(prefix, meanwhile)


@pytest.mark.parametrize("error", [StorageUnavailable("access denied"), ValueError("something new")])
def test_jobs_whose_objects_cannot_be_removed_hold_up_no_other(
    store: Store, tmp_path: Path, error: Exception
) -> None:
    objects = ForbiddenObjects(tmp_path / "objects")
    stuck = [new_job(store, 2) for _ in range(4)]
    other = new_job(store, 2)
    objects.forbidden = {job_prefix(job_id): error for job_id in stuck}
    for job_id in (*stuck, other):
        store.jobs.delete("ann", job_id)
    tidying = Tidying(store, objects)
    tidying.run_once()
    tidying.run_once()
    assert store.retention.deleted_jobs() == stuck


def test_many_jobs_that_cannot_be_removed_hold_up_no_other(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than are looked at together."""
    monkeypatch.setattr("jobs.store.retention.JOBS_AT_ONCE", 2)
    objects = ForbiddenObjects(tmp_path / "objects")
    jobs = [new_job(store, 2) for _ in range(4)]
    objects.forbidden = {job_prefix(job_id): StorageUnavailable("access denied") for job_id in jobs[:3]}
    for job_id in jobs:
        store.jobs.delete("ann", job_id)
    tidying = Tidying(store, objects)
    for _ in range(3):
        tidying.run_once()
    monkeypatch.undo()
    assert store.retention.deleted_jobs() == jobs[:3]


def test_who_loses_the_turn_removes_no_more(store: Store, objects: FolderObjects) -> None:
    """Such as a process that stood still while it removed a large job."""
    job_id = new_job(store, 2)
    store.jobs.delete("ann", job_id)
    tidying = Tidying(store, objects)

    class Slow(FolderObjects):
        def delete_prefix(self, prefix: str, meanwhile: Callable[[], object] | None = None) -> int:
            with store.database.write() as connection:
                connection.execute(update(LeaseRow).values(holder="another"))
            assert meanwhile is not None
            meanwhile()
            raise AssertionError("it went on")

    tidying._objects = Slow(objects._root)
    tidying.run_once()
    assert store.retention.deleted_jobs() == [job_id]


def test_what_is_past_its_time_is_removed_and_what_runs_is_not(store: Store, objects: FolderObjects) -> None:
    over, running = new_job(store, 6000), new_job(store, 40)
    store.chunks.record([captioned(claim(store, running, 0))])
    with store.database.write() as connection:
        done = {"status": "completed", "finished_at": LONG_AGO, "expires_at": LONG_AGO}
        connection.execute(update(JobRow).where(JobRow.id == over).values(**done))
    Tidying(store, objects).run_once()
    with pytest.raises(RequestError):
        store.jobs.get("ann", over)
    assert store.retention.deleted_jobs() == []
    assert store.jobs.get("ann", running)[0].counts.succeeded == 32


def test_leases_lost_while_a_job_is_canceled_leave_its_counts_and_chunks_right(store: Store) -> None:
    """Neither a chunk that would be split nor an image that would be given up may count any more."""
    suspicious, deadly = new_job(store, 40), new_job(store, 1)
    for job_id, losses in ((suspicious, 1), (deadly, 3)):
        for _ in range(losses):
            _begin(store, job_id)
            lose(store, job_id)
        _begin(store, job_id)
        store.jobs.cancel("ann", job_id)
        lose(store, job_id)
    while store.sweeps.finish_cancels():
        pass
    for job_id, total in ((suspicious, 40), (deadly, 1)):
        job, _ = store.jobs.get("ann", job_id)
        assert (job.status, job.counts.canceled) == ("canceled", total)
        [items] = store.jobs.results("ann", job_id)
        assert {item.status for item in items} == {"canceled"}
        store.jobs.retry("ann", job_id)
        assert store.jobs.get("ann", job_id)[0].counts.queued == total


def _begin(store: Store, job_id: str) -> None:
    held = claim(store, job_id, 0)
    if held.alone:
        store.chunks.mark_alone(held)
