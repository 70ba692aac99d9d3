"""The caption cache: what it finds, for whom, and when no more; the same on both databases."""

from __future__ import annotations

from jobs.store import Store
from jobs.store.cache import CachedCaption, CacheEntry
from jobs.store.chunks import ChunkResult, ItemResult
from tests.contract.stores import claim, new_job, store

__all__ = ["store"]

CAPTIONS = (("a dog runs", -0.5), ("a dog", -0.75))


def caption(store: Store, job_id: str, *keys: str | None) -> None:
    """Caption a job's images, each to be remembered under its key."""
    held = claim(store, job_id, 0)
    items = [ItemResult(n, CAPTIONS, None, "m-1", 40, 30, cache_key=key) for n, key in enumerate(keys)]
    store.chunks.record([ChunkResult(held, items)])


def test_a_recorded_caption_is_found_by_its_key(store: Store) -> None:
    caption(store, new_job(store, 3), "k0", "k1", None)
    assert store.cache.find(["k0", "k1", "k2"]) == dict.fromkeys(
        ["k0", "k1"], CachedCaption(CAPTIONS, 40, 30)
    )


def test_an_edit_is_not_what_is_found(store: Store) -> None:
    job_id = new_job(store, 1)
    caption(store, job_id, "k0")
    store.jobs.edit("ann", job_id, 0, "mine")
    assert store.cache.find(["k0"])["k0"].captions == CAPTIONS


def test_a_stale_recording_remembers_nothing(store: Store) -> None:
    job_id = new_job(store, 1)
    held = claim(store, job_id, 0)
    store.chunks.hand_back(held)
    item = ItemResult(0, CAPTIONS, None, "m-1", 40, 30, cache_key="k0")
    store.chunks.record([ChunkResult(held, [item])])
    assert store.cache.find(["k0"]) == {}


def test_a_deleted_job_takes_its_captions_along(store: Store) -> None:
    first, second = new_job(store, 1), new_job(store, 1)
    caption(store, first, "k0")
    caption(store, second, "k0")
    store.jobs.delete("ann", first)
    assert store.cache.find(["k0"]) == {}
    while store.retention.delete_rows(first):
        pass
    store.cache.remember([CacheEntry("k0", "ann", first, 0)])
    assert store.cache.find(["k0"]) == {}
    # Made anew, it is remembered anew.
    caption(store, new_job(store, 1), "k0")
    assert store.cache.find(["k0"])
