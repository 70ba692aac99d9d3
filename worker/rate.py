"""How fast a worker is while it has something to do."""

from __future__ import annotations

import math

MEMORY_S = 60.0


class Rate:
    """Images per second over about the last minute of busy time."""

    def __init__(self) -> None:
        self._images = 0.0
        self._seconds = 0.0

    def add(self, images: int, seconds: float) -> None:
        """Count images that took ``seconds`` of busy time."""
        fade = math.exp(-seconds / MEMORY_S)
        self._images = self._images * fade + images
        self._seconds = self._seconds * fade + seconds

    @property
    def images_per_second(self) -> float | None:
        """The rate, or ``None`` before anything was measured."""
        return self._images / self._seconds if self._seconds else None
