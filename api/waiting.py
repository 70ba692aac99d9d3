"""Requests that wait for a job to change: one thread reads all watched jobs in one query."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from jobs.errors import CaptionfleetError

log = logging.getLogger(__name__)

PAUSE_S = 0.2
# A young wait is probably for a single photo: look more often.
YOUNG_S = 2.0
YOUNG_PAUSE_S = 0.05


@dataclass(eq=False)
class _Watch:
    job_id: str
    version: int
    since: float
    changed: threading.Event = field(default_factory=threading.Event)


class JobWatch:
    """At most ``places`` threads wait at once, for one change or for many."""

    def __init__(self, versions: Callable[[Collection[str]], dict[str, int]], places: int) -> None:
        self._versions = versions
        self._places = threading.Semaphore(places)
        self._wanted = threading.Condition()
        self._watches: set[_Watch] = set()
        self._stopped = False
        self._thread: threading.Thread | None = None

    @property
    def stopped(self) -> bool:
        """Whether nobody shall wait any more."""
        return self._stopped

    def wait(self, job_id: str, version: int, seconds: float) -> bool:
        """Return when the job's version is another one (true), or after ``seconds``, or without a place."""
        place = self.take_place()
        if place is None:
            return False
        try:
            return place.wait(job_id, version, seconds)
        finally:
            place.leave()

    def take_place(self) -> Place | None:
        """Return a place to wait in, to be left at the end, or ``None`` where all are taken."""
        if self._stopped or not self._places.acquire(blocking=False):
            return None
        return Place(self)

    def stop(self) -> None:
        """Let every waiting request answer now; safe to call from a signal handler."""
        self._stopped = True
        for watch in tuple(self._watches):
            watch.changed.set()

    def await_change(self, watch: _Watch, seconds: float) -> bool:
        """Wait in a place that was taken; see ``wait``."""
        try:
            self._add(watch)
            return watch.changed.wait(seconds) and not self._stopped
        finally:
            with self._wanted:
                self._watches.discard(watch)

    def release(self) -> None:
        """Give one place back."""
        self._places.release()

    def _add(self, watch: _Watch) -> None:
        with self._wanted:
            self._watches.add(watch)
            if self._stopped:
                watch.changed.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="job-watch", daemon=True)
                self._thread.start()
            self._wanted.notify()

    def _run(self) -> None:
        while not self._stopped:
            with self._wanted:
                self._wanted.wait_for(lambda: self._watches or self._stopped)
                watches = list(self._watches)
            try:
                self._look(watches)
            except CaptionfleetError as error:
                log.warning("waiting requests see no changes for now: %s", error)
            except Exception:
                # Waiting requests end by their own time limit; the next ones shall have a thread again.
                log.exception("waiting requests see no changes for now")
            youngest = max((watch.since for watch in watches), default=0.0)
            time.sleep(YOUNG_PAUSE_S if time.monotonic() - youngest < YOUNG_S else PAUSE_S)

    def _look(self, watches: list[_Watch]) -> None:
        versions = self._versions({watch.job_id for watch in watches})
        for watch in watches:
            if versions.get(watch.job_id) != watch.version:
                watch.changed.set()


class Place:
    """One thread's right to wait, as often as it likes."""

    def __init__(self, watch: JobWatch) -> None:
        self._watch = watch
        self._since = time.monotonic()
        self._left = False

    def wait(self, job_id: str, version: int, seconds: float) -> bool:
        """Return when the job's version is another one (true), or after ``seconds``."""
        return self._watch.await_change(_Watch(job_id, version, self._since), seconds)

    def leave(self) -> None:
        """Give the place back; the second time does nothing."""
        if not self._left:
            self._left = True
            self._watch.release()
