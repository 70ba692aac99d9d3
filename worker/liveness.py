"""Watches that a worker consumes: one that is connected and idle while messages wait is of no use."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import BrokerUnavailable
from jobs.queue import JobQueue
from worker.vital import end_process, start_vital

log = logging.getLogger(__name__)

SILENCE_S = 20.0
PERIOD_S = 2.0


@dataclass
class _Lane:
    limit: int
    running: int = 0
    received_at: float = 0.0
    waiting_since: float | None = None
    """Since when every look found messages in the queue and a thread free for them."""


class ConsumptionWatch:
    """Ends the process when a queue has messages for 20 s, threads are free for them, and none arrives.

    After a broker's restart a consumer can be connected and never consume again; a new process does.
    """

    def __init__(self, queue: JobQueue, threads: Mapping[str, int], alive: Path | None = None) -> None:
        """Watch the named queues, each served by so many threads; touch ``alive`` while all is well."""
        self._alive = alive
        self._queue = queue
        self._lanes = {name: _Lane(limit) for name, limit in threads.items()}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def receiving(self, queue: str) -> Iterator[None]:
        """Note a message of ``queue``, and that a thread is busy with it."""
        lane = self._lanes[queue]
        with self._lock:
            lane.running += 1
            lane.received_at = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                lane.running -= 1

    def start(self) -> None:
        """Begin to watch."""
        self._thread = start_vital(self._watch, "consumption-watch")

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(PERIOD_S):
            for name, lane in self._lanes.items():
                silent = self._silent_s(name, lane)
                if silent > SILENCE_S:
                    end_process(f"messages wait in {name} and none has arrived for {silent:.0f} s")
            if self._alive is not None:
                self._alive.touch()

    def _silent_s(self, name: str, lane: _Lane) -> float:
        """Return for how long messages have been waiting in vain."""
        try:
            waits = lane.running < lane.limit and self._queue.depth(name) > 0
        except BrokerUnavailable as error:
            log.debug("%s", error)
            waits = False
        if not waits:
            lane.waiting_since = None
            return 0.0
        now = time.monotonic()
        lane.waiting_since = lane.waiting_since or now
        return now - max(lane.waiting_since, lane.received_at)
