"""Photos read when training asks for them, each time seen another way; nothing is kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.augmentation import view
from model.captioner import Pixels
from model.features import read_pixels

_VIEWS = 1 << 30


class LivePictures:
    """What ``image_cache`` returns, with pixels in place of features and views without end."""

    def __init__(self, images: Path, names: Sequence[str], size: int, *, varied: bool) -> None:
        """Take photos by name; ``varied`` draws another view each time, else all are seen plain."""
        self._images, self._names, self._size = images, names, size
        self._views = _VIEWS if varied else 1

    def __len__(self) -> int:
        return self._views

    def __getitem__(self, place: tuple[int, int]) -> Pixels:
        """Return view ``place[0]`` of photo ``place[1]``, uint8 (size, size, 3), else ``TrainingError``."""
        seen, photo = place
        name = self._names[photo]
        return view(read_pixels(self._images / name, self._size), seen, name)
