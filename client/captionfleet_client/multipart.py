"""The body of an upload, made while it is sent: memory stays the same however many images there are."""

from __future__ import annotations

import mimetypes
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captionfleet_client.requests import Body, as_json, file_blocks, readable

UNKNOWN = "application/octet-stream"
File = Path | tuple[str, bytes]
"""A file on disk, or a name and the bytes."""
# What Python's table lacks on some systems.
_TYPES = {".avif": "image/avif", ".heic": "image/heic", ".heif": "image/heif", ".webp": "image/webp"}


@dataclass(frozen=True)
class _Part:
    head: bytes
    length: int
    blocks: Callable[[], Iterator[bytes]]


def multipart(
    field: str, value: dict[str, Any], name: str, files: Sequence[Path | tuple[str, bytes]]
) -> Body:
    """Return one ``multipart/form-data`` body: a field of JSON, then the files, one after the other.

    Raises ``UnreadableFile`` for a file that cannot be read.
    """
    boundary = secrets.token_hex(16)
    first = _head(boundary, f'name="{field}"', "application/json") + as_json(value) + b"\r\n"
    parts = [_part(boundary, name, file) for file in files]
    last = f"--{boundary}--\r\n".encode()

    def blocks() -> Iterator[bytes]:
        yield first
        for part in parts:
            yield part.head
            yield from part.blocks()
            yield b"\r\n"
        yield last

    length = len(first) + sum(len(part.head) + part.length + 2 for part in parts) + len(last)
    return Body(f"multipart/form-data; boundary={boundary}", length, blocks)


def content_type(name: str) -> str:
    """Return the type that a file's name tells, or ``application/octet-stream``."""
    suffix = Path(name).suffix.lower()
    return _TYPES.get(suffix) or mimetypes.types_map.get(suffix, UNKNOWN)


def _part(boundary: str, field: str, file: File) -> _Part:
    name = file.name if isinstance(file, Path) else file[0]
    disposition = f'name="{field}"; filename="{_escaped(name)}"'
    head = _head(boundary, disposition, content_type(name))
    if isinstance(file, Path):
        size = readable(file).st_size
        return _Part(head, size, lambda: file_blocks(file, size))
    return _Part(head, len(file[1]), lambda: iter([file[1]]))


def _head(boundary: str, disposition: str, kind: str) -> bytes:
    lines = (f"--{boundary}", f"Content-Disposition: form-data; {disposition}", f"Content-Type: {kind}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "replace")


def _escaped(name: str) -> str:
    """Escape a file name as browsers do (HTML, multipart/form-data encoding algorithm)."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
