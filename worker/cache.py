"""Images that were captioned before: found by their bytes, the checkpoint and the resolved options."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future
from contextlib import suppress

from jobs.errors import DatabaseUnavailable, TransientError
from jobs.metrics import CACHE_LOOKUPS
from jobs.store.cache import CachedCaption, CacheStore
from jobs.store.chunks import Claim
from model.captioner import Caption, DecodingOptions
from worker.leases import Hold, Wanted
from worker.stopping import Stopped

log = logging.getLogger(__name__)

# Images fetched within this time are looked up together.
GATHERING_S = 0.01


@dataclasses.dataclass(frozen=True)
class Loaded:
    """One image in the batcher's hands, or known before, and what is known of it.

    ``cache_key`` is where its caption is to be remembered, if it is new and may be.
    """

    captions: Wanted[list[Caption]]
    width: int
    height: int
    sha256: str | None
    cache_key: str | None = None


class Keys:
    """Keys of one claim's images: digests of owner, bytes, checkpoint and resolved options."""

    def __init__(self, owner: str, checkpoint: str, options: DecodingOptions) -> None:
        whole = json.dumps([owner, checkpoint, dataclasses.asdict(options)], sort_keys=True)
        self._base = hashlib.sha256(whole.encode())

    def of(self, sha256: str) -> str:
        """Return the key of an image's digest."""
        key = self._base.copy()
        key.update(sha256.encode())
        return key.hexdigest()


class CaptionCache:
    """One captioner's view of the cache."""

    def __init__(self, store: CacheStore, checkpoint: str) -> None:
        self._store = store
        self._checkpoint = checkpoint
        self._lock = threading.Lock()
        self._gathering: _Lookup | None = None
        self._under_way: dict[str, Future[Loaded]] = {}

    def keys(self, claim: Claim, options: DecodingOptions) -> Keys | None:
        """Return the keys of a claim's images; ``None`` where the cache is not to be used."""
        if claim.options.use_cache is False or claim.alone:
            return None
        return Keys(claim.owner, self._checkpoint, options)

    def known(self, keys: Keys, claim: Claim) -> dict[int, Loaded]:
        """Return the images, by position, that need not even be fetched: their bytes cannot have changed."""
        digests = {item.position: item.sha256 for item in claim.items if item.sha256}
        if not digests:
            return {}
        found = self._find({keys.of(digest) for digest in digests.values()})
        known = {
            position: _loaded(cached, digest)
            for position, digest in digests.items()
            if (cached := found.get(keys.of(digest)))
        }
        CACHE_LOOKUPS.add(len(known), "hit")
        CACHE_LOOKUPS.add(len(digests) - len(known), "miss")
        return known

    def find(self, key: str, sha256: str) -> Loaded | None:
        """Look one fetched image up, together with others that were fetched meanwhile."""
        with self._lock:
            lookup = self._gathering
            if first := lookup is None:
                lookup = self._gathering = _Lookup()
            assert lookup is not None
            lookup.keys.add(key)
        if first:
            lookup.ready.wait(GATHERING_S)
            with self._lock:
                self._gathering = None
            try:
                lookup.found = self._find(lookup.keys)
            finally:
                lookup.ready.set()
        lookup.ready.wait()
        cached = lookup.found.get(key)
        CACHE_LOOKUPS.add(1, "hit" if cached else "miss")
        return _loaded(cached, sha256) if cached else None

    def once(self, key: str, hold: Hold, load: Callable[[], Loaded]) -> Loaded:
        """Load an image for a run, or share what another thread is loading of the same bytes."""
        with self._lock:
            shared = self._under_way.get(key)
            if mine := shared is None:
                shared = self._under_way[key] = Future()
            assert shared is not None
        if not mine:
            # Where the other's chunk ended early, that is no reason for this one to.
            with suppress(TransientError, Stopped, CancelledError):
                loaded = shared.result()
                if hold.want(loaded.captions):
                    return dataclasses.replace(loaded, cache_key=None)
            return load()
        try:
            loaded = load()
        except BaseException as error:
            self._end(key)
            shared.set_exception(error)
            raise
        shared.set_result(loaded)
        loaded.captions.future.add_done_callback(lambda _: self._end(key))
        return loaded

    def _end(self, key: str) -> None:
        with self._lock:
            self._under_way.pop(key, None)

    def _find(self, keys: Collection[str]) -> dict[str, CachedCaption]:
        try:
            return self._store.find(keys)
        except DatabaseUnavailable as error:
            log.warning("%d images are captioned without a look into the cache: %s", len(keys), error)
            return {}


@dataclasses.dataclass(eq=False)
class _Lookup:
    keys: set[str] = dataclasses.field(default_factory=set)
    found: dict[str, CachedCaption] = dataclasses.field(default_factory=dict)
    ready: threading.Event = dataclasses.field(default_factory=threading.Event)


def _loaded(cached: CachedCaption, sha256: str) -> Loaded:
    captions: Future[list[Caption]] = Future()
    captions.set_result([Caption(text, score) for text, score in cached.captions])
    return Loaded(Wanted(captions), cached.width, cached.height, sha256)
