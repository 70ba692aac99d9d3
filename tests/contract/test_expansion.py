"""Jobs prepared in the background: each item once, whatever breaks, the same on both databases."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, func, select, update

import jobs.lists
from jobs import archive_source
from jobs.archive_source import ArchiveSource, archive_prefix
from jobs.background import PATIENCE
from jobs.errors import CaptionfleetError, DatabaseUnavailable, ItemCode, ItemError, StorageUnavailable
from jobs.expansion import Expander, Slice
from jobs.ids import new_id
from jobs.intake import Intake
from jobs.listing import listed_item
from jobs.lists import KIND, ListSource
from jobs.objects import image_key, source_prefix
from jobs.objects.folder import PART, FolderObjects
from jobs.objects.segments import SegmentWriter
from jobs.queue.embedded import EmbeddedQueue
from jobs.records import Job, JobSpec
from jobs.settings import Settings
from jobs.store import Store
from jobs.store.expansions import Cursor, Expansion, NewExpansion
from jobs.store.submit import NewItem, NewJob
from jobs.tables import ExpansionRow
from tests.contract.stores import LONG_AGO, captioned, claim, run_to_end, store
from tests.pictures import jpeg_bytes
from tests.processes import wait_until

__all__ = ["store"]

SLICE = 5
# What does not depend on the database is tried on one.
ONE = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


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
    held = store.expansions.claim("one", 30)
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
    held = store.expansions.claim("one", 30)
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
    dead = store.expansions.claim("dead", 30)
    assert dead is not None
    assert store.expansions.claim("other", 30) is None
    make_due(store)
    assert expander(store, objects, Numbers(12)).run_once()
    late = store.expansions.write(dead, [item(0)], Cursor(1), None, 30)
    assert (late.messages, late.left, late.ended) == ([], None, False)
    assert names(store, job_id) == [f"{n}.jpg" for n in range(12)]


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


def row(store: Store) -> Row[Any]:
    with store.database.read() as connection:
        return connection.execute(select(ExpansionRow)).one()


def fail_often(store: Store, failures: int) -> None:
    with store.database.write() as connection:
        connection.execute(update(ExpansionRow).values(failures=failures))


@ONE
@pytest.mark.parametrize(
    ("error", "own"),
    [
        (StorageUnavailable("away"), True),
        (DatabaseUnavailable("away"), False),
        (ItemError(ItemCode.ACCESS_DENIED, "the role has lost its policy"), True),
    ],
)
def test_what_the_service_keeps_itself_is_waited_for_without_end(
    store: Store, objects: FolderObjects, error: CaptionfleetError, *, own: bool
) -> None:
    job_id = prepare(store)
    fail_often(store, 100_000)
    assert expander(store, objects, Numbers(9, {0: error}, own=own)).run_once()
    assert (read(store, job_id).status, row(store).failures) == ("preparing", 100_001)
    make_due(store)
    expander(store, objects, Numbers(9, own=own)).run_once()
    assert names(store, job_id) == [f"{n}.jpg" for n in range(9)]
    assert read(store, job_id).error is None


@ONE
@pytest.mark.parametrize(
    ("error", "code"), [(StorageUnavailable("away"), "storage_unavailable"), (KeyError(1), "internal_error")]
)
def test_somebody_elses_storage_and_unforeseen_errors_have_a_day(
    store: Store, objects: FolderObjects, error: Exception, code: str
) -> None:
    job_id = prepare(store)
    for failures in (0, PATIENCE - 1, PATIENCE):
        fail_often(store, failures)
        make_due(store)
        expander(store, objects, Numbers(9, {5: error} if failures == PATIENCE else {0: error})).run_once()
        if failures < PATIENCE:
            assert (row(store).failures, row(store).lease_until) == (failures + 1, None)
            assert not expander(store, objects, Numbers(9)).run_once()
    # An answer begins the day anew: what was found meanwhile stays.
    assert (read(store, job_id).status, row(store).failures) == ("preparing", 1)
    fail_often(store, PATIENCE)
    make_due(store)
    expander(store, objects, Numbers(9, {5: error})).run_once()
    job = read(store, job_id)
    assert (job.status, job.counts.total, job.error and job.error.code) == ("queued", 5, code)


def test_a_slice_that_cannot_be_written_is_tried_later_and_holds_up_nothing(
    store: Store, objects: FolderObjects
) -> None:
    broken, sound = prepare(store), prepare(store)
    source = Numbers(9)
    refused: Any = None
    source.slices = lambda expansion: iter(  # type: ignore[method-assign]
        [
            Slice(
                [item(0)._replace(source=refused if expansion.job_id == broken else "s3://b/k")], 1, last=True
            )
        ]
    )
    expand = expander(store, objects, source)
    assert expand.run_once()
    assert expand.run_once()
    assert not expand.run_once()
    assert (read(store, broken).status, read(store, sound).status) == ("preparing", "queued")
    assert (row(store).failures, row(store).lease_until) == (1, None)


def test_a_key_that_no_database_keeps_fails_alone(store: Store, objects: FolderObjects) -> None:
    job_id = prepare(store)
    keys = ["photos/a.jpg", "photos/b\0.jpg", "photos/c.jpg"]
    source = Numbers(3)
    found = [listed_item("bucket", key, key) for key in keys]
    source.slices = lambda expansion: iter([Slice(found, keys[1]), Slice((), None, last=True)])  # type: ignore[method-assign]
    assert expander(store, objects, source).run_once()
    items = [one for page in store.jobs.results("ann", job_id) for one in page]
    assert [one.error and one.error.code for one in items] == [None, "download_failed", None]
    assert items[1].source == "s3://bucket/photos/b%00.jpg"


def test_a_lease_is_kept_however_long_a_slice_takes(
    store: Store, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.expansion.LEASE_S", 0.3)
    job_id = prepare(store)
    seen: set[datetime] = set()

    def renewed() -> bool:
        assert store.expansions.claim("thief", 30) is None
        seen.add(row(store).lease_until)
        return len(seen) > 4

    class Slow(Numbers):
        def slices(self, expansion: Expansion) -> Iterator[Slice]:
            wait_until(renewed, 20)
            yield from super().slices(expansion)

    assert expander(store, objects, Slow(5)).run_once()
    assert names(store, job_id) == [f"{n}.jpg" for n in range(5)]


@ONE
def test_a_long_way_to_the_cursor_is_no_turn(
    store: Store, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.expansion.TURN_SLICES", 3)
    job_id = prepare(store)

    class Far(Numbers):
        def slices(self, expansion: Expansion) -> Iterator[Slice]:
            for _ in range(30):
                yield Slice((), expansion.cursor)
            yield from super().slices(expansion)

    version = store.jobs.get("ann", job_id)[1]
    assert expander(store, objects, Far(5)).run_once()
    job, later = store.jobs.get("ann", job_id)
    assert job.counts.total == 5
    assert later < version + 5


@ONE
def test_a_kind_of_source_that_is_not_known_here_is_left_to_others(
    store: Store, objects: FolderObjects
) -> None:
    job = NewJob(new_id("job"), "ann", "small", "manifest", JobSpec())
    store.submit.insert_job(job, (), NewExpansion("newer"))
    assert not expander(store, objects, Numbers(3)).run_once()


@ONE
def test_an_image_that_cannot_be_stored_now_is_stored_later(
    store: Store, objects: FolderObjects, tmp_path: Path
) -> None:
    photos = [jpeg_bytes(number) for number in range(6)]
    packed = tar_of(photos)
    job_id = new_id("job")
    with objects.batch() as batch:
        writer = SegmentWriter(batch, archive_prefix(job_id))
        writer.write(packed)
        writer.close()
        batch.flush()
    rest = NewExpansion(archive_source.KIND, {"size": len(packed), "kind": "tar"})
    store.submit.insert_job(NewJob(job_id, "ann", "small", "archive", JobSpec()), (), rest)
    sources = {archive_source.KIND: ArchiveSource(objects, 100_000)}
    expand = Expander(store, objects, EmbeddedQueue(), sources, 1000)
    # A folder stands where the fourth image is to be written.
    obstacle = tmp_path / "objects" / f"{image_key(job_id, 3)}{PART}"
    obstacle.mkdir(parents=True)
    assert expand.run_once()
    assert (read(store, job_id).status, row(store).failures) == ("preparing", 1)
    obstacle.rmdir()
    make_due(store)
    assert expand.run_once()
    job = read(store, job_id)
    assert (job.status, job.counts.total, job.error) == ("queued", 6, None)
    assert [objects.read(image_key(job_id, number), 100_000) for number in range(6)] == photos


def tar_of(photos: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, photo in enumerate(photos):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(photo)
            archive.addfile(info, io.BytesIO(photo))
    return buffer.getvalue()


def test_more_images_than_a_job_holds_are_left_out(store: Store, objects: FolderObjects) -> None:
    job_id = prepare(store)
    expander(store, objects, Numbers(42), max_images=12).run_once()
    job = read(store, job_id)
    assert (job.status, job.counts.total, job.error and job.error.code) == ("queued", 12, "too_many_images")


def test_canceling_ends_the_preparation(store: Store, objects: FolderObjects) -> None:
    job_id = prepare(store)
    expand = expander(store, objects, Numbers(42))
    held = store.expansions.claim("one", 30)
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
    while store.sweeps.delete_rows(job_id):
        pass
    assert expansions(store) == 0
    assert not expander(store, objects, Numbers(3)).run_once()


def test_a_small_prepared_job_goes_with_the_fast_ones(store: Store, objects: FolderObjects) -> None:
    job_id = prepare(store)
    held = store.expansions.claim("one", 30)
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
    assert store.sweeps.abandoned_uploads() == []
    monkeypatch.setattr("jobs.expansion.TURN_SLICES", 2)
    while expand.run_once():
        make_due(store)
    job = read(store, job_id)
    assert (job.status, job.counts.total, job.counts.failed) == ("queued", 30, 3)
    assert names(store, job_id) == [f"{n}.jpg" for n in range(30)]
    assert objects.delete_prefix(source_prefix(job_id)) == 0
    run_to_end(store, job_id)
