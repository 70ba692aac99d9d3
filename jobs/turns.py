"""Work that every process is ready to do and one at a time does."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable

from jobs.errors import CaptionfleetError
from jobs.store.sweeps import SweepStore

log = logging.getLogger(__name__)

TURN_S = 15.0


class Turns:
    """Calls ``work`` every ``period_s`` seconds in a thread, while this process has the turn ``name``."""

    def __init__(self, store: SweepStore, name: str, period_s: float, work: Callable[[], None]) -> None:
        self._store = store
        self._name = name
        self._period_s = period_s
        self._work = work
        self._holder = f"{name}_{secrets.token_hex(6)}"
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def stopping(self) -> bool:
        """Whether long work should end."""
        return self._stop.is_set()

    def start(self) -> None:
        """Begin the thread."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def keep(self) -> bool:
        """Take the turn, or keep it in the midst of long work; return whether this process has it."""
        return self._store.take_turn(self._name, self._holder, TURN_S)

    def run_once(self) -> bool:
        """Work if it is this process's turn; return whether it was."""
        if not self.keep():
            return False
        self._work()
        return True

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            try:
                self.run_once()
            except CaptionfleetError as error:
                log.warning("the %s will try again: %s", self._name, error)
            except Exception:
                # This is what recovers everything else: it never ends for an error.
                log.exception("the %s failed and will try again", self._name)
