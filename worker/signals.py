"""Signals to a process of several threads: taken by a thread, since a handler may interrupt anything."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from queue import SimpleQueue

from worker.vital import start_vital


def on_signals(numbers: Iterable[int], act: Callable[[int], None]) -> None:
    """Call ``act`` with the number of each signal that comes, one after the other, in a thread.

    A handler runs in the main thread between any two of its steps, also inside a lock that ``act`` would wait
    for, such as an event's; a second signal also inside the first one's handler. ``SimpleQueue.put`` is the
    one call of these that is documented to be safe there.
    """
    came: SimpleQueue[int] = SimpleQueue()

    def take() -> None:
        while True:
            act(came.get())

    start_vital(take, "signals")
    for number in numbers:
        signal.signal(number, lambda number, _frame: came.put(number))
