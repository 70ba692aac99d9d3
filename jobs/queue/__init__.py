"""Messages and the queues that carry them: a message is a hint, ids only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

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
