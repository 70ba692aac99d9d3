"""Jobs whose images are found in the background: sources name items slice by slice, workers start at once.

What is left to do is one row; a slice of items, its chunks and the row's new cursor are written in one
transaction. Whoever holds the row's lease goes on from the cursor: a crash neither loses nor doubles items.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jobs.background import Background, Heartbeat, final, pause_s
from jobs.errors import CaptionfleetError, RequestError
from jobs.limits import images_per_job
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
# So many processes in a row, each a lease after the other, died before the next slice: it is what kills them.
MOST_DEATHS = 10


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

    @property
    def own(self) -> bool:
        """Whether it reads what the service itself has stored, which is waited for without end."""
        ...

    def slices(self, expansion: Expansion) -> Iterator[Slice]:
        """Yield what follows ``expansion.cursor`` (``None``: all), at least a slice every ten seconds.

        Items are numbered from ``expansion.position`` on. After a crash, the same cursor leads to the same
        items again. A slice without items that leaves the cursor where it was says that the way there is
        long. Raises ``TransientError`` to be called again later, any other ``CaptionfleetError`` where
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
        self._loop = Background("expand", PERIOD_S, self.run_once)

    def start(self) -> None:
        """Expand in a thread whatever any process left to be expanded."""
        self._loop.start()

    def wake(self) -> None:
        """Look at once: this process has just made a job."""
        self._loop.wake()

    def stop(self) -> None:
        """End the thread after the slice in hand."""
        self._loop.stop()

    def run_once(self) -> bool:
        """Take up one job for a while; return whether there was one."""
        # What a newer version knows to read is left to it.
        expansion = self._store.expansions.claim(self._holder, LEASE_S, self._sources.keys())
        if expansion is None:
            return False
        with Heartbeat(lambda: self._keep(expansion), LEASE_S) as lease:
            left = self._take_turn(expansion, lease)
        if left is not None:
            self._store.expansions.release(left)
        return True

    def _keep(self, expansion: Expansion) -> bool:
        return self._store.expansions.keep(expansion.job_id, self._holder, LEASE_S)

    def _take_turn(self, expansion: Expansion, lease: Heartbeat) -> Expansion | None:
        """Write some slices; return what is left for another turn, if it is this process's to give back."""
        if expansion.deaths >= MOST_DEATHS:
            message = f"{expansion.deaths} processes in a row died while they prepared the rest of this job"
            return self._write(expansion, _NOTHING, RequestError("internal_error", message))
        turn = _Turn()
        slices = self._sources[expansion.kind].slices(expansion)
        while not (turn.over or lease.lost or self._loop.stopping):
            try:
                found = next(slices, _NOTHING)
                left = self._write(expansion, found, None) if turn.moves(expansion, found) else expansion
            except Exception as error:
                # Whoever has it by now is not to be held up.
                if not lease.lost:
                    self._fail(expansion, error)
                return None
            if left is None:
                return None
            expansion = left
        return None if lease.lost else expansion

    def _write(
        self, expansion: Expansion, found: Slice, failure: CaptionfleetError | None
    ) -> Expansion | None:
        """Commit a slice and announce its chunks; return what is left to do, if it is still ours."""
        most = images_per_job(self._max_images, expansion.limits)
        room = most - expansion.position
        if len(found.items) > room:
            failure = RequestError("too_many_images", f"a job holds at most {most} images")
            found = Slice(found.items[:room], None, last=True)
        written = self._store.expansions.write(
            expansion, found.items, None if found.last else Cursor(found.cursor), failure, LEASE_S
        )
        publish(self._queue, written.messages)
        if written.ended:
            self._clean(expansion.job_id)
        return written.left

    def _fail(self, expansion: Expansion, error: Exception) -> None:
        """Postpone a job whose slice could not be had or written, or end it with what there is."""
        end = final(error, expansion.failures, own=self._sources[expansion.kind].own)
        if end is not None:
            self._write(expansion, _NOTHING, end)
            return
        foreseen = isinstance(error, CaptionfleetError)
        log.warning("preparing %s goes on later: %s", expansion.job_id, error, exc_info=not foreseen)
        self._store.expansions.postpone(expansion, pause_s(expansion.failures))

    def _clean(self, job_id: str) -> None:
        try:
            self._objects.delete_prefix(source_prefix(job_id))
        except CaptionfleetError as error:
            log.warning("what %s was prepared from goes when the job goes: %s", job_id, error)


class _Turn:
    """How long one job is prepared until the next one's turn comes."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._way_s = 0.0
        self._slices = 0

    @property
    def over(self) -> bool:
        """Whether enough was written: at least as long as the way to the cursor took, which is gone again."""
        if self._slices < TURN_SLICES:
            return False
        return time.monotonic() - self._begun >= 2 * self._way_s

    def moves(self, expansion: Expansion, found: Slice) -> bool:
        """Whether there is something to write; else the source is still on its way to the cursor."""
        if found.items or found.last or found.cursor != expansion.cursor:
            self._slices += 1
            return True
        self._way_s = time.monotonic() - self._begun
        return False


_NOTHING = Slice((), None, last=True)
