"""Preparations whose source, store or database fails: nothing is lost, and nothing stands still."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, select, update

from jobs import archive_source
from jobs.archive_source import ArchiveSource, archive_prefix
from jobs.background import PATIENCE
from jobs.errors import CaptionfleetError, DatabaseUnavailable, ItemCode, ItemError, StorageUnavailable
from jobs.expansion import Expander, Slice
from jobs.ids import new_id
from jobs.listing import listed_item
from jobs.objects import image_key
from jobs.objects.folder import PART, FolderObjects
from jobs.objects.segments import SegmentWriter
from jobs.queue.embedded import EmbeddedQueue
from jobs.records import JobSpec
from jobs.store import Store
from jobs.store.expansions import Expansion, NewExpansion
from jobs.store.submit import NewJob
from jobs.tables import ExpansionRow
from tests.contract.stores import store
from tests.contract.test_expansion import (
    KINDS,
    Numbers,
    expander,
    item,
    make_due,
    names,
    objects,
    prepare,
    read,
)
from tests.pictures import jpeg_bytes
from tests.processes import wait_until

__all__ = ["objects", "store"]

# What does not depend on the database is tried on one.
ONE = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


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
    monkeypatch.setattr("jobs.expansion.LEASE_S", 1.2)
    job_id = prepare(store)
    seen: set[datetime] = set()

    def renewed() -> bool:
        assert store.expansions.claim("thief", 30, KINDS) is None
        seen.add(row(store).lease_until)
        return len(seen) > 4

    class Slow(Numbers):
        def slices(self, expansion: Expansion) -> Iterator[Slice]:
            wait_until(renewed)
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
