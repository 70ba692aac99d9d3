"""A file of results that grows: whole lines only, whatever happens in between."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli import outputs
from cli.console import CommandFailed
from cli.resuming import read_lines

if TYPE_CHECKING:
    from jobs.records import Item


class ResultsFile:
    """JSON lines that are appended to; ``sources`` are the images that have one."""

    def __init__(self, path: Path) -> None:
        """Read what is there; raise ``CommandFailed`` (status 2) for another kind of file."""
        outputs.check(path)
        self._path = path
        self.sources = {item.source for item in read_lines(path)}
        self._count = len(self.sources)
        _cut_torn_line(path)

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


def _cut_torn_line(path: Path) -> None:
    """Take away the part of a line that a crash has left at the end."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content_end = file.seek(0, os.SEEK_END)
        position, block = content_end, b""
        while position and b"\n" not in block:
            position = max(0, position - 4096)
            file.seek(position)
            block = file.read(content_end - position)
        whole = position + block.rfind(b"\n") + 1
        if whole < content_end:
            file.truncate(whole)
