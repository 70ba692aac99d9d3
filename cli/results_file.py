"""A file of results that grows: whole lines only, whatever happens in between."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli import outputs
from cli.console import CommandFailed, usage_error
from cli.resuming import read_lines

if TYPE_CHECKING:
    from jobs.records import Item


class ResultsFile:
    """JSON lines that are appended to; ``sources`` are the images that have one."""

    def __init__(self, path: Path) -> None:
        """Read what is there; raise ``CommandFailed`` (status 2) for another kind of file."""
        outputs.check(path, grows=True)
        self._path = path
        self.sources: set[str] = set()
        self._count = end = 0
        for item, line_end in read_lines(path):
            self.sources.add(item.source)
            self._count, end = self._count + 1, line_end
        _mend_end(path, end)

    def append(self, items: Sequence[Item]) -> None:
        """Add results, on the disk when this returns; positions go on from those in the file."""
        from jobs.results import jsonl

        numbered = [item.model_copy(update={"position": self._count + n}) for n, item in enumerate(items)]
        try:
            with self._path.open("ab") as file:
                file.write(b"".join(jsonl([[item.model_dump(mode="json") for item in numbered]])))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CommandFailed(f"{self._path} cannot be written: {error.strerror}") from error
        self._count += len(items)
        self.sources.update(item.source for item in items)


def _mend_end(path: Path, end: int) -> None:
    """Take away the part of a line that a crash has left after ``end``, and end the line before it."""
    try:
        with path.open("rb+") as file:
            file.truncate(end)
            file.seek(max(0, end - 1))
            if file.read(1) not in (b"", b"\n"):
                file.write(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise usage_error(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error
