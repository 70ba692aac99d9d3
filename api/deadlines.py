"""By when clients must have sent or taken what threads wait for: a byte now and then keeps none for ever."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable, Iterator

ENVIRON = "captionfleet.deadlines"
"""Under this name the server hands its deadlines to the application."""
# Below what the slowest phone sends and takes; a block of 256 KiB then takes a minute.
SLOWEST_BYTES_PER_S = 4_096
# A time limit of zero would make a socket one that never waits.
SHORTEST_S = 0.001


class Deadlines:
    """The connections that are being read from, each by a thread of its own."""

    def __init__(self, silence_s: float) -> None:
        """``silence_s`` is what any client has, however little it is to send."""
        self._silence_s = silence_s
        self._until: dict[socket.socket, float] = {}

    def begin(self, connection: socket.socket, size: int = 0) -> None:
        """Give a client time to send ``size`` bytes, or the head of a request."""
        self._until[connection] = time.monotonic() + self._seconds_for(size)

    def end(self, connection: socket.socket) -> None:
        """Note that it has sent them, or given up."""
        self._until.pop(connection, None)

    @contextlib.contextmanager
    def reading(self, connection: socket.socket, size: int) -> Iterator[None]:
        """Hold a client to its time while up to ``size`` bytes are read."""
        self.begin(connection, size)
        try:
            yield
        finally:
            self.end(connection)

    def writing(self, connection: socket.socket, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield an answer's blocks, each to be sent before the next; sending to a slow client times out.

        The whole answer is held to the least speed: what each block alone may take adds up to hours. Only
        the time in which the client is waited for counts, not that in which a block is made.
        """
        size, spent = 0, 0.0
        for block in blocks:
            size += len(block)
            left = min(self._seconds_for(len(block)), self._seconds_for(size) - spent)
            connection.settimeout(max(SHORTEST_S, left))
            began = time.monotonic()
            yield block
            spent += time.monotonic() - began
            connection.settimeout(self._silence_s)

    def shut_late(self) -> None:
        """Let every thread that waits too long read an end; it can still answer."""
        now = time.monotonic()
        for connection, until in list(self._until.items()):
            if until < now:
                self.end(connection)
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)

    def _seconds_for(self, size: int) -> float:
        return self._silence_s + size / SLOWEST_BYTES_PER_S
