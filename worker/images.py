"""From an item to an image that waits in the batcher: fetched and decoded, a few at a time."""

from __future__ import annotations

import hashlib
import logging
import random
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from jobs.errors import CaptionfleetError, ItemCode, ItemError, StorageUnavailable
from jobs.objects.sources import WEB, Sources
from jobs.store.chunks import ClaimedItem
from jobs.urls import UrlError
from model.captioner import Caption, DecodingOptions
from worker.batcher import Batcher
from worker.decoding import DecodePool
from worker.leases import Hold
from worker.stopping import Stopped

log = logging.getLogger(__name__)

# Threads bound how many undecoded files are in memory: enough to hide the latency of an object store.
THREADS_FETCHING = 8
THREADS_PER_DECODER = 2
THREADS_FAST = 4
# Waiting for strangers' servers costs a thread and nothing else.
THREADS_WEB = 32
RETRY_PAUSES_S = (0.5,)
RETRY_PAUSES_WEB_S = (0.5, 2.0)


@dataclass(frozen=True)
class Loaded:
    """One image in the batcher's hands, and what is known of it."""

    captions: Future[list[Caption]]
    width: int
    height: int
    sha256: str | None


class Images:
    """Fetches, decodes and submits images in threads; those of small jobs do not queue behind the others."""

    def __init__(self, sources: Sources, decoder: DecodePool, batcher: Batcher, processes: int) -> None:
        self._sources = sources
        self._decoder = decoder
        self._batcher = batcher
        bulk = THREADS_FETCHING + THREADS_PER_DECODER * processes
        self._bulk = ThreadPoolExecutor(bulk, thread_name_prefix="load")
        self._fast = ThreadPoolExecutor(THREADS_FAST, thread_name_prefix="load-fast")
        self._web = ThreadPoolExecutor(THREADS_WEB, thread_name_prefix="load-web")

    def load(self, hold: Hold, options: DecodingOptions) -> list[Future[Loaded]]:
        """Begin to load every item of a chunk.

        The futures raise ``ItemError``, ``TransientError`` (no image is to blame) or ``Stopped``.
        """
        claim = hold.claim
        self._batcher.expect(options, len(claim.items), fast=claim.fast)
        usual = self._fast if claim.fast else self._bulk
        return [
            (self._web if item.source.startswith(WEB) else usual).submit(self._load, hold, options, item)
            for item in claim.items
        ]

    def close(self) -> None:
        """Begin nothing more; a fetch that hangs is not waited for."""
        for threads in (self._bulk, self._fast, self._web):
            threads.shutdown(wait=False, cancel_futures=True)

    def _load(self, hold: Hold, options: DecodingOptions, item: ClaimedItem) -> Loaded:
        try:
            return self._submit(hold, options, item)
        except (CaptionfleetError, Stopped):
            raise
        except Exception as error:
            log.exception("image %d of %s could not be read", item.position, hold.claim.job_id)
            message = f"the image could not be read: unexpected {type(error).__name__}"
            raise ItemError(ItemCode.CAPTION_FAILED, message) from error
        finally:
            self._batcher.expect(options, -1, fast=hold.claim.fast)

    def _submit(self, hold: Hold, options: DecodingOptions, item: ClaimedItem) -> Loaded:
        _go_on(hold)
        data = self._fetch(hold, item)
        sha256 = item.sha256 or hashlib.sha256(data).hexdigest()
        image = self._decoder.decode(data).result()
        _go_on(hold)
        captions = self._batcher.submit(image.pixels, options, fast=hold.claim.fast)
        hold.cancel_with_me(captions)
        return Loaded(captions, image.width, image.height, sha256)

    def _fetch(self, hold: Hold, item: ClaimedItem) -> bytes:
        """Fetch the bytes, trying again soon: a body that breaks off is not repeated by the store's client."""
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


def _go_on(hold: Hold) -> None:
    if hold.stopped:
        raise Stopped
