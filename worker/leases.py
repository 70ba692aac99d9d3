"""The chunks a process has in hand, and the heartbeat that keeps them its own."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

from jobs.errors import DatabaseUnavailable
from jobs.store import Store
from jobs.store.chunks import Claim
from jobs.store.workers import Worker
from jobs.tracing import Traced
from worker.vital import start_vital

log = logging.getLogger(__name__)

T = TypeVar("T")

PERIOD_S = 10.0
RETRY_S = 1.0
# The register hears at once of a rate that moved by so much: jobs are cut and ETAs made by it.
RATE_MOVED = 1.25


class Wanted(Generic[T]):
    """A future that several runs may wait for; it is canceled when the last of them has stopped."""

    def __init__(self, future: Future[T]) -> None:
        self.future = future
        self._lock = threading.Lock()
        self._by: set[Hold] = set()

    def by(self, hold: Hold) -> bool:
        """Note that a run waits for it; false if it is canceled already."""
        with self._lock:
            self._by.add(hold)
            return not self.future.cancelled()

    def no_more_by(self, hold: Hold) -> None:
        """Note that a run has stopped."""
        with self._lock:
            self._by.discard(hold)
            if not self._by:
                self.future.cancel()


class Hold:
    """One chunk in hand; ``stop`` makes its run end early."""

    def __init__(self, claim: Claim, span: Traced | None = None) -> None:
        self.claim = claim
        self.span = span
        """What the parts of the run are traced under; ``None`` while tracing is off."""
        self.lost = False
        """The chunk is no longer this worker's: canceled, deleted, or its lease went to another one."""
        self.ending = False
        """The chunk is being recorded, postponed or handed back; the answer says whether it was lost."""
        self.ran_alone = False
        """The database knows that nothing else runs in this process: a lost lease counts as a death."""
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._wants: list[Wanted[Any]] = []

    @property
    def stopped(self) -> bool:
        """Whether the run should end without a result."""
        return self._stopped.is_set()

    def wait(self, seconds: float) -> bool:
        """Pause; return early, and true, when stopped."""
        return self._stopped.wait(seconds)

    def want(self, wanted: Wanted[Any]) -> bool:
        """Wait for a future until the run is stopped; false if all others have given it up already."""
        if not wanted.by(self):
            return False
        with self._lock:
            self._wants.append(wanted)
        if self.stopped:
            wanted.no_more_by(self)
        return True

    def stop(self) -> None:
        """Make the run end as soon as it can."""
        self._stopped.set()
        for wanted in self._copy():
            wanted.no_more_by(self)

    def settle(self) -> None:
        """Wait until nothing of the run is being worked on."""
        for wanted in self._copy():
            with suppress(CancelledError):
                wanted.future.exception()

    def _copy(self) -> list[Wanted[Any]]:
        with self._lock:
            return list(self._wants)


class Leases:
    """Renews the leases of all chunks in hand with one statement, and says that this worker is alive.

    Only chunks in hand are renewed: one that was claimed in a transaction whose outcome got lost must expire.
    """

    def __init__(
        self, store: Store, worker: Worker, lease_s: float, rate: Callable[[], float | None]
    ) -> None:
        self._store = store
        self._worker = worker
        self._lease_s = lease_s
        self._rate = rate
        self._lock = threading.Condition()
        self._holds: dict[tuple[str, int, int], Hold] = {}
        self._claims = 0
        self._blamed: list[Claim] = []
        self._registered_rate: float | None = None
        self._closed = False
        self._due = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin the heartbeat."""
        self._thread = start_vital(self._beat, "leases")

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """Count a claim that is under way as in hand: it may bring a chunk at any moment."""
        with self._lock:
            self._claims += 1
        try:
            yield
        finally:
            with self._lock:
                self._claims -= 1
                self._lock.notify_all()

    def take(self, claim: Claim, span: Traced | None = None) -> Hold:
        """Count a chunk as in hand."""
        hold = Hold(claim, span)
        with self._lock:
            self._holds[_key(claim)] = hold
        return hold

    def drop(self, hold: Hold) -> None:
        """Count a chunk as in hand no more."""
        with self._lock:
            self._holds.pop(_key(hold.claim), None)
            self._lock.notify_all()
        if _moved(self._registered_rate, self._rate()):
            self._due.set()

    def lose(self, hold: Hold) -> None:
        """Note that a chunk is no longer this worker's, so that its images do not stay blamed for that.

        Cut off, frozen or starved for longer than a lease, but no image's victim.
        """
        with self._lock:
            if hold.lost:
                return
            hold.lost = True
            # One that was to run alone and did not yet got a suspicion more, which changes nothing for it.
            if hold.ran_alone or not hold.claim.alone:
                self._blamed.append(hold.claim)
        hold.stop()
        self._due.set()

    def in_hand(self) -> list[Hold]:
        """Return the chunks in hand."""
        with self._lock:
            return list(self._holds.values())

    def wait_empty(self, seconds: float, unless: Callable[[], bool] = lambda: False) -> bool:
        """Wait until nothing is in hand, and no claim under way, ``unless`` something; return whether so."""
        with self._lock:
            self._lock.wait_for(lambda: self._empty() or unless(), seconds)
            return self._empty()

    def look_again(self) -> None:
        """Let ``wait_empty`` ask again whether it is to go on."""
        with self._lock:
            self._lock.notify_all()

    def _empty(self) -> bool:
        return not self._holds and not self._claims

    def renew(self) -> None:
        """Renew all leases in hand; chunks that are not this worker's any more are stopped."""
        with self._lock:
            holds = dict(self._holds)
        claims = [hold.claim for hold in holds.values()]
        kept = self._store.chunks.renew(self._worker.id, self._lease_s, claims)
        for key, hold in holds.items():
            if key not in kept and not hold.ending:
                self.lose(hold)
        self._absolve()

    def _absolve(self) -> None:
        """Say that no image is to blame; what the database does not hear is said again."""
        with self._lock:
            blamed = self._blamed[:]
        if blamed:
            self._store.chunks.absolve(blamed)
            with self._lock:
                del self._blamed[: len(blamed)]

    def close(self) -> None:
        """End the heartbeat and leave the register of workers."""
        self._closed = True
        self._due.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self._absolve()
            self._store.workers.leave(self._worker.id)
        except DatabaseUnavailable as error:
            log.warning("this worker stays in the register until it ages out: %s", error)

    def _beat(self) -> None:
        while not self._closed:
            self._due.clear()
            try:
                self.renew()
                rate = self._rate()
                self._store.workers.see(dataclasses.replace(self._worker, images_per_second=rate))
                self._registered_rate = rate
                pause = min(PERIOD_S, self._lease_s / 3)
            except DatabaseUnavailable as error:
                log.warning("leases cannot be renewed: %s", error)
                pause = RETRY_S
            except Exception:
                log.exception("leases cannot be renewed")
                pause = RETRY_S
            if not self._closed:
                self._due.wait(pause)


def _moved(before: float | None, now: float | None) -> bool:
    if now is None:
        return False
    return before is None or not before / RATE_MOVED <= now <= before * RATE_MOVED


def _key(claim: Claim) -> tuple[str, int, int]:
    return claim.job_id, claim.number, claim.attempt
