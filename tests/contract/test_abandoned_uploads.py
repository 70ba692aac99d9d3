"""Direct uploads that no job takes are removed, and those of a job with the job, however late they come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, update

from jobs.errors import ItemError, RequestError, StorageUnavailable
from jobs.ids import new_id
from jobs.objects.folder import FolderObjects
from jobs.records import JobSpec
from jobs.store import Store
from jobs.store.submit import NewItem, NewJob
from jobs.store.uploads import NewUpload, upload_key, upload_name
from jobs.tables import DirectUploadRow, LeaseRow
from jobs.tidying import Tidying
from tests.contract.stores import LONG_AGO, store

__all__ = ["store"]


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")


def announce(store: Store, count: int) -> str:
    return store.uploads.create("ann", [NewUpload(f"{n}.jpg", "image/jpeg", 5) for n in range(count)])[0]


def put(objects: FolderObjects, batch: str, number: int) -> None:
    with objects.batch() as writing:
        writer = writing.open(upload_key(batch, number), "image/jpeg")
        writer.write(b"bytes")
        writer.close()
        writing.flush()


def there(objects: FolderObjects, batch: str, number: int) -> bool:
    try:
        return objects.read(upload_key(batch, number), 10) == b"bytes"
    except ItemError:
        return False


def job_of(store: Store, batch: str, *numbers: int) -> str:
    job = NewJob(new_id("job"), "ann", "small", "references", JobSpec())
    items = [
        NewItem(f"{n}.jpg", f"{n}.jpg", "upload", upload_key(batch, n), upload_id=upload_name(batch, n))
        for n in numbers
    ]
    store.submit.insert_job(job, items)
    return job.id


def tidy(store: Store, objects: FolderObjects) -> None:
    """Tidy as a process does that has just started, and whose turn it is."""
    with store.database.write() as connection:
        connection.execute(delete(LeaseRow))
    assert Tidying(store, objects).run_once()


def expire(store: Store) -> None:
    with store.database.write() as connection:
        connection.execute(update(DirectUploadRow).values(expires_at=LONG_AGO))


def rows(store: Store) -> int:
    with store.database.read() as connection:
        return connection.execute(select(func.count()).select_from(DirectUploadRow)).scalar_one()


def test_only_what_no_job_took_is_abandoned(store: Store, objects: FolderObjects) -> None:
    batch = announce(store, 3)
    for number in range(2):
        put(objects, batch, number)
    job_of(store, batch, 1)
    tidy(store, objects)
    assert [there(objects, batch, number) for number in range(2)] == [True, True]
    expire(store)
    tidy(store, objects)
    assert [there(objects, batch, number) for number in range(2)] == [False, True]
    assert rows(store) == 1


def test_a_deleted_jobs_uploads_go_with_it_and_what_comes_late_goes_later(
    store: Store, objects: FolderObjects
) -> None:
    batch = announce(store, 1)
    put(objects, batch, 0)
    job_id = job_of(store, batch, 0)
    store.jobs.delete("ann", job_id)
    tidy(store, objects)
    assert store.retention.deleted_jobs() == []
    assert not there(objects, batch, 0)
    # The address had been given out: somebody used it once more.
    put(objects, batch, 0)
    expire(store)
    tidy(store, objects)
    assert not there(objects, batch, 0)
    assert rows(store) == 0


def test_uploads_that_cannot_be_removed_hold_up_no_other(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forbidden(FolderObjects):
        def delete(self, keys: Sequence[str]) -> None:
            if not kept.isdisjoint(keys):
                raise StorageUnavailable("access denied")
            super().delete(keys)

    monkeypatch.setattr("jobs.tidying.UPLOADS_AT_ONCE", 2)
    objects = Forbidden(tmp_path / "objects")
    batch = announce(store, 6)
    kept = {upload_key(batch, number) for number in range(2)}
    for number in range(6):
        put(objects, batch, number)
    expire(store)
    tidy(store, objects)
    assert [there(objects, batch, number) for number in range(6)] == [True] * 2 + [False] * 4
    assert rows(store) == 2


def test_an_upload_is_taken_by_one_of_two_jobs(store: Store) -> None:
    batch = announce(store, 2)
    job_of(store, batch, 0)
    with pytest.raises(RequestError):
        job_of(store, batch, 1, 0)
    assert store.uploads.batch("ann", batch)[1].job_id is None
    job_of(store, batch, 1)
