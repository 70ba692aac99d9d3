"""Ctrl-C, SIGTERM and a closed terminal while work is under way: what is done is written first."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAID = b"captionfleet: stopping; what is done is written first (once more ends at once)\n"


class Stop:
    """Whether the command was told to end, and by which signal."""

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self.number is not None

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal: the first is noted, a second one ends the command."""
        if self.asked:
            raise KeyboardInterrupt
        self.number = number
        # Not by print(): a signal comes at any moment, also within a print. The terminal may be gone.
        with suppress(OSError):
            os.write(2, _SAID)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Note the first signal, to be looked at by the work; it takes its course when that has ended."""
    stop = Stop()
    # What is ignored stays so: `nohup`, or a shell's background job.
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop.note) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop.number is not None:
        signal.raise_signal(stop.number)
