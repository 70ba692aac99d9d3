"""The queue of embedded mode: lists in memory, refilled from the database by the sweep after a restart."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from threading import Condition

from jobs.queue import Message


class EmbeddedQueue:
    """A ``JobQueue`` within one process."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, deque[Message]] = defaultdict(deque)
        self._changed = Condition()

    def publish(self, messages: Sequence[Message]) -> None:
        """Append messages and wake the consumers."""
        with self._changed:
            for message in messages:
                self._waiting[message.queue].append(message)
            self._changed.notify_all()

    def take(self, queues: Sequence[str], timeout: float) -> Message | None:
        """Return the next message of the first queue that has one, or ``None`` after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: any(self._waiting[name] for name in queues), timeout)
            for name in queues:
                if self._waiting[name]:
                    return self._waiting[name].popleft()
        return None

    def depth(self, queue: str) -> int:
        """Messages waiting in a queue."""
        with self._changed:
            return len(self._waiting[queue])

    def check(self) -> None:
        """Memory is always there."""

    def close(self) -> None:
        """Nothing to let go of."""
