"""The walk of one chunk: claimed, fetched, decoded, captioned, recorded; no image ends without an answer."""

from __future__ import annotations

import logging
import random
import threading
import time
from concurrent.futures import CancelledError, Future

from jobs.errors import DatabaseUnavailable, ItemCode, ItemError, StorageUnavailable, TransientError
from jobs.logs import working_on
from jobs.metrics import CHUNKS_IN_HAND, INFO
from jobs.queue import publish
from jobs.records import CaptionOptions
from jobs.services import Services
from jobs.store.chunks import ChunkResult, Claim, ClaimedItem, ItemResult
from jobs.store.workers import Worker
from jobs.tracing import Traced, begin, here
from model.captioner import DecodingOptions
from model.errors import InvalidOptions
from worker.batcher import Batcher
from worker.cache import CaptionCache, Loaded
from worker.exclusion import Exclusion
from worker.images import Images
from worker.leases import Hold, Leases
from worker.loading import Serving
from worker.recorder import Recorder
from worker.stopping import Stopped, until_answered

log = logging.getLogger(__name__)

ALONE_AFTER = 2
LONGEST_DELAY_S = 60.0
LAST_WORDS_S = 2.0
# The chunks of a longer job have traces of their own, linked to the job's: no trace grows without end.
CHUNKS_IN_TRACE = 16


class Pipeline:
    """Runs chunks of one model; called from as many threads as chunks may be in hand."""

    def __init__(self, services: Services, serving: Serving, exclusion: Exclusion) -> None:
        """Start threads, own the decode processes from now on; pipelines of a process share ``exclusion``."""
        settings = services.settings
        captioner = serving.captioner
        self._services = services
        self._serving = serving
        self._exclusion = exclusion
        self._stopping = threading.Event()
        self._hurried = threading.Event()
        self._batcher = Batcher(
            captioner, batch_size=serving.batch_size, forward_limit_s=settings.forward_limit_s
        )
        self._decoder = serving.decoder
        cache = CaptionCache(services.store.cache, captioner.digest)
        self._images = Images(
            services.sources, self._decoder, self._batcher, cache, settings.decode_processes
        )
        worker = Worker(
            serving.worker_id,
            serving.model,
            captioner.name,
            captioner.digest,
            captioner.device,
            None,
            captioner.takes_prompt,
        )
        self._leases = Leases(
            services.store, worker, settings.lease_s, lambda: self._batcher.images_per_second
        )
        self._recorder = Recorder(services.store.chunks, services.queue, lambda: len(self._leases.in_hand()))
        self._leases.start()
        self._info = (serving.model, captioner.name, captioner.device)
        INFO.put(1, *self._info)

    def run_chunk(self, job_id: str, number: int) -> bool:
        """Claim one chunk and see it through; false if this worker stops and did not look at it."""
        with working_on(job=job_id, chunk=number):
            return self._run_chunk(job_id, number)

    def _run_chunk(self, job_id: str, number: int) -> bool:
        with self._exclusion.shared() as joined:
            if not joined:
                return False
            hold = self._claim(job_id, number)
            if hold is None:
                return not self._stopping.is_set()
            if not hold.claim.alone:
                self._run(hold)
                return True
        # Two workers died with this image in hand. Now nothing else runs beside it: a death tells something.
        with self._exclusion.alone() as entered:
            if not entered:
                hold.stop()
            self._run(hold)
        return True

    def stop(self, grace_s: float) -> None:
        """Begin nothing, give the chunks in hand ``grace_s`` seconds, hand back the rest, end all threads."""
        self._stopping.set()
        self._exclusion.close()
        self._leases.wait_empty(grace_s, unless=self._hurried.is_set)
        for hold in self._leases.in_hand():
            hold.stop()
        if not self._leases.wait_empty(LAST_WORDS_S):
            for hold in self._leases.in_hand():
                self._hand_back(hold)
        self._recorder.close()
        self._batcher.close()
        self._decoder.close()
        self._images.close()
        self._leases.close()
        INFO.drop(*self._info)

    def hurry(self) -> None:
        """Let a ``stop``, also one under way, give no grace."""
        self._hurried.set()
        self._leases.look_again()

    def _claim(self, job_id: str, number: int) -> Hold | None:
        worker, lease_s = self._serving.worker_id, self._services.settings.lease_s
        chunks = self._services.store.chunks
        began = time.monotonic()
        with self._leases.claiming():
            # Asked in here, after ``stop`` could have found nothing under way.
            if self._stopping.is_set():
                return None
            try:
                claim = until_answered(
                    self._stopping, lambda: chunks.claim(job_id, number, worker, lease_s, ALONE_AFTER)
                )
            except DatabaseUnavailable:
                return None
            return self._leases.take(claim, _traced(claim, began)) if claim else None

    def _run(self, hold: Hold) -> None:
        claim = hold.claim
        CHUNKS_IN_HAND.add(1)
        failure: str | None = None
        try:
            with here(hold.span):
                self._finish(hold)
        except (Stopped, CancelledError):
            if not hold.lost:
                self._hand_back(hold)
        except TransientError as error:
            log.warning("chunk %d of %s: %s", claim.number, claim.job_id, error)
            failure = error.code
            self._try_later(hold, error)
        except Exception as error:
            log.exception("chunk %d of %s failed", claim.number, claim.job_id)
            failure = type(error).__name__
            self._try_later(hold, error)
        finally:
            CHUNKS_IN_HAND.add(-1)
            self._leases.drop(hold)
            if hold.span is not None:
                hold.span.end(error=failure)

    def _finish(self, hold: Hold) -> None:
        claim = hold.claim
        if hold.stopped:
            raise Stopped
        if claim.alone:
            hold.ran_alone = self._mark_alone(claim)
            if not hold.ran_alone:
                return
        try:
            items = self._caption(hold)
        finally:
            hold.settle()
        self._record(hold, items)

    def _record(self, hold: Hold, items: list[ItemResult]) -> None:
        hold.ending = True
        began = time.monotonic()
        counted = self._recorder.record(ChunkResult(hold.claim, items)).result()
        if hold.span is not None:
            hold.span.add("record", began, counted=counted)
        if not counted:
            log.info("chunk %d of %s was no longer this worker's", hold.claim.number, hold.claim.job_id)
            self._leases.lose(hold)

    def _mark_alone(self, claim: Claim) -> bool:
        log.warning("chunk %d of %s runs alone: it lost its worker before", claim.number, claim.job_id)
        return until_answered(self._stopping, lambda: self._services.store.chunks.mark_alone(claim))

    def _caption(self, hold: Hold) -> list[ItemResult]:
        claim = hold.claim
        try:
            options = self._serving.captioner.resolve(_decoding(claim.options))
        except InvalidOptions as error:
            return _all_failed(claim, ItemError(ItemCode.CAPTION_FAILED, f"the options do not fit: {error}"))
        results: list[ItemResult] = []
        failure: Exception | None = None
        for item, load in zip(claim.items, self._images.load(hold, options), strict=True):
            try:
                result = self._result(claim, item, load)
                if result.error is not None:
                    log.debug("image %d of %s failed: %s", item.position, claim.job_id, result.error.code)
                results.append(result)
            except (TransientError, Stopped, CancelledError) as error:
                # No image is to blame, so the whole chunk is tried again; what is under way ends early.
                failure = failure or error
                hold.stop()
        if failure is not None:
            raise failure
        return results

    def _result(self, claim: Claim, item: ClaimedItem, load: Future[Loaded]) -> ItemResult:
        try:
            loaded = load.result()
        except ItemError as error:
            return ItemResult(item.position, error=error)
        except StorageUnavailable as error:
            if not self._last_attempt(claim):
                raise
            return ItemResult(item.position, error=ItemError(ItemCode.DOWNLOAD_FAILED, error.message))
        captions: tuple[tuple[str, float], ...] = ()
        failed: ItemError | None = None
        try:
            captions = tuple((caption.text, caption.score) for caption in loaded.captions.future.result())
        except ItemError as error:
            failed = error
        name = self._serving.captioner.name
        size = (loaded.width, loaded.height)
        key = None if failed else loaded.cache_key
        return ItemResult(item.position, captions, failed, name, *size, loaded.sha256, key)

    def _last_attempt(self, claim: Claim) -> bool:
        return claim.failures + 1 >= self._services.settings.max_failures

    def _try_later(self, hold: Hold, error: Exception) -> None:
        """Release the chunk for about 1, 4, 16, 60 s, or fail its images after too many failures."""
        claim = hold.claim
        try:
            if self._last_attempt(claim):
                self._record(hold, _all_failed(claim, _final(error)))
                return
            hold.ending = True
            delay = min(LONGEST_DELAY_S, 4.0**claim.failures) * random.uniform(0.75, 1.25)  # noqa: S311
            if not until_answered(self._stopping, lambda: self._services.store.chunks.postpone(claim, delay)):
                self._leases.lose(hold)
        except (DatabaseUnavailable, Stopped) as unsaid:
            log.warning("chunk %d of %s waits for its lease to end: %s", claim.number, claim.job_id, unsaid)

    def _hand_back(self, hold: Hold) -> None:
        claim = hold.claim
        hold.ending = True
        try:
            if self._services.store.chunks.hand_back(claim):
                publish(self._services.queue, [claim.message])
        except DatabaseUnavailable as error:
            log.warning("chunk %d of %s waits for its lease to end: %s", claim.number, claim.job_id, error)


def _traced(claim: Claim, began: float) -> Traced | None:
    """Begin a chunk's span where its job's trace goes on, its claim being over."""
    span = begin(
        "chunk",
        "consumer",
        after=claim.traceparent,
        linked=claim.number >= CHUNKS_IN_TRACE,
        began=began,
        job=claim.job_id,
        chunk=claim.number,
        attempt=claim.attempt,
        images=len(claim.items),
    )
    if span is not None:
        span.add("claim", began)
    return span


def _decoding(options: CaptionOptions) -> DecodingOptions:
    return DecodingOptions(
        num_beams=options.num_beams,
        num_captions=options.num_captions,
        max_length=options.max_length,
        min_length=options.min_length,
        prompt=options.prompt,
        length_penalty=options.length_penalty,
        top_p=options.top_p,
        temperature=options.temperature,
        seed=options.seed,
    )


def _all_failed(claim: Claim, error: ItemError) -> list[ItemResult]:
    return [ItemResult(item.position, error=error) for item in claim.items]


def _final(error: Exception) -> ItemError:
    """Say a failure that did not pass as the error of each image it kept from being captioned."""
    if isinstance(error, StorageUnavailable):
        return ItemError(ItemCode.DOWNLOAD_FAILED, error.message)
    message = f"the worker failed on this image's chunk again and again: {ascii(str(error))[1:200]}"
    return ItemError(ItemCode.CAPTION_FAILED, message)
