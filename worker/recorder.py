"""Writes finished chunks, those that finish close together in one transaction, and sends what it released."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from jobs.errors import DatabaseUnavailable, RowsLocked
from jobs.metrics import FAILURES, IMAGES, STAGE_PLACES, STAGE_SECONDS
from jobs.queue import JobQueue, Message, publish
from jobs.store.chunks import ChunkResult, ChunkStore, Recorded
from worker.stopping import Stopped, until_answered
from worker.vital import start_vital

log = logging.getLogger(__name__)

# A busy worker records at most this often, so that many workers can share one job's row.
PERIOD_S = 0.25


@dataclass(eq=False)
class _Waiting:
    result: ChunkResult
    future: Future[bool] = field(default_factory=Future)


class Recorder:
    """One thread that records.

    Results are kept until the database takes them or refuses them; ``close`` gives up the rest, whose leases
    then end.
    """

    def __init__(self, chunks: ChunkStore, queue: JobQueue, in_hand: Callable[[], int]) -> None:
        self._chunks = chunks
        self._queue = queue
        self._in_hand = in_hand
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._last = float("-inf")
        # A broker that does not answer must not hold up the next recording.
        self._announcer = ThreadPoolExecutor(1, thread_name_prefix="announce")
        STAGE_PLACES.add(1, "record")
        self._thread = start_vital(self._run, "recorder")

    def record(self, result: ChunkResult) -> Future[bool]:
        """Queue a chunk's result.

        The future says whether it counted (false: the chunk had been lost) and raises ``Stopped`` where the
        recorder closed before.
        """
        waiting = _Waiting(result)
        with self._changed:
            if self._closing.is_set():
                waiting.future.set_exception(Stopped())
            else:
                self._waiting.append(waiting)
                self._changed.notify()
        return waiting.future

    def close(self) -> None:
        """Try what is left once more, then end; messages are sent before this returns."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        self._thread.join()
        self._announcer.shutdown()
        STAGE_PLACES.add(-1, "record")

    def _run(self) -> None:
        while batch := self._next():
            began = time.monotonic()
            self._write(batch)
            STAGE_SECONDS.add(time.monotonic() - began, "record")

    def _next(self) -> list[_Waiting]:
        """Wait for results to write; empty when closed and done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            while self._waiting and not self._urgent():
                rest = self._last + PERIOD_S - time.monotonic()
                if rest <= 0:
                    break
                self._changed.wait(rest)
            batch, self._waiting = self._waiting, []
            return batch

    def _urgent(self) -> bool:
        """Whether these results are waited for: by a small job, a chunk run alone, or every chunk in hand."""
        small = any(waiting.result.claim.fast or waiting.result.claim.alone for waiting in self._waiting)
        return small or self._closing.is_set() or len(self._waiting) >= self._in_hand()

    def _write(self, batch: list[_Waiting]) -> None:
        try:
            recorded = until_answered(self._closing, lambda: self._record(batch))
        except DatabaseUnavailable as error:
            _fail(batch, error)
        except Exception as error:
            self._write_apart(batch, error)
        else:
            if isinstance(recorded, RowsLocked):
                self._write_by_job(batch, recorded)
                return
            self._last = time.monotonic()
            self._settle(batch, recorded)

    def _record(self, batch: list[_Waiting]) -> Recorded | RowsLocked:
        try:
            return self._chunks.record([waiting.result for waiting in batch])
        except RowsLocked as error:
            return error

    def _write_by_job(self, batch: list[_Waiting], error: RowsLocked) -> None:
        """Keep a job that somebody else has locked from holding up the others; it comes again later."""
        jobs: defaultdict[str, list[_Waiting]] = defaultdict(list)
        for waiting in batch:
            jobs[waiting.result.claim.job_id].append(waiting)
        if len(jobs) > 1:
            for part in jobs.values():
                self._write(part)
        elif self._closing.is_set():
            _fail(batch, error)
        else:
            log.warning("trying again: %s: %s", *jobs, error)
            with self._changed:
                self._waiting = batch + self._waiting

    def _write_apart(self, batch: list[_Waiting], error: Exception) -> None:
        """Keep a result that the database refuses from spoiling the others."""
        if len(batch) == 1:
            _fail(batch, error)
            return
        log.error("recording %d chunks together failed: %r", len(batch), error)
        for waiting in batch:
            self._write([waiting])

    def _settle(self, batch: list[_Waiting], recorded: Recorded) -> None:
        if recorded.messages:
            self._announcer.submit(self._announce, recorded.messages)
        closed = {(claim.job_id, claim.number) for claim in recorded.closed}
        for waiting in batch:
            claim = waiting.result.claim
            counted = (claim.job_id, claim.number) in closed
            if counted:
                _count(waiting.result)
            waiting.future.set_result(counted)

    def _announce(self, messages: list[Message]) -> None:
        try:
            publish(self._queue, messages)
        except Exception:
            log.exception("the sweep will announce %d chunks later", len(messages))


def _count(result: ChunkResult) -> None:
    codes = Counter(item.error.code for item in result.items if item.error is not None)
    IMAGES.add(len(result.items) - codes.total(), "succeeded")
    IMAGES.add(codes.total(), "failed")
    for code, images in codes.items():
        FAILURES.add(images, code)


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for waiting in batch:
        waiting.future.set_exception(error)
