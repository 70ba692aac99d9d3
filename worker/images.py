"""From an item to an image that waits in the batcher: fetched and decoded, a few at a time."""

from __future__ import annotations

import hashlib
import logging
import random
import time
from concurrent.futures import Future, ThreadPoolExecutor

from jobs.errors import CaptionfleetError, ItemCode, ItemError, StorageUnavailable
from jobs.logs import working_on
from jobs.metrics import STAGE_PLACES, STAGE_SECONDS
from jobs.objects.sources import WEB, Sources
from jobs.store.chunks import ClaimedItem
from jobs.tracing import Traced, here
from jobs.urls import UrlError
from model.captioner import DecodingOptions
from worker.batcher import Batcher
from worker.cache import CaptionCache, Keys, Loaded
from worker.decoding import DecodePool
from worker.leases import Hold, Wanted
from worker.stopping import Stopped

log = logging.getLogger(__name__)

# Threads bound how many undecoded files are in memory: enough to hide the latency of an object store.
THREADS_FETCHING = 8
THREADS_PER_DECODER = 2
THREADS_FAST = 4
# Waiting for strangers' servers costs a thread and nothing else.
THREADS_WEB = 32
THREADS_WEB_FAST = 16
# A chunk's first images show how long each step takes; spans of all would cost more than they tell.
IMAGES_TRACED = 8
RETRY_PAUSES_S = (0.5,)
RETRY_PAUSES_WEB_S = (0.5, 2.0)


class Images:
    """Fetches, decodes and submits images in threads; those of small jobs do not queue behind the others."""

    def __init__(
        self,
        sources: Sources,
        decoder: DecodePool,
        batcher: Batcher,
        cache: CaptionCache,
        processes: int,
    ) -> None:
        self._cache = cache
        self._sources = sources
        self._decoder = decoder
        self._batcher = batcher
        bulk = THREADS_FETCHING + THREADS_PER_DECODER * processes
        self._bulk = ThreadPoolExecutor(bulk, thread_name_prefix="load")
        self._fast = ThreadPoolExecutor(THREADS_FAST, thread_name_prefix="load-fast")
        self._web = ThreadPoolExecutor(THREADS_WEB, thread_name_prefix="load-web")
        self._web_fast = ThreadPoolExecutor(THREADS_WEB_FAST, thread_name_prefix="load-web-fast")
        self._places = bulk + THREADS_FAST + THREADS_WEB + THREADS_WEB_FAST
        STAGE_PLACES.add(self._places, "fetch")

    def load(self, hold: Hold, options: DecodingOptions) -> list[Future[Loaded]]:
        """Begin to load every item of a chunk.

        The futures raise ``ItemError``, ``TransientError`` (no image is to blame) or ``Stopped``.
        """
        claim = hold.claim
        keys = self._cache.keys(claim, options)
        known = self._cache.known(keys, claim) if keys else {}
        self._batcher.expect(options, len(claim.items) - len(known), fast=claim.fast)
        usual, web = (self._fast, self._web_fast) if claim.fast else (self._bulk, self._web)
        return [
            _done(known[item.position])
            if item.position in known
            else (web if item.source.startswith(WEB) else usual).submit(
                self._load, hold, options, keys, item, hold.span if number < IMAGES_TRACED else None
            )
            for number, item in enumerate(claim.items)
        ]

    def close(self) -> None:
        """Begin nothing more; a fetch that hangs is not waited for."""
        for threads in (self._bulk, self._fast, self._web, self._web_fast):
            threads.shutdown(wait=False, cancel_futures=True)
        STAGE_PLACES.add(-self._places, "fetch")

    def _load(
        self,
        hold: Hold,
        options: DecodingOptions,
        keys: Keys | None,
        item: ClaimedItem,
        span: Traced | None,
    ) -> Loaded:
        with working_on(job=hold.claim.job_id, chunk=hold.claim.number), here(hold.span):
            return self._load_known(hold, options, keys, item, span)

    def _load_known(
        self,
        hold: Hold,
        options: DecodingOptions,
        keys: Keys | None,
        item: ClaimedItem,
        span: Traced | None,
    ) -> Loaded:
        try:
            _go_on(hold)
            began = time.monotonic()
            try:
                data = self._fetch(hold, item)
            finally:
                STAGE_SECONDS.add(time.monotonic() - began, "fetch")
                if span is not None:
                    span.add("fetch", began, position=item.position)
            sha256 = item.sha256 or hashlib.sha256(data).hexdigest()
            if keys is None:
                return self._submit(hold, options, data, sha256, None, span)
            key = keys.of(sha256)
            found = None if item.sha256 else self._cache.find(key, sha256)
            return found or self._cache.once(
                key, hold, lambda: self._submit(hold, options, data, sha256, key, span)
            )
        except (CaptionfleetError, Stopped):
            raise
        except Exception as error:
            log.exception("image %d of %s could not be read", item.position, hold.claim.job_id)
            message = f"the image could not be read: unexpected {type(error).__name__}"
            raise ItemError(ItemCode.CAPTION_FAILED, message) from error
        finally:
            self._batcher.expect(options, -1, fast=hold.claim.fast)

    def _submit(
        self,
        hold: Hold,
        options: DecodingOptions,
        data: bytes,
        sha256: str,
        key: str | None,
        span: Traced | None,
    ) -> Loaded:
        began = time.monotonic()
        try:
            image = self._decoder.decode(data).result()
        finally:
            if span is not None:
                span.add("decode", began, bytes=len(data))
        _go_on(hold)
        captions = Wanted(self._batcher.submit(image.pixels, options, fast=hold.claim.fast, span=span))
        hold.want(captions)
        return Loaded(captions, image.width, image.height, sha256, key)

    def _fetch(self, hold: Hold, item: ClaimedItem) -> bytes:
        """Fetch the bytes, trying again soon: the store's client does not repeat a body that breaks off."""
        for pause in RETRY_PAUSES_WEB_S if item.source.startswith(WEB) else RETRY_PAUSES_S:
            try:
                return self._sources.fetch(item.source, item.object_key)
            except (StorageUnavailable, UrlError) as error:
                if isinstance(error, UrlError) and not error.passing:
                    raise
                log.info("fetching image %d of %s again: %s", item.position, hold.claim.job_id, error)
                hold.wait(pause * random.uniform(0.5, 1.5))  # noqa: S311
                _go_on(hold)
        return self._sources.fetch(item.source, item.object_key)


def _done(loaded: Loaded) -> Future[Loaded]:
    future: Future[Loaded] = Future()
    future.set_result(loaded)
    return future


def _go_on(hold: Hold) -> None:
    if hold.stopped:
        raise Stopped
