"""The store over both databases, and short ways to drive it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import ColumnElement, update

from jobs.ids import new_id
from jobs.records import JobSpec, Priority
from jobs.settings import Settings
from jobs.store import Store
from jobs.store.chunks import ChunkResult, Claim, ItemResult
from jobs.store.database import open_database
from jobs.store.schema import upgrade
from jobs.store.submit import NewItem, NewJob
from jobs.tables import ChunkRow

LONG_AGO = datetime.now(UTC) - timedelta(days=1)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store, once per database."""
    if request.param == "sqlite":
        settings = Settings(data_dir=tmp_path)
    else:
        url = request.getfixturevalue("postgres_url")
        settings = Settings(database_url=url, redis_url="redis://localhost:1", bucket="unused")
    database = open_database(settings)
    upgrade(database)
    opened = Store(database, retention_days=1)
    yield opened
    opened.close()


def new_job(
    store: Store,
    images: int,
    *,
    owner: str = "ann",
    priority: Priority = Priority.NORMAL,
) -> str:
    """Insert a job of ``images`` uploads; return its id."""
    job_id = new_id("job")
    items = (NewItem(f"{n}.jpg", f"{n}.jpg", "upload", object_key=f"k/{n}") for n in range(images))
    store.submit.insert_job(NewJob(job_id, owner, "small", "upload", JobSpec(priority=priority)), items)
    return job_id


def claim(store: Store, job_id: str, number: int, worker: str = "w1", alone_after: int = 2) -> Claim:
    """Claim a chunk that must be there to take."""
    taken = store.chunks.claim(job_id, number, worker, 30, alone_after)
    assert taken is not None
    return taken


def captioned(held: Claim, text: str = "a dog runs") -> ChunkResult:
    """A caption for every item of a claim."""
    return ChunkResult(held, [ItemResult(i.position, ((text, -0.5),), model="m-1") for i in held.items])


def change_chunks(store: Store, job_id: str, *which: ColumnElement[bool], **values: object) -> None:
    """Write into a job's chunks what time alone would bring about."""
    with store.database.write() as connection:
        connection.execute(update(ChunkRow).where(ChunkRow.job_id == job_id, *which).values(**values))


def age_leases(store: Store, job_id: str) -> None:
    """Make every lease of a job end in the past, as a worker's death and half a minute would."""
    change_chunks(store, job_id, ChunkRow.state == "leased", lease_until=LONG_AGO)


def lose(store: Store, job_id: str) -> None:
    """Let the leases of a job end and be recovered: their workers are dead."""
    age_leases(store, job_id)
    store.sweeps.recover_leases()


def crash(store: Store, worker: str = "w1") -> None:
    """Let a worker crash, and be replaced by its parent."""
    store.sweeps.recover_worker(worker, crashed=True)


def run_to_end(store: Store, job_id: str, owner: str = "ann") -> None:
    """Caption every chunk of a job, in order."""
    for number in range(10_000):
        taken = store.chunks.claim(job_id, number, "w1", 30, 2)
        if taken is None:
            break
        store.chunks.record([captioned(taken)])
    job, _ = store.jobs.get(owner, job_id)
    assert job.status == "completed"
