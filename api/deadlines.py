"""By when clients must have sent what threads wait for: a byte now and then keeps no thread for ever."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

ENVIRON = "captionfleet.deadlines"
"""Under this name the server hands its deadlines to the application."""
# Below what the slowest phone sends; a block of 256 KiB then takes a minute.
SLOWEST_BYTES_PER_S = 4_096


class Deadlines:
    """The connections that are being read from, each by a thread of its own."""

    def __init__(self, silence_s: float) -> None:
        """``silence_s`` is what any client has, however little it is to send."""
        self._silence_s = silence_s
        self._until: dict[socket.socket, float] = {}

    def begin(self, connection: socket.socket, size: int = 0) -> None:
        """Give a client time to send ``size`` bytes, or the head of a request."""
        self._until[connection] = time.monotonic() + self._silence_s + size / SLOWEST_BYTES_PER_S

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

    def shut_late(self) -> None:
        """Let every thread that waits too long read an end; it can still answer."""
        now = time.monotonic()
        for connection, until in list(self._until.items()):
            if until < now:
                self.end(connection)
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
