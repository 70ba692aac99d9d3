"""Jobs whose images are found in the background: sources name items slice by slice, workers start at once.

What is left to do is one row; a slice of items, its chunks and the row's new cursor are written in one
transaction. Whoever holds the row's lease goes on from the cursor: a crash neither loses nor doubles items.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jobs.errors import CaptionfleetError, ItemCode, ItemError, RequestError, TransientError
from jobs.objects import ObjectStore, source_prefix
from jobs.queue import JobQueue, publish
from jobs.store import Store
from jobs.store.bulk import NewItem
from jobs.store.expansions import Cursor, Expansion

log = logging.getLogger(__name__)

LEASE_S = 30.0
PERIOD_S = 2.0
# After so many slices another job's turn comes.
TURN_SLICES = 20
MAX_FAILURES = 6
LONGEST_DELAY_S = 60.0


@dataclass(frozen=True)
class Slice:
    """Some of a job's items, in order, and where to go on after them.

    ``cursor`` is any JSON value; ``last`` says that nothing follows (a source may also simply end).
    """

    items: Sequence[NewItem]
    cursor: Any
    last: bool = False


class ExpansionSource(Protocol):
    """Names the items of one kind of job."""

    def slices(self, expansion: Expansion) -> Iterator[Slice]:
        """Yield what follows ``expansion.cursor`` (``None``: all), at least a slice every ten seconds.

        Items are numbered from ``expansion.position`` on. After a crash, the same cursor leads to the same
        items again. Raises ``TransientError`` to be called again later, any other ``CaptionfleetError`` where
        nothing more can be read: the job goes on with what there is and says why in ``error``.
        """
        ...


class Expander:
    """One process's part in expanding jobs: a thread that takes up what is due."""

    def __init__(
        self,
        store: Store,
        objects: ObjectStore,
        queue: JobQueue,
        sources: Mapping[str, ExpansionSource],
        max_images: int,
    ) -> None:
        self._store = store
        self._objects = objects
        self._queue = queue
        self._sources = sources
        self._max_images = max_images
        self._holder = f"expander_{secrets.token_hex(6)}"
        self._stopped = threading.Event()
        self._due = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Expand in a thread whatever any process left to be expanded."""
        self._thread = threading.Thread(target=self._run, name="expand", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look at once: this process has just made a job."""
        self._due.set()

    def stop(self) -> None:
        """End the thread after the slice in hand."""
        self._stopped.set()
        self._due.set()
        if self._thread is not None:
            self._thread.join()

    def run_once(self) -> bool:
        """Take up one job for a while; return whether there was one."""
        expansion = self._store.expansions.claim(self._holder, LEASE_S)
        if expansion is None:
            return False
        left = self._take_turn(expansion)
        if left is not None:
            self._store.expansions.release(left)
        return True

    def _take_turn(self, expansion: Expansion) -> Expansion | None:
        """Write some slices; return what is left for another turn, if it is this process's to give back."""
        slices = self._sources[expansion.kind].slices(expansion)
        for _ in range(TURN_SLICES):
            failure = None
            try:
                found = next(slices, _NOTHING)
            except CaptionfleetError as error:
                if self._try_later(expansion, error):
                    return None
                found, failure = _NOTHING, error
            except Exception as error:
                log.exception("preparing %s failed", expansion.job_id)
                failure = ItemError(ItemCode.DOWNLOAD_FAILED, f"unexpected {type(error).__name__}")
                if self._try_later(expansion, failure, transient=True):
                    return None
                found = _NOTHING
            left = self._write(expansion, found, failure)
            if left is None:
                return None
            expansion = left
            if self._stopped.is_set():
                break
        return expansion

    def _write(
        self, expansion: Expansion, found: Slice, failure: CaptionfleetError | None
    ) -> Expansion | None:
        """Commit a slice and announce its chunks; return what is left to do, if it is still ours."""
        room = self._max_images - expansion.position
        if len(found.items) > room:
            failure = RequestError("too_many_images", f"a job holds at most {self._max_images} images")
            found = Slice(found.items[:room], None, last=True)
        written = self._store.expansions.write(
            expansion, found.items, None if found.last else Cursor(found.cursor), failure, LEASE_S
        )
        publish(self._queue, written.messages)
        if written.ended:
            self._clean(expansion.job_id)
        return written.left

    def _try_later(self, expansion: Expansion, error: CaptionfleetError, *, transient: bool = False) -> bool:
        """Postpone a job whose source does not answer; false where it is to end with what there is."""
        if not (transient or isinstance(error, TransientError)) or expansion.failures + 1 >= MAX_FAILURES:
            return False
        log.warning("preparing %s goes on later: %s", expansion.job_id, error)
        self._store.expansions.postpone(expansion, min(LONGEST_DELAY_S, 4.0**expansion.failures))
        return True

    def _clean(self, job_id: str) -> None:
        try:
            self._objects.delete_prefix(source_prefix(job_id))
        except TransientError as error:
            log.warning("what %s was prepared from goes when the job goes: %s", job_id, error)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._due.clear()
            try:
                worked = self.run_once()
            except CaptionfleetError as error:
                log.warning("jobs that are being prepared wait: %s", error)
                worked = False
            except Exception:
                # Jobs of other sources must not wait for one that fails in a new way.
                log.exception("a job could not be prepared")
                worked = False
            if not worked:
                self._due.wait(PERIOD_S)


_NOTHING = Slice((), None, last=True)
