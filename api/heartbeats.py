"""Saying every few seconds that the requests that make jobs are alive, however slow their clients are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobs.errors import CaptionfleetError

log = logging.getLogger(__name__)

PERIOD_S = 5.0


class Heartbeats:
    """One thread for all requests of a process that are being received; it starts with the first."""

    def __init__(self, beat: Callable[[str], object], period_s: float = PERIOD_S) -> None:
        self._beat = beat
        self._period_s = period_s
        self._lock = threading.Lock()
        self._alive: set[str] = set()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def of(self, job_id: str) -> Iterator[None]:
        """Keep a job's reservation and upload alive inside the context."""
        with self._lock:
            self._alive.add(job_id)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._alive.discard(job_id)

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._period_s):
            with self._lock:
                alive = list(self._alive)
            for job_id in alive:
                try:
                    self._beat(job_id)
                except CaptionfleetError as error:
                    log.warning("the upload of %s could not be kept alive: %s", job_id, error)
                except Exception:
                    # One bad beat must not silence the other uploads of this process.
                    log.exception("the upload of %s could not be kept alive", job_id)
