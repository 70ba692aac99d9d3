"""The sweep as a process runs it: over the store, the objects and a queue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from jobs.backlog import BacklogMetric
from jobs.errors import BrokerUnavailable, ItemError
from jobs.objects import image_key
from jobs.objects.folder import FolderObjects
from jobs.queue import Message
from jobs.queue.embedded import EmbeddedQueue
from jobs.settings import load_settings
from jobs.store import Store
from jobs.sweep import Sweep
from jobs.tables import ChunkRow, UploadRow
from jobs.urls import UrlGuard
from jobs.webhooks import WebhookSender
from tests.contract.stores import age_leases, captioned, claim, new_job, store

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


def sweeping(store: Store, objects: FolderObjects, queue: EmbeddedQueue) -> Sweep:
    """One process's sweep."""
    webhooks = WebhookSender(store.webhooks, UrlGuard())
    return Sweep(store, objects, queue, webhooks, BacklogMetric(load_settings(), store.backlog))


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")


def test_lost_messages_are_sent_again_once(store: Store, objects: FolderObjects) -> None:
    queue = EmbeddedQueue()
    sweep = sweeping(store, objects, queue)
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


def test_a_message_that_later_ones_overtook_is_sent_again(store: Store, objects: FolderObjects) -> None:
    """However long the queue is: others keep it full for ever, and nobody else has this chunk's message."""
    queue = EmbeddedQueue()
    sweep = sweeping(store, objects, queue)
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


def test_a_dead_workers_chunk_is_announced_at_once(store: Store, objects: FolderObjects) -> None:
    queue = EmbeddedQueue()
    job_id = new_job(store, 100)
    claim(store, job_id, 2)
    age_leases(store, job_id)
    sweeping(store, objects, queue).run_once()
    assert queue.take([BULK], 0) == Message(BULK, job_id, 2)


def test_a_broker_that_is_away_costs_no_work(store: Store, objects: FolderObjects) -> None:
    queue = AwayQueue()
    job_id = new_job(store, 100)
    claim(store, job_id, 2)
    age_leases(store, job_id)
    sweep = sweeping(store, objects, queue)
    sweep.run_once()
    queue.back = True
    with store.database.write() as connection:
        connection.execute(update(ChunkRow).values(noticed_at=LONG_AGO))
    sweep.run_once()
    assert queue.depth(BULK) == 4


def test_a_new_embedded_process_takes_everything_up(store: Store, objects: FolderObjects) -> None:
    queue = EmbeddedQueue()
    job_id = new_job(store, 100)
    claim(store, job_id, 1)
    sweeping(store, objects, queue).recover_all()
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
    sweeping(store, objects, EmbeddedQueue()).run_once()
    assert store.sweeps.deleted_jobs() == []
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
    sweeping(store, objects, EmbeddedQueue()).run_once()
    assert store.sweeps.abandoned_uploads() == []
    with pytest.raises(ItemError):
        objects.read(image_key("job_1", 0), 10)


def test_two_processes_sweep_in_turn(store: Store, objects: FolderObjects) -> None:
    first, second = (sweeping(store, objects, EmbeddedQueue()) for _ in range(2))
    assert first.run_once()
    assert not second.run_once()


def test_a_cancel_of_many_items_is_finished_by_the_sweep(store: Store, objects: FolderObjects) -> None:
    job_id = new_job(store, 12_000)
    store.chunks.record([captioned(claim(store, job_id, 0))])
    store.jobs.cancel("ann", job_id)
    sweeping(store, objects, EmbeddedQueue()).run_once()
    job, _ = store.jobs.get("ann", job_id)
    assert (job.status, job.counts.canceled, job.counts.succeeded) == ("canceled", 11_968, 32)
