"""Ends the process when one forward pass takes too long: a stuck device must not keep anybody waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from worker.vital import EXIT_STUCK, end_process, start_vital


class Watchdog:
    """Watches one thing at a time."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since: float | None = None
        self._stop = threading.Event()
        self._thread = start_vital(self._watch, "watchdog")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """End the process if the body takes longer than the limit."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._limit_s / 4)):
            since = self._since
            if since is not None and time.monotonic() - since > self._limit_s:
                end_process(f"a forward pass took longer than {self._limit_s:g} s", EXIT_STUCK)
