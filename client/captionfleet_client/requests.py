"""One HTTP request as a value, before any transport touches it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captionfleet_client.errors import FileChanged, InvalidArgument, UnreadableFile

BLOCK = 256 * 1024
Progress = Callable[[int, int], None]
"""Hears how many bytes, or items, of how many are done."""


@dataclass(frozen=True)
class Body:
    """Bytes to send: ``blocks()`` makes them anew for each attempt, ``length`` is their sum."""

    content_type: str
    length: int
    blocks: Callable[[], Iterator[bytes]]

    def watched(self, progress: Progress | None) -> Body:
        """Return the same body; ``progress`` hears how many bytes have been handed over."""
        if progress is None:
            return self

        def blocks() -> Iterator[bytes]:
            done = 0
            for block in self.blocks():
                yield block
                done += len(block)
                progress(done, self.length)

        return Body(self.content_type, self.length, blocks)


@dataclass(frozen=True)
class Request:
    """What is asked of the server, or, with a whole ``address``, of an object store.

    ``safe``: repeating it changes nothing. ``keyed``: the API key goes along. ``streamed``: the answer is
    too large for memory.
    """

    method: str
    address: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    safe: bool = True
    keyed: bool = True
    streamed: bool = False

    def query(self) -> dict[str, str]:
        """Return the query parameters that are given, as they are written in an address."""
        return {name: as_text(value) for name, value in self.params.items() if value is not None}


def as_text(value: Any) -> str:
    """Return a query parameter's value as text that UTF-8 can hold."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.encode("utf-8", "replace").decode()


def visible(text: str) -> bool:
    """Whether a header can carry a text as it stands."""
    return all("!" <= character <= "~" for character in text)


def as_json(value: Any) -> bytes:
    """Return a value as JSON; raise ``InvalidArgument`` for one that JSON cannot hold."""
    try:
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"this cannot be sent as JSON: {error}") from error


def json_body(value: Any) -> Body:
    """Return a body of JSON; raise ``InvalidArgument``."""
    encoded = as_json(value)
    return Body("application/json", len(encoded), lambda: iter([encoded]))


def file_body(path: Path, content_type: str) -> Body:
    """Return a body of a file; raise ``UnreadableFile``."""
    size = readable(path).st_size
    return Body(content_type, size, lambda: file_blocks(path, size))


def readable(path: Path) -> os.stat_result:
    """Return what is known of a file; raise ``UnreadableFile`` where it cannot be opened, or is no file."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UnreadableFile(f"{path} is not a file")
        path.open("rb").close()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return found


def file_blocks(path: Path, size: int) -> Iterator[bytes]:
    """Yield the first ``size`` bytes of a file; raise ``UnreadableFile`` or ``FileChanged``."""
    left = size
    try:
        with path.open("rb") as file:
            while left:
                block = file.read(min(BLOCK, left))
                if not block:
                    raise FileChanged(f"{path} became shorter while it was sent")
                left -= len(block)
                yield block
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError | ValueError) -> UnreadableFile:
    # A name with a zero byte is a ValueError of Python's.
    reason = error.strerror if isinstance(error, OSError) else None
    return UnreadableFile(f"{path} cannot be read: {(reason or str(error)).lower()}")
