"""What a process does beside its own work: one loop, one way to keep a lease, one way to try again."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Self

from jobs.errors import CaptionfleetError, ItemCode, RequestError, StorageUnavailable, TransientError

log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 60.0
# A minute apart: about a day.
PATIENCE = 1440


class Background:
    """Calls ``work`` in a thread, at once again where it returns true, else ``period_s`` seconds later."""

    def __init__(self, name: str, period_s: float, work: Callable[[], bool]) -> None:
        self._name = name
        self._period_s = period_s
        self._work = work
        self._stopped = threading.Event()
        self._due = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def stopping(self) -> bool:
        """Whether long work should end."""
        return self._stopped.is_set()

    def start(self) -> None:
        """Begin the thread."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Work at once: there is something to do."""
        self._due.set()

    def stop(self) -> None:
        """End the thread when the work in hand lets it."""
        self._stopped.set()
        self._due.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self.stopping:
            self._due.clear()
            if not self._works():
                self._due.wait(0 if self.stopping else self._period_s)

    def _works(self) -> bool:
        try:
            return self._work()
        except CaptionfleetError as error:
            log.warning("%s: trying again: %s", self._name, error)
        except Exception:
            # Whatever happens once, the next piece of work must not wait for a restart.
            log.exception("%s: failed in a new way; trying again", self._name)
        return False


class Heartbeat:
    """Keeps a lease in a thread for as long as the context lasts, however long a step of the work takes.

    ``renew`` prolongs the lease and returns whether it is still held.
    """

    def __init__(self, renew: Callable[[], bool], lease_s: float) -> None:
        self._renew = renew
        self._period_s = lease_s / 3
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def lost(self) -> bool:
        """Whether the work is somebody else's now, or gone."""
        return self._lost.is_set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._period_s):
            try:
                if not self._renew():
                    self._lost.set()
                    return
            except CaptionfleetError as error:
                log.warning("a lease could not be renewed: %s", error)
            except Exception:
                # Without this thread the work would be done twice at a time.
                log.exception("a lease could not be renewed")


def pause_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row before this one: a minute at most."""
    return min(LONGEST_PAUSE_S, 4.0 ** min(failures, 8)) * random.uniform(0.75, 1.25)  # noqa: S311


def final(error: Exception, failures: int, *, own: bool) -> CaptionfleetError | None:
    """Return what to end work with that failed so often before; ``None`` where it is to be tried again.

    ``own``: whether the store it reads or writes is the service's. That, the database and the broker are
    waited for without end, and a denial there is a fault of the set-up. Somebody else's storage and errors
    that nobody foresaw have a day; a definite answer ends the work at once.
    """
    impatient = failures >= PATIENCE
    if isinstance(error, TransientError):
        return error if isinstance(error, StorageUnavailable) and not own and impatient else None
    if not isinstance(error, CaptionfleetError):
        return coded(error) if impatient else None
    return None if own and error.code == ItemCode.ACCESS_DENIED else error


def coded(error: Exception) -> CaptionfleetError:
    """Return an error as clients may see it: of one that nobody foresaw, only its kind."""
    if isinstance(error, CaptionfleetError):
        return error
    message = f"unexpected {type(error).__name__}; the server's log says more"
    return RequestError("internal_error", message)
