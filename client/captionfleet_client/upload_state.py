"""What has been sent of a direct upload, kept in a file so that an interruption costs little."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The server keeps what no job took for a day; an hour less, so that the rest has time to follow.
KEPT_S = 23 * 3600


@dataclass(frozen=True)
class LocalFile:
    """A file as it was when the upload began."""

    path: Path
    size: int
    changed_ns: int

    @property
    def mark(self) -> tuple[str, int, int]:
        """What tells that it is still the same."""
        return str(self.path.absolute()), self.size, self.changed_ns


class UploadState:
    """Ids of the files that one server has, and the key of the job they are for.

    One line of JSON for each event, appended at once: whatever ends the process, finished files count.
    """

    def __init__(self, path: Path | None, server: str) -> None:
        self.key = secrets.token_urlsafe(24)
        self._path = path
        self._ids: dict[tuple[str, int, int], str] = {}
        self._lock = threading.Lock()
        if not self._read(server):
            self._write({"server": server, "key": self.key, "began": time.time()}, "w")

    def id_of(self, file: LocalFile) -> str | None:
        """Return the id under which the server has a file."""
        return self._ids.get(file.mark)

    def sent(self, file: LocalFile, upload_id: str) -> None:
        """Remember that the server has a file."""
        with self._lock:
            self._ids[file.mark] = upload_id
            self._write({"file": file.mark, "id": upload_id}, "a")

    def forget(self) -> None:
        """Remove the file: the job is made."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _read(self, server: str) -> bool:
        """Take over what an earlier upload left, unless it went elsewhere or the server no longer has it."""
        if self._path is None or not self._path.exists():
            return False
        lines = self._lines(self._path)
        head = next(lines, {})
        if head.get("server") != server or time.time() - head.get("began", 0) > KEPT_S:
            return False
        self.key = head["key"]
        self._ids = {tuple(line["file"]): line["id"] for line in lines}
        return True

    @staticmethod
    def _lines(path: Path) -> Iterator[dict[str, Any]]:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # Empty, or cut off where the process ended.
            if isinstance(entry, dict):
                yield entry

    def _write(self, entry: dict[str, Any], mode: str) -> None:
        if self._path is not None:
            with self._path.open(mode, encoding="utf-8") as file:
                # A line begins anew even where the one before was cut off.
                file.write(f"\n{json.dumps(entry)}")
