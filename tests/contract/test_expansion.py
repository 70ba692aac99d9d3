"""Jobs prepared in the background: each item once, whatever breaks, the same on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

import jobs.lists
from jobs.errors import ItemCode, ItemError, StorageUnavailable
from jobs.expansion import Expander, Slice
from jobs.ids import new_id
from jobs.intake import Intake
from jobs.lists import KIND, ListSource
from jobs.objects import source_prefix
from jobs.objects.folder import FolderObjects
from jobs.queue.embedded import EmbeddedQueue
from jobs.records import Job, JobSpec
from jobs.settings import Settings
from jobs.store import Store
from jobs.store.expansions import Cursor, Expansion, NewExpansion
from jobs.store.submit import NewItem, NewJob
from jobs.tables import ExpansionRow
from tests.contract.stores import LONG_AGO, captioned, claim, run_to_end, store

__all__ = ["store"]

SLICE = 5
KINDS = ("numbers",)


class Numbers:
    """A source of ``count`` items whose cursor is the next number; ``breaks`` says where it raises what."""

    def __init__(self, count: int, breaks: dict[int, Exception] | None = None, *, own: bool = False) -> None:
        self.count = count
        self.own = own
        self.breaks = dict(breaks or {})

    def slices(self, expansion: Expansion) -> Iterator[Slice]:
        for start in range(expansion.cursor or 0, self.count, SLICE):
            if start in self.breaks:
                raise self.breaks.pop(start)
            end = min(self.count, start + SLICE)
            yield Slice([item(n) for n in range(start, end)], end)


def item(number: int) -> NewItem:
    return NewItem(f"{number}.jpg", f"{number}.jpg", f"s3://photos/{number}.jpg")


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")


def expander(store: Store, objects: FolderObjects, source: Numbers, max_images: int = 1000) -> Expander:
    sources = {"numbers": source, KIND: ListSource(objects)}
    return Expander(store, objects, EmbeddedQueue(), sources, max_images)


def prepare(store: Store) -> str:
    job_id = new_id("job")
    job = NewJob(job_id, "ann", "small", "manifest", JobSpec())
    store.submit.insert_job(job, (), NewExpansion("numbers"))
    return job_id


def read(store: Store, job_id: str) -> Job:
    return store.jobs.get("ann", job_id)[0]


def names(store: Store, job_id: str) -> list[str]:
    return [item.name for page in store.jobs.results("ann", job_id) for item in page]


def expansions(store: Store) -> int:
    with store.database.read() as connection:
        return connection.execute(select(func.count()).select_from(ExpansionRow)).scalar_one()


def make_due(store: Store) -> None:
    """Let postponements and leases end, as time would."""
    with store.database.write() as connection:
        connection.execute(update(ExpansionRow).values(not_before=LONG_AGO, lease_until=None))


def test_a_job_is_prepared_in_slices_and_then_captioned(store: Store, objects: FolderObjects) -> None:
    job_id = prepare(store)
    assert read(store, job_id).status == "preparing"
    expand = expander(store, objects, Numbers(42))
    assert expand.run_once()
    assert not expand.run_once()
    job = read(store, job_id)
    assert (job.status, job.counts.total, job.counts.queued) == ("queued", 42, 42)
    assert names(store, job_id) == [f"{n}.jpg" for n in range(42)]
    run_to_end(store, job_id)
    assert expansions(store) == 0


def test_the_first_images_are_captioned_while_others_are_still_found(store: Store) -> None:
    job_id = prepare(store)
    held = store.expansions.claim("one", 30, KINDS)
    assert held is not None
    written = store.expansions.write(held, [item(n) for n in range(3)], Cursor(3), None, 30)
    assert [message.chunk for message in written.messages] == [0]
    store.chunks.record([captioned(claim(store, job_id, 0))])
    job = read(store, job_id)
    assert (job.status, job.counts.succeeded, job.counts.total) == ("preparing", 3, 3)
    assert written.left is not None
    store.expansions.write(written.left, [item(n) for n in range(3, 5)], None, None, 30)
    assert read(store, job_id).status == "running"
    store.chunks.record([captioned(claim(store, job_id, 1))])
    assert read(store, job_id).status == "completed"


def test_a_job_whose_images_were_all_captioned_before_its_end_was_found_completes(store: Store) -> None:
    job_id = prepare(store)
    held = store.expansions.claim("one", 30, KINDS)
    assert held is not None
    written = store.expansions.write(held, [item(0)], Cursor(1), None, 30)
    store.chunks.record([captioned(claim(store, job_id, 0))])
    assert written.left is not None
    store.expansions.write(written.left, [], None, None, 30)
    assert read(store, job_id).status == "completed"


def test_a_crash_repeats_nothing_and_a_stale_holder_writes_nothing(
    store: Store, objects: FolderObjects
) -> None:
    job_id = prepare(store)
    dead = store.expansions.claim("dead", 30, KINDS)
    assert dead is not None
    assert store.expansions.claim("other", 30, KINDS) is None
    make_due(store)
    assert expander(store, objects, Numbers(12)).run_once()
    late = store.expansions.write(dead, [item(0)], Cursor(1), None, 30)
    assert (late.messages, late.left, late.ended) == ([], None, False)
    assert names(store, job_id) == [f"{n}.jpg" for n in range(12)]


def die(store: Store, times: int) -> None:
    """Let processes take up the preparation, one after the other, and never be heard of again."""
    for number in range(times):
        make_due(store)
        assert store.expansions.claim(f"dead{number % 2}", 30, KINDS) is not None
    make_due(store)


@pytest.mark.parametrize(("written", "status"), [(0, "failed"), (3, "queued")])
def test_what_kills_every_process_that_prepares_it_ends_with_what_was_found(
    store: Store, objects: FolderObjects, written: int, status: str
) -> None:
    job_id = prepare(store)
    if written:
        held = store.expansions.claim("one", 30, KINDS)
        assert held is not None
        store.expansions.write(held, [item(n) for n in range(written)], Cursor(written), None, 30)
    die(store, 9 if written else 10)
    assert [one.problem for one in store.stuck.find()] == ["9 processes in a row died while they prepared it"]
    # Where the source were asked, it would be tried again.
    assert expander(store, objects, Numbers(12, {written: MemoryError()})).run_once()
    job = read(store, job_id)
    assert (job.status, job.counts.total, job.error and job.error.code) == (status, written, "internal_error")
    assert job.error is not None
    assert "10 processes in a row died" in job.error.message
    assert expansions(store) == 0


def test_deaths_far_apart_and_processes_that_gave_it_back_end_no_preparation(
    store: Store, objects: FolderObjects
) -> None:
    job_id = prepare(store)
    die(store, 9)
    held = store.expansions.claim("one", 30, KINDS)
    assert held is not None
    assert held.deaths == 9
    left = store.expansions.write(held, [item(n) for n in range(5)], Cursor(5), None, 30).left
    assert left is not None
    assert left.deaths == 0
    store.expansions.release(left)
    die(store, 8)
    for give_back in (store.expansions.release, lambda one: store.expansions.postpone(one, 0)):
        for number in range(6):
            held = store.expansions.claim(f"alive{number}", 30, KINDS)
            assert held is not None
            assert held.deaths == 8
            give_back(held)
            make_due(store)
    assert expander(store, objects, Numbers(12)).run_once()
    assert names(store, job_id) == [f"{n}.jpg" for n in range(12)]
    assert read(store, job_id).error is None


def test_a_source_that_does_not_answer_is_asked_again_from_its_cursor(
    store: Store, objects: FolderObjects
) -> None:
    job_id = prepare(store)
    expand = expander(store, objects, Numbers(12, {5: StorageUnavailable("away")}))
    assert expand.run_once()
    assert (read(store, job_id).status, read(store, job_id).counts.total) == ("preparing", 5)
    assert not expand.run_once()
    make_due(store)
    assert expand.run_once()
    assert names(store, job_id) == [f"{n}.jpg" for n in range(12)]
    assert read(store, job_id).error is None


def test_a_source_that_breaks_half_way_leaves_what_it_found_and_says_why(
    store: Store, objects: FolderObjects
) -> None:
    job_id = prepare(store)
    denied = ItemError(ItemCode.ACCESS_DENIED, "the listing is denied")
    expander(store, objects, Numbers(12, {10: denied})).run_once()
    job = read(store, job_id)
    assert (job.status, job.counts.total, job.error and job.error.code) == ("queued", 10, "access_denied")
    run_to_end(store, job_id)


@pytest.mark.parametrize(
    ("breaks", "code"),
    [({0: ItemError(ItemCode.ACCESS_DENIED, "no")}, "access_denied"), ({}, "invalid_request")],
)
def test_a_source_without_images_fails_its_job(
    store: Store, objects: FolderObjects, breaks: dict[int, Exception], code: str
) -> None:
    job_id = prepare(store)
    expander(store, objects, Numbers(1 if breaks else 0, breaks)).run_once()
    job = read(store, job_id)
    assert (job.status, job.error and job.error.code) == ("failed", code)
    assert job.expires_at is not None


def test_more_images_than_a_job_holds_are_left_out(store: Store, objects: FolderObjects) -> None:
    job_id = prepare(store)
    expander(store, objects, Numbers(42), max_images=12).run_once()
    job = read(store, job_id)
    assert (job.status, job.counts.total, job.error and job.error.code) == ("queued", 12, "too_many_images")


def test_canceling_ends_the_preparation(store: Store, objects: FolderObjects) -> None:
    job_id = prepare(store)
    expand = expander(store, objects, Numbers(42))
    held = store.expansions.claim("one", 30, KINDS)
    assert held is not None
    store.expansions.write(held, [item(n) for n in range(3)], Cursor(3), None, 30)
    store.jobs.cancel("ann", job_id)
    make_due(store)
    assert expand.run_once()
    assert expansions(store) == 0
    while store.sweeps.finish_cancels():
        pass
    job = read(store, job_id)
    assert (job.status, job.counts.canceled, job.counts.total) == ("canceled", 3, 3)


def test_a_deleted_job_leaves_nothing_to_expand(store: Store, objects: FolderObjects) -> None:
    job_id = prepare(store)
    store.jobs.delete("ann", job_id)
    while store.retention.delete_rows(job_id):
        pass
    assert expansions(store) == 0
    assert not expander(store, objects, Numbers(3)).run_once()


def test_a_small_prepared_job_goes_with_the_fast_ones(store: Store, objects: FolderObjects) -> None:
    job_id = prepare(store)
    held = store.expansions.claim("one", 30, KINDS)
    assert held is not None
    written = store.expansions.write(held, [item(0)], None, None, 30)
    assert [message.queue for message in written.messages] == ["captionfleet.small.fast"]
    assert claim(store, job_id, 0).fast


def test_a_long_list_is_written_in_part_and_expanded_from_its_object(
    store: Store, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.lists, "LINE_ITEMS", 3)
    monkeypatch.setattr(jobs.lists, "SLICE_LINES", 2)
    monkeypatch.setattr(jobs.lists, "BLOCK_BYTES", 100)
    expand = expander(store, objects, Numbers(0))
    intake = Intake(Settings(), store, EmbeddedQueue(), objects, expand.wake)
    refused = ItemError(ItemCode.IMAGE_TOO_LARGE, "too large")
    listed = [item(n) if n % 10 else item(n)._replace(error=refused) for n in range(30)]
    job_id = new_id("job")
    intake.submit(NewJob(job_id, "ann", "small", "manifest", JobSpec()), iter(listed))
    job = read(store, job_id)
    assert (job.status, job.counts.total, job.counts.failed) == ("preparing", 6, 1)
    assert store.retention.abandoned_uploads() == []
    monkeypatch.setattr("jobs.expansion.TURN_SLICES", 2)
    while expand.run_once():
        make_due(store)
    job = read(store, job_id)
    assert (job.status, job.counts.total, job.counts.failed) == ("queued", 30, 3)
    assert names(store, job_id) == [f"{n}.jpg" for n in range(30)]
    assert objects.delete_prefix(source_prefix(job_id)) == 0
    run_to_end(store, job_id)
