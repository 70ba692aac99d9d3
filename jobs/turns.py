"""Work that every process is ready to do and one at a time does."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from jobs.background import Background
from jobs.store.sweeps import SweepStore

TURN_S = 15.0


class Turns:
    """Calls ``work`` every ``period_s`` seconds in a thread, while this process has the turn ``name``."""

    def __init__(self, store: SweepStore, name: str, period_s: float, work: Callable[[], None]) -> None:
        self._store = store
        self._name = name
        self._work = work
        self._holder = f"{name}_{secrets.token_hex(6)}"
        self._loop = Background(name, period_s, self._round)

    @property
    def stopping(self) -> bool:
        """Whether long work should end."""
        return self._loop.stopping

    def start(self) -> None:
        """Begin the thread."""
        self._loop.start()

    def stop(self) -> None:
        """End the thread."""
        self._loop.stop()

    def keep(self) -> bool:
        """Take the turn, or keep it in the midst of long work; return whether this process has it."""
        return self._store.take_turn(self._name, self._holder, TURN_S)

    def run_once(self) -> bool:
        """Work if it is this process's turn; return whether it was."""
        if not self.keep():
            return False
        self._work()
        return True

    def _round(self) -> bool:
        self.run_once()
        return False
