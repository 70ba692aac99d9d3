"""Zip files written as a stream, of however many small files: what their end needs is kept on disk.

The format is PKWARE's APPNOTE.TXT 6.3.10. Python's own writer keeps about a kilobyte of memory per member.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from datetime import datetime
from tempfile import TemporaryFile
from typing import Self

# Version 4.5 knows large files; bit 11 says that names are UTF-8; members are stored as they are.
_VERSION, _FLAGS, _STORED = 45, 0x800, 0
_UNIX = 3 << 8
_READABLE = 0o100644 << 16
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LARGE_OFFSET = struct.Struct("<2HQ")
_LARGE_END = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")
_MOST_16, _MOST_32 = 0xFFFF, 0xFFFFFFFF
_BLOCK = 64 * 1024


class ZipStream:
    """One zip file; every call gives the bytes that come next."""

    def __init__(self, made_at: datetime) -> None:
        """Give every member the time ``made_at``; the format knows years from 1980 on."""
        self._time = made_at.hour << 11 | made_at.minute << 5 | made_at.second // 2
        self._date = max(0, made_at.year - 1980) << 9 | made_at.month << 5 | made_at.day
        self._directory = TemporaryFile()
        self._count = 0
        self._offset = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.close()

    def member(self, name: str, content: bytes) -> bytes:
        """Return a member; its name must be safe and new."""
        named, check, size = name.encode(), zlib.crc32(content), len(content)
        common = (_FLAGS, _STORED, self._time, self._date, check, size, size, len(named))
        head = _LOCAL.pack(b"PK\x03\x04", _VERSION, *common, 0)
        large = self._offset >= _MOST_32
        extra = _LARGE_OFFSET.pack(1, 8, self._offset) if large else b""
        offset = _MOST_32 if large else self._offset
        place = (len(extra), 0, 0, 0, _READABLE, offset)
        entry = _CENTRAL.pack(b"PK\x01\x02", _UNIX | _VERSION, _VERSION, *common, *place)
        self._directory.write(entry + named + extra)
        self._count += 1
        self._offset += len(head) + len(named) + size
        return head + named + content

    def end(self) -> Iterator[bytes]:
        """Yield the directory that makes the members findable."""
        length = self._directory.tell()
        self._directory.seek(0)
        while block := self._directory.read(_BLOCK):
            yield block
        large = self._count >= _MOST_16 or self._offset + length >= _MOST_32
        yield (self._large_end(length) if large else b"") + self._end(length)

    def _large_end(self, length: int) -> bytes:
        """Return the records for what the usual end has no room for."""
        sizes = (self._count, self._count, length, self._offset)
        record = _LARGE_END.pack(b"PK\x06\x06", 44, _UNIX | _VERSION, _VERSION, 0, 0, *sizes)
        return record + _LOCATOR.pack(b"PK\x06\x07", 0, self._offset + length, 1)

    def _end(self, length: int) -> bytes:
        count, offset = min(self._count, _MOST_16), min(self._offset, _MOST_32)
        return _END.pack(b"PK\x05\x06", 0, 0, count, count, min(length, _MOST_32), offset, 0)
