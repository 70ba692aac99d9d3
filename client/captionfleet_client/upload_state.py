"""What has been sent of a direct upload, kept in a file so that an interruption costs little."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captionfleet_client.errors import UnusableState

# The server keeps what no job took for a day; an hour less, so that the rest has time to follow.
KEPT_S = 23 * 3600
# How the file begins; what begins otherwise is not ours, and stays as it is.
MARK = b'\n{"server": '


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
        """Take over what an earlier upload left; raise ``UnusableState``."""
        self.key = secrets.token_urlsafe(24)
        self._path = path
        self._ids: dict[tuple[str, int, int], str] = {}
        self._lock = threading.Lock()
        if not self._read(server):
            self._write({"server": server, "key": self.key, "began": time.time()}, "wb")

    def id_of(self, file: LocalFile) -> str | None:
        """Return the id under which the server has a file."""
        return self._ids.get(file.mark)

    def sent(self, file: LocalFile, upload_id: str) -> None:
        """Remember that the server has a file."""
        with self._lock:
            self._ids[file.mark] = upload_id
            self._write({"file": file.mark, "id": upload_id}, "ab")

    def forget(self) -> None:
        """Remove the file: the job is made."""
        if self._path is not None:
            # One that cannot be removed leads to the same job again, and an error would hide that it is made.
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _read(self, server: str) -> bool:
        """Take over the file, unless its upload went elsewhere or the server no longer has it."""
        entries = self._entries()
        head = next(entries, {})
        key, began = head.get("key"), head.get("began")
        if head.get("server") != server or not isinstance(key, str) or not isinstance(began, int | float):
            return False
        if time.time() - began > KEPT_S:
            return False
        self.key = key
        for entry in entries:
            with contextlib.suppress(KeyError, TypeError):  # Not whole: the file is sent again.
                self._ids[tuple(entry["file"])] = str(entry["id"])
        return True

    def _entries(self) -> Iterator[dict[str, Any]]:
        if self._path is None:
            return
        try:
            with self._path.open("rb") as file:
                begin = file.read(len(MARK))
                if begin not in (MARK, b""):
                    raise UnusableState(f"{self._path} remembers no upload; name a file that is not there")
                text = (begin + file.read()).decode(errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from error
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # Empty, or cut off where the process ended.
            if isinstance(entry, dict):
                yield entry

    def _write(self, entry: dict[str, Any], mode: str) -> None:
        if self._path is None:
            return
        try:
            with self._path.open(mode) as file:
                # A line begins anew even where the one before was cut off.
                file.write(f"\n{json.dumps(entry)}".encode())
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> UnusableState:
        reason = (error.strerror or str(error)).lower()
        return UnusableState(f"{self._path} cannot remember the upload: {reason}")
