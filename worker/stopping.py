"""How work in hand ends early, and how it waits while the database is away."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import TypeVar

from jobs.errors import DatabaseUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


class Stopped(Exception):
    """The work in hand was stopped; there is no result."""


def until_answered(stopping: threading.Event, ask: Callable[[], T]) -> T:
    """Call ``ask`` until the database answers; once ``stopping`` is set, its failure is raised."""
    pause = FIRST_PAUSE_S
    while True:
        try:
            return ask()
        except DatabaseUnavailable as error:
            if stopping.wait(pause * random.uniform(0.5, 1.0)):  # noqa: S311
                raise
            log.warning("trying again: %s", error)
            pause = min(2 * pause, LONGEST_PAUSE_S)
