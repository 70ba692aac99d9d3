"""Work that every process is ready to do and one at a time does."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod

from jobs.background import Background
from jobs.store.sweeps import SweepStore

TURN_S = 15.0


class Turns(Background, ABC):
    """Does its ``act`` every ``period_s`` seconds in a thread, while this process has the turn ``name``."""

    def __init__(self, store: SweepStore, name: str, period_s: float) -> None:
        super().__init__(name, period_s, self._round)
        self._sweeps = store
        self._holder = f"{name}_{secrets.token_hex(6)}"

    @abstractmethod
    def act(self) -> None:
        """Do what is to be done in one turn."""

    def keep(self) -> bool:
        """Take the turn, or keep it in the midst of long work; return whether this process has it."""
        return self._sweeps.take_turn(self._name, self._holder, TURN_S)

    def run_once(self) -> bool:
        """Act if it is this process's turn; return whether it was."""
        if not self.keep():
            return False
        self.act()
        return True

    def _round(self) -> bool:
        self.run_once()
        return False
