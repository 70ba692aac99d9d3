"""The headers of a tar that strangers made, read in memory that does not grow with what they announce.

The standard library keeps all that headers hold: global ones, maps of holes, and each header of a header in
one more level of recursion; so a few compressed kilobytes become gigabytes, and a pattern that it searches
for takes hours. Of all that only a member's name and size are needed here.
(Formats: POSIX.1-2008, pax interchange; GNU tar, "Basic Tar Format".)
"""

from __future__ import annotations

import tarfile
from typing import Any

# Honest members have up to four: a global and an extended header, a long name and a long link.
MOST_HEADERS = 64
# Where a GNU header, and a block of a map of holes, say that one more block of the map follows.
_MORE_IN_HEADER = 482
_MORE_IN_MAP = 504
# The shortest record is "5 x=\n"; no length has more digits than this.
_RECORD_BYTES = 5
_LENGTH_DIGITS = 10

_EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


class Header(tarfile.TarInfo):
    """A member of a tar: its name, size and type; of holes only that there are some."""

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> Header:
        """Return the next member of an archive and lead the archive to what follows it.

        Raises ``tarfile.TarError``, ``ValueError`` and ``LookupError`` for damage.
        """
        return _next_member(tarfile)


def _next_member(archive: Any) -> Header:
    fields: dict[str, str] = {}
    for number in range(MOST_HEADERS):
        begin = archive.fileobj.tell()
        block = archive.fileobj.read(tarfile.BLOCKSIZE)
        try:
            info = Header.frombuf(block, archive.encoding, archive.errors)
        except tarfile.HeaderError as error:
            if number:
                raise tarfile.ReadError(f"no member follows a header: {error}") from None
            raise
        if info.type in (*_EXTENDED, *_LONG, tarfile.XGLTYPE):
            # The first that names the member is right, as the standard library has it.
            fields = _fields(info, archive.fileobj.read(_blocks(info.size))) | fields
            continue
        info.offset = begin
        if info.type == tarfile.GNUTYPE_SPARSE:
            _pass_over_map(archive.fileobj, block)
            info.sparse = b""
        _place(info, archive, fields)
        return info
    raise tarfile.ReadError("headers of headers without end")


def _place(info: Header, archive: Any, fields: dict[str, str]) -> None:
    """Give a member what its extended headers said, and note where its data and the next header begin."""
    info.name = fields.get("path", info.name)
    info.size = int(fields.get("size", info.size))
    if "sparse" in fields:
        info.sparse = b""
    info.offset_data = archive.offset = archive.fileobj.tell()
    if info.isreg() or info.type not in tarfile.SUPPORTED_TYPES:
        archive.offset += _blocks(info.size)


def _fields(info: Header, data: bytes) -> dict[str, str]:
    """Return what an extended header says of the member's name, size and holes."""
    if info.type in _EXTENDED:
        return _records(data[: info.size])
    # What a global header says of all members, and where links lead, is of no use.
    return {"path": _text(data.partition(b"\0")[0])} if info.type == tarfile.GNUTYPE_LONGNAME else {}


def _records(data: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at]:
        space = data.find(b" ", at, at + _LENGTH_DIGITS)
        length = int(data[at:space]) if space > 0 else 0
        end = at + length
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if length < _RECORD_BYTES or not key or not equals or data[end - 1 : end] != b"\n":
            raise tarfile.ReadError("a record of an extended header is damaged")
        if key in (b"path", b"size"):
            fields[key.decode()] = _text(value)
        elif key.startswith(b"GNU.sparse."):
            fields["sparse"] = ""
        at = end
    return fields


def _pass_over_map(file: Any, block: bytes) -> None:
    at = _MORE_IN_HEADER
    while block[at]:
        block = file.read(tarfile.BLOCKSIZE)
        at = _MORE_IN_MAP


def _blocks(size: int) -> int:
    """Return how many bytes so many take in a tar."""
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
