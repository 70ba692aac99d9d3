"""The body of an upload, made while it is sent: memory stays the same however many images there are."""

from __future__ import annotations

import json
import mimetypes
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.console import CommandFailed, usage_error

BLOCK = 256 * 1024
Sent = Callable[[int], None]
# What Python's table lacks on some systems.
_TYPES = {".avif": "image/avif", ".heic": "image/heic", ".heif": "image/heif", ".webp": "image/webp"}


@dataclass(frozen=True)
class _Part:
    head: bytes
    path: Path
    size: int


class MultipartUpload:
    """One ``multipart/form-data`` request: the job, then the files, one after the other."""

    def __init__(self, job: dict[str, Any], files: Sequence[Path], name: str = "images") -> None:
        """Look at every file; raise ``CommandFailed`` for one that cannot be read."""
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._first = _head(boundary, 'name="job"', "application/json") + json.dumps(job).encode() + b"\r\n"
        self._parts = [_part(boundary, name, path) for path in files]
        self._last = f"--{boundary}--\r\n".encode()
        images_length = sum(len(part.head) + part.size + 2 for part in self._parts)
        self.length = len(self._first) + images_length + len(self._last)

    def body(self, sent: Sent = lambda _: None) -> Iterator[bytes]:
        """Yield the body anew; ``sent`` hears how many bytes have been handed over."""
        done = 0
        for block in self._blocks():
            yield block
            done += len(block)
            sent(done)

    def _blocks(self) -> Iterator[bytes]:
        yield self._first
        for part in self._parts:
            yield part.head
            yield from _content(part)
            yield b"\r\n"
        yield self._last


def _part(boundary: str, name: str, path: Path) -> _Part:
    try:
        with path.open("rb"):
            size = path.stat().st_size
    except OSError as error:
        raise usage_error(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    suffix = path.suffix.lower()
    kind = _TYPES.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream")
    return _Part(_head(boundary, f'name="{name}"; filename="{_escaped(path.name)}"', kind), path, size)


def _head(boundary: str, disposition: str, content_type: str) -> bytes:
    lines = (
        f"--{boundary}",
        f"Content-Disposition: form-data; {disposition}",
        f"Content-Type: {content_type}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "replace")


def _escaped(name: str) -> str:
    """Escape a file name as browsers do (HTML, multipart/form-data encoding algorithm)."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _content(part: _Part) -> Iterator[bytes]:
    left = part.size
    with part.path.open("rb") as file:
        while left:
            block = file.read(min(BLOCK, left))
            if not block:
                raise CommandFailed(f"{part.path} became shorter while it was sent")
            left -= len(block)
            yield block
