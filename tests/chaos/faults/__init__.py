"""Every fault there is: a small object that is injected into a cluster at work and over when it returns."""

from __future__ import annotations

import random
from typing import Protocol

from tests.chaos.cluster import FaultyCluster


class Fault(Protocol):
    """Something that goes wrong; ``inject`` returns when it is over; ``Missed`` if it never was."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        ...

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        """Do it, for real, in the middle of a running job."""
        ...


def all_faults() -> list[Fault]:
    """Return every fault, by what it strikes."""
    from tests.chaos.faults import database, images, queue, storage, workers

    return [*workers.FAULTS, *queue.FAULTS, *database.FAULTS, *storage.FAULTS, *images.FAULTS]
