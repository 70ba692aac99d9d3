"""Reading zip and tar archives that strangers made: one member at a time, nothing extracted to a path.

Members may lie about names and sizes: names become plain text, and what is read is counted.
"""

from __future__ import annotations

import gzip
import lzma
import struct
import tarfile
import time
import zipfile
import zlib
from bz2 import BZ2Decompressor
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from lzma import LZMADecompressor
from typing import IO, Any, Protocol, cast

from jobs.errors import ItemCode, ItemError, RequestError
from jobs.image_types import HEAD_BYTES, UNKNOWN, named_like_image, sniff
from jobs.names import clean_path
from jobs.objects.segments import SegmentedFile
from jobs.tar_headers import Header

MIB = 1024 * 1024
# Images hardly shrink in an archive; what swells more than this is no collection of them.
SWELLING = 20
SWELLING_FREE_BYTES = 1024 * MIB
# A zip's directory is read whole, and its entries take some 700 bytes of memory each.
ZIP_ENTRIES = 100_000
# The longest header that is read at once: a zip's directory; a tar's extended header is far shorter.
DIRECTORY_BYTES = 16 * MIB
HEADER_BYTES = MIB
XZ_MEMORY_BYTES = 256 * MIB
BLOCK_BYTES = 64 * 1024
STEP_BYTES = 8 * MIB
DETECT_BYTES = 512
# Skipped members say where they end at least so often.
SILENT_S = 2.0

_SYSTEM = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir"})
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    # Also what nests too deep.
    RuntimeError,
    LookupError,
    struct.error,
)
# What zipfile unpacks in steps. By other methods it unpacks all that it has read, be that gigabytes.
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Readable(Protocol):
    """A file that is read and, where it can be, moved in."""

    def read(self, size: int = -1, /) -> bytes:
        """Return so many bytes, fewer only at the end."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move."""
        ...

    def tell(self) -> int:
        """Return where the next read begins."""
        ...


@dataclass(frozen=True)
class Member:
    """An image of an archive, or why it cannot be read; ``cursor`` leads to what follows it.

    Without a path it only says how far the reading is.
    """

    path: str
    cursor: list[int]
    data: bytes = b""
    error: ItemError | None = None


def detect(head: bytes) -> str | None:
    """Return the kind of archive that begins so (zip, tar, tar.gz, tar.bz2, tar.xz), else ``None``."""
    kinds = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x1f\x8b": "tar.gz", b"BZh": "tar.bz2"}
    kinds[b"\xfd7zXZ\x00"] = "tar.xz"
    for magic, kind in kinds.items():
        if head.startswith(magic):
            return kind
    try:
        tarfile.TarInfo.frombuf(head[:DETECT_BYTES], "utf-8", "surrogateescape")
    except tarfile.TarError:
        return None
    return "tar"


def read_members(
    file: Readable, kind: str, size: int, cursor: list[int] | None, limit: int
) -> Iterator[Member]:
    """Yield the images of an archive of ``size`` bytes that follow ``cursor``, in the archive's order.

    Members of more than ``limit`` bytes and broken ones come as errors. Raises ``RequestError``
    invalid_request where the archive is damaged and upload_too_large where it swells like a bomb.
    """
    most = SWELLING * size + SWELLING_FREE_BYTES
    try:
        if kind == "zip":
            yield from _zip_members(file, cursor or [0, 0], limit, most)
        else:
            yield from _tar_members(_unpacked(file, kind), (cursor or [0])[0], limit, most)
    except _DAMAGE as error:
        raise RequestError("invalid_request", f"the archive is damaged: {error}"[:500]) from error


def _wanted(path: str) -> bool:
    """Whether a member may be an image: not hidden, not what operating systems leave in folders."""
    parts = path.lower().split("/")
    return bool(path) and not any(part.startswith(".") or part in _SYSTEM for part in parts)


def _read(path: str, member: IO[bytes], limit: int, cursor: list[int]) -> Member | None:
    """Return a member that is an image by its name or by its first bytes."""
    head = member.read(HEAD_BYTES)
    if not named_like_image(path) and sniff(head) == UNKNOWN:
        return None
    blocks, left = [head], limit + 1 - len(head)
    while left > 0 and (block := member.read(min(BLOCK_BYTES, left))):
        blocks.append(block)
        left -= len(block)
    if left <= 0:
        message = f"the image has more than {limit} bytes"
        return Member(path, cursor, error=ItemError(ItemCode.IMAGE_TOO_LARGE, message))
    return Member(path, cursor, b"".join(blocks))


class _Ticker:
    """Says when it is time to tell how far the reading is although nothing was found."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def due(self) -> bool:
        if time.monotonic() - self._since < SILENT_S:
            return False
        self._since = time.monotonic()
        return True


# Zip


def _zip_members(file: Readable, cursor: list[int], limit: int, most: int) -> Iterator[Member]:
    index, unpacked = cursor
    ticker = _Ticker()
    with zipfile.ZipFile(cast(Any, _Bounded(file, DIRECTORY_BYTES))) as archive:
        entries = archive.infolist()
        if len(entries) > ZIP_ENTRIES:
            message = f"a zip may hold {ZIP_ENTRIES} members; a tar may hold more"
            raise RequestError("too_many_images", message)
        for number in range(index, len(entries)):
            # What is announced is what can be unpacked at most: zipfile stops there.
            after = [number + 1, unpacked + min(entries[number].file_size, limit + 1)]
            member = _zip_member(archive, entries[number], limit, after)
            if member is not None:
                unpacked = after[1]
                _refuse_swelling(unpacked, most)
                yield member
            elif ticker.due():
                yield Member("", [number + 1, unpacked])


def _zip_member(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int, cursor: list[int]
) -> Member | None:
    path = clean_path(entry.filename)
    if entry.is_dir() or not _wanted(path):
        return None
    if entry.flag_bits & 0x1 or entry.compress_type not in _ZIP_METHODS:
        reason = "encrypted" if entry.flag_bits & 0x1 else "packed by a method that is not read"
        error = ItemError(ItemCode.UNSUPPORTED_FORMAT, f"the member of the archive is {reason}")
        return Member(path, cursor, error=error) if named_like_image(path) else None
    try:
        with archive.open(entry) as member:
            return _read(path, member, limit, cursor)
    except _DAMAGE as error:
        if not named_like_image(path):
            return None
        message = f"the member of the archive is damaged: {error}"[:500]
        return Member(path, cursor, error=ItemError(ItemCode.IMAGE_CORRUPT, message))


class _Bounded:
    """A file of which nobody reads more at once than an honest header needs."""

    def __init__(self, file: Readable, most: int) -> None:
        self._file = file
        self._most = most
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes; raise ``RequestError`` for more than an honest header has."""
        if size > self._most:
            raise _absurd()
        data = self._file.read(self._most + 1 if size < 0 else size)
        if len(data) > self._most:
            raise _absurd()
        return data

    def seekable(self) -> bool:
        """Whether it can be read in any order: yes."""
        return True


# Tar


def _tar_members(stream: Readable, offset: int, limit: int, most: int) -> Iterator[Member]:
    forward = _Forward(stream, most, jumps=isinstance(stream, SegmentedFile))
    ticker = _Ticker()
    # What is compressed can only be unpacked from its beginning on.
    while (at := forward.tell()) < offset and forward.seek(forward.step(offset)) > at:
        if ticker.due():
            yield Member("", [offset])
    # Any: the types of the standard library know neither what was read first nor the list of members.
    archive: Any = tarfile.TarFile(fileobj=cast(Any, forward), tarinfo=Header)
    info, archive.firstmember = archive.firstmember, None
    while info is not None:
        # tarfile remembers every member it ever met.
        archive.members.clear()
        cursor = [archive.offset]
        member = _tar_member(archive, info, limit, cursor)
        if member is not None:
            yield member
        elif ticker.due():
            yield Member("", cursor)
        info = archive.next()
    if forward.last.strip(b"\0") or len(forward.last) != tarfile.BLOCKSIZE:
        raise RequestError("invalid_request", "the archive is cut off or damaged: its end mark is missing")
    # Behind the end there is padding, and the checksum of what was compressed.
    while forward.read(HEADER_BYTES):
        pass


def _tar_member(
    archive: tarfile.TarFile, info: tarfile.TarInfo, limit: int, cursor: list[int]
) -> Member | None:
    path = clean_path(info.name)
    # Links and devices are never followed, holes never filled.
    if not info.isreg() or info.issparse() or not _wanted(path):
        return None
    member = archive.extractfile(info)
    assert member is not None
    return _read(path, member, limit, cursor)


class _Forward:
    """A stream that is only read on; what is passed over counts as unpacked too."""

    def __init__(self, stream: Readable, most: int, *, jumps: bool) -> None:
        self._stream = stream
        self._most = most
        self._jumps = jumps
        self._at = 0
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer only at the end; raise ``RequestError`` for absurd sizes."""
        if size < 0 or size > HEADER_BYTES:
            raise _absurd()
        blocks, left = [], size
        while left and (block := self._stream.read(left)):
            blocks.append(block)
            left -= len(block)
        self.last = b"".join(blocks)
        self._at += len(self.last)
        _refuse_swelling(self._at, self._most)
        return self.last

    def step(self, offset: int) -> int:
        """Return how far to go towards an offset at once."""
        return offset if self._jumps else min(offset, self._at + STEP_BYTES)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Pass over bytes."""
        if whence or offset < self._at:
            raise tarfile.StreamError("members overlap")
        if self._jumps:
            self._at = self._stream.seek(offset)
        while self._at < offset and self.read(min(offset - self._at, HEADER_BYTES)):
            pass
        return self._at

    def tell(self) -> int:
        """Return how much was read."""
        return self._at

    def seekable(self) -> bool:
        """Whether it can be moved in: forward."""
        return True


def _unpacked(file: Readable, kind: str) -> Readable:
    match kind:
        case "tar.gz":
            return cast(Readable, gzip.GzipFile(fileobj=cast(Any, file)))
        case "tar.bz2":
            return _Unpacked(file, BZ2Decompressor)
        case "tar.xz":
            return _Unpacked(file, lambda: LZMADecompressor(memlimit=XZ_MEMORY_BYTES))
    return file


class _Unpacked:
    """The bytes of one or more compressed streams, one after the other."""

    def __init__(self, file: Readable, new: Callable[[], BZ2Decompressor | LZMADecompressor]) -> None:
        self._file = file
        self._new = new
        self._stream = new()

    def read(self, size: int = -1) -> bytes:
        """Return some bytes, none at the end."""
        while True:
            block = b""
            if self._stream.eof:
                block = self._stream.unused_data or self._file.read(BLOCK_BYTES)
                if not block:
                    return b""
                self._stream = self._new()
            elif self._stream.needs_input:
                block = self._file.read(BLOCK_BYTES)
                if not block:
                    raise EOFError("it ends in the middle")
            if data := self._stream.decompress(block, size):
                return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Refuse: who reads it passes over bytes by reading them."""
        raise tarfile.StreamError("a compressed stream is only read on")

    def tell(self) -> int:
        """Refuse likewise."""
        raise tarfile.StreamError("a compressed stream is only read on")


def _absurd() -> RequestError:
    return RequestError("invalid_request", "the archive has a header of absurd size")


def _refuse_swelling(unpacked: int, most: int) -> None:
    if unpacked > most:
        message = f"the archive unpacks to more than {most} bytes, far more than images do"
        raise RequestError("upload_too_large", message)
