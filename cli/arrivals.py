"""Files that appear in a folder, once they have come to rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from cli.console import CommandFailed
from cli.files import walk

_Look = tuple[int, int]


class Arrivals:
    """Images in a folder and below that are not done yet; each is given out once.

    A file counts when its size and time of change have stayed the same for ``settle_s`` seconds: cameras,
    browsers and network shares take their time to write one.
    """

    def __init__(self, folder: Path, settle_s: float, done: Callable[[Path], bool]) -> None:
        self._folder = folder
        self._settle_s = settle_s
        self._done = done
        self._given: set[Path] = set()
        self._seen: dict[Path, tuple[_Look, float]] = {}

    def settled(self) -> list[Path]:
        """Look through the folder for images at rest; raise ``CommandFailed`` where it is gone."""
        present: dict[Path, tuple[_Look, float]] = {}
        ready: list[Path] = []
        for path in walk(self._folder, self._refuse):
            if path in self._given or self._is_done(path):
                continue
            if (look := _look(path)) is None:
                continue
            known, since = self._seen.get(path, (look, time.monotonic()))
            present[path] = (look, since if look == known else time.monotonic())
            if self._rests(*present[path]):
                ready.append(path)
        self._seen = present
        self._given.update(ready)
        return ready

    def _is_done(self, path: Path) -> bool:
        if done := self._done(path):
            self._given.add(path)
        return done

    def _rests(self, look: _Look, since: float) -> bool:
        size, _ = look
        return size > 0 and time.monotonic() - since >= self._settle_s

    def _refuse(self, error: OSError) -> None:
        # Folders below may come and go.
        if error.filename is not None and Path(error.filename) == self._folder:
            message = f"{self._folder} cannot be read any more: {(error.strerror or str(error)).lower()}"
            raise CommandFailed(message)


def _look(path: Path) -> _Look | None:
    try:
        status = path.stat()
    except OSError:
        return None  # Gone again.
    return status.st_size, status.st_mtime_ns
