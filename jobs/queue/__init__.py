"""Messages and the queues that carry them: a message is a hint, ids only."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jobs.errors import BrokerUnavailable

log = logging.getLogger(__name__)

MESSAGE_VERSION = 1


@dataclass(frozen=True)
class Message:
    """One chunk that may be claimed."""

    queue: str
    job_id: str
    chunk: int
    version: int = MESSAGE_VERSION


def queue_name(model: str, *, fast: bool) -> str:
    """Name of the model's queue, or of the one for its small jobs, which every worker serves first."""
    return f"captionfleet.{model}.fast" if fast else f"captionfleet.{model}"


class JobQueue(Protocol):
    """Carries messages to workers; may lose, repeat or reorder them."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Send messages; raise ``BrokerUnavailable`` when the broker does not take them."""
        ...

    def depth(self, queue: str) -> int:
        """Messages waiting in a queue; raise ``BrokerUnavailable``."""
        ...

    def check(self) -> None:
        """Raise ``BrokerUnavailable`` unless the broker answers."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def publish(queue: JobQueue, messages: list[Message]) -> bool:
    """Send messages for committed work; a broker that is away costs time, never the work."""
    if not messages:
        return True
    try:
        queue.publish(messages)
    except BrokerUnavailable as error:
        log.warning("the sweep will announce %d chunks later: %s", len(messages), error)
        return False
    return True
