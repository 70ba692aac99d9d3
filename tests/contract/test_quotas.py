"""Quotas in the store, the same on both databases: what is counted with the work it is counted for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest
from sqlalchemy import update

from jobs.errors import RequestError
from jobs.ids import new_id
from jobs.limits import Limits
from jobs.records import JobSpec
from jobs.store import Store
from jobs.store.bulk import NewItem
from jobs.store.expansions import Cursor, Expansion, NewExpansion
from jobs.store.submit import NewJob
from jobs.tables import UsageRow
from tests.contract.stores import store

__all__ = ["store"]


def items(count: int, first: int = 0) -> list[NewItem]:
    return [NewItem(f"{n}.jpg", f"{n}.jpg", "upload", f"k/{n}") for n in range(first, first + count)]


def submit(store: Store, limits: Limits, images: int = 1, size: int = 0) -> str | None:
    """Insert a job; ``None`` if its owner's quota refuses it."""
    job = NewJob(new_id("job"), "ann", "small", "upload", JobSpec(), limits=limits, size=size)
    try:
        store.submit.insert_job(job, items(images))
    except RequestError as error:
        if error.code != "quota_exceeded":
            raise
        return None
    return job.id


@pytest.mark.parametrize(
    "limits", [Limits(concurrent_jobs=5), Limits(images_per_day=10), Limits(bytes_per_day=500)]
)
def test_of_many_at_once_exactly_the_quota_is_accepted(store: Store, limits: Limits) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: submit(store, limits, images=2, size=100), range(16)))
    assert sum(job_id is not None for job_id in made) == 5
    used = store.usage.of("ann")
    assert (used.jobs, used.images, used.bytes) == (5, 10, 500)
    assert len(store.jobs.page("ann", None, 50, None)[0]) == 5


def prepared(store: Store, limits: Limits, owner: str = "ann") -> Expansion:
    """A job whose images are found later, and who finds them."""
    job = NewJob(new_id("job"), owner, "small", "s3_prefix", JobSpec(), limits=limits)
    store.submit.insert_job(job, (), NewExpansion("s3_prefix"))
    expansion = store.expansions.claim("w", 30, ("s3_prefix",))
    assert expansion is not None
    assert expansion.limits == limits
    return expansion


def test_images_that_are_found_later_count_up_to_the_quota(store: Store) -> None:
    expansion = prepared(store, Limits(images_per_day=5))
    left = store.expansions.write(expansion, items(3), Cursor(1), None, 30).left
    assert left is not None
    written = store.expansions.write(left, items(3, 3), Cursor(2), None, 30)
    assert written.ended
    job, _ = store.jobs.get("ann", expansion.job_id)
    assert (job.counts.total, job.status.value) == (5, "queued")
    assert job.error is not None
    assert job.error.code == "quota_exceeded"
    assert store.usage.of("ann").images == 5
    assert submit(store, Limits(images_per_day=5)) is None


def test_with_nothing_left_a_job_fails_with_the_code(store: Store) -> None:
    limits = Limits(images_per_day=1)
    submit(store, limits)
    expansion = prepared(store, limits)
    store.expansions.write(expansion, items(3), Cursor(1), None, 30)
    job, _ = store.jobs.get("ann", expansion.job_id)
    assert job.status.value == "failed"
    assert job.error is not None
    assert job.error.code == "quota_exceeded"


def test_a_slice_that_is_written_twice_counts_once(store: Store) -> None:
    expansion = prepared(store, Limits(images_per_day=100))
    for _ in range(2):
        store.expansions.write(expansion, items(3), Cursor(1), None, 30)
    assert store.usage.of("ann").images == 3


def test_jobs_of_one_owner_prepared_and_submitted_at_once_wait_for_each_other(store: Store) -> None:
    """However their transactions meet, none of them is chosen to die for a deadlock."""
    limits = Limits(images_per_day=10**6, concurrent_jobs=10**6)
    expansions = [prepared(store, limits) for _ in range(4)]

    def expand(expansion: Expansion) -> None:
        left: Expansion | None = expansion
        for first in range(0, 60, 10):
            assert left is not None
            left = store.expansions.write(left, items(10, first), Cursor(first), None, 30).left

    with ThreadPoolExecutor(8) as pool:
        ends = [pool.submit(expand, expansion) for expansion in expansions]
        ends += [pool.submit(submit, store, limits, 3) for _ in range(20)]
        assert all(end.exception() is None for end in ends)
    assert store.usage.of("ann").images == 4 * 60 + 20 * 3


def test_each_day_begins_anew_and_owners_do_not_share(store: Store) -> None:
    limits = Limits(images_per_day=1)
    assert submit(store, limits)
    assert submit(store, limits) is None
    assert store.usage.of("bea").images == 0
    with store.database.write() as connection:
        connection.execute(update(UsageRow).values(day=date(2001, 1, 1)))
    assert store.usage.of("ann").images == 0
    assert submit(store, limits)
    assert store.usage.of("ann").images == 1
