"""What hostile headers of archives cost, and that honest ones of every format are understood."""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable

import pytest

from jobs.archives import DETECT_BYTES, Member, detect, read_members
from jobs.errors import RequestError

MIB = 1024 * 1024
# What reading an archive may take; each archive here made the standard library take more.
MOST_MEMORY = 6 * MIB
END = bytes(2 * tarfile.BLOCKSIZE)


def read(data: bytes) -> list[Member]:
    kind = detect(data[:DETECT_BYTES])
    assert kind is not None
    return [one for one in read_members(io.BytesIO(data), kind, len(data), None, 10 * MIB) if one.path]


def header(kind: bytes, size: int = 0, name: str = "a.jpg") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def pax(kind: bytes, *records: tuple[str, str]) -> bytes:
    data = b""
    for key, value in records:
        rest = f" {key}={value}\n".encode()
        length = next(n for n in range(len(rest), len(rest) + 9) if len(str(n)) + len(rest) == n)
        data += str(length).encode() + rest
    return header(kind, len(data)) + padded(data)


def old_sparse(blocks: int, data: bytes) -> bytes:
    """A GNU sparse member whose map of holes has so many blocks of its own."""
    first = bytearray(header(tarfile.GNUTYPE_SPARSE, len(data), "holes.jpg"))
    first[482] = 1
    first[148:156] = b" " * 8
    first[148:156] = b"%06o\0 " % sum(first)
    chain = (b"%011o " % 9 * 42).ljust(504, b"\0") + b"\1"
    return bytes(first) + padded(chain) * (blocks - 1) + padded(chain[:504]) + padded(data)


def zip_of_bzip2() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.jpg", bz2.compress(bytes(16 * MIB)))
    data = bytearray(buffer.getvalue())
    # A lie about the size as well: only so much would be given out.
    for at, field in ((0, 8), (data.index(b"PK\x01\x02"), 10)):
        struct.pack_into("<H", data, at + field, zipfile.ZIP_BZIP2)
        struct.pack_into("<L", data, at + field + 14, 100)
    return bytes(data)


def map_of_holes() -> bytes:
    numbers = b"1\n" * MIB
    marks = (("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"))
    start = pax(tarfile.XHDTYPE, *marks) + header(tarfile.REGTYPE, len(numbers) + 512)
    return start + padded(b"%d\n" % (MIB // 2) + numbers)[: len(numbers) + 512]


def global_headers() -> bytes:
    groups = (b"".join(b"15 %08d=vv\n" % n for n in range(at, at + 5000)) for at in range(0, 100_000, 5000))
    return b"".join(header(tarfile.XGLTYPE, len(data)) + padded(data) for data in groups)


def headers_of_headers() -> bytes:
    return pax(tarfile.XHDTYPE, ("comment", "x" * 200_000)) * 50


BOMBS: dict[str, Callable[[], bytes]] = {
    "bzip2 in a zip": zip_of_bzip2,
    "a map of holes": lambda: gzip.compress(map_of_holes() + END),
    "an old map of holes": lambda: gzip.compress(old_sparse(12000, b"") + END),
    "global headers": lambda: gzip.compress(global_headers() + header(tarfile.REGTYPE) + END),
    "headers of headers": lambda: gzip.compress(headers_of_headers() + header(tarfile.REGTYPE) + END),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_small_archive_takes_much_memory(bomb: str) -> None:
    data = BOMBS[bomb]()
    assert len(data) < 500_000
    tracemalloc.start()
    try:
        read(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY


def test_bzip2_in_a_zip_fails_alone() -> None:
    assert [one.error and one.error.code for one in read(zip_of_bzip2())] == ["unsupported_format"]


@pytest.mark.parametrize(
    "record",
    [b"1" * 300, b"4 a=\n", b"0 a=\n", b"999 a=b\n", b"7 a=bc\0", b"6 =bc\n", b"x a=b\n", b"7 size\n"],
)
def test_a_damaged_extended_header_is_damage(record: bytes) -> None:
    # A row of digits alone made the standard library's search take time that grows with its square.
    data = header(tarfile.XHDTYPE, len(record)) + padded(record) + header(tarfile.REGTYPE) + END
    with pytest.raises(RequestError, match="damaged") as refusal:
        read(data)
    assert refusal.value.code == "invalid_request"


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_no_member_follows_is_damage(kind: bytes) -> None:
    with pytest.raises(RequestError, match="no member follows"):
        read(header(kind, 2) + padded(b"a\0" if kind == tarfile.GNUTYPE_LONGNAME else b"") + END)


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_and_data_of_every_format_are_understood(style: int) -> None:
    long = "folder/" * 12 + "n" * 90 + ".jpg"
    files = {"a.jpg": b"x" * 700, long: b"long", "Grüße/✓.jpg": b"y" * 512}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5
            tar.addfile(info, io.BytesIO(data))
    assert {one.path: one.data for one in read(buffer.getvalue())} == files


def test_the_size_of_an_extended_header_counts_and_global_ones_change_nothing() -> None:
    photo = padded(b"x" * 600)
    start = pax(tarfile.XGLTYPE, ("comment", "0123abc"), ("path", "all.jpg"))
    extended = pax(tarfile.XHDTYPE, ("size", "600"), ("path", "b.jpg"), ("mtime", "1.5"))
    data = start + extended + header(tarfile.REGTYPE, 0) + photo + header(tarfile.REGTYPE, 600) + photo + END
    assert [(one.path, len(one.data)) for one in read(data)] == [("b.jpg", 600), ("a.jpg", 600)]


@pytest.mark.parametrize(
    "records",
    [
        [("GNU.sparse.size", "9"), ("GNU.sparse.offset", "0"), ("GNU.sparse.numbytes", "9")],
        [("GNU.sparse.size", "9"), ("GNU.sparse.map", "0,9")],
        [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9")],
        [],
    ],
)
def test_members_with_holes_are_passed_over(records: list[tuple[str, str]]) -> None:
    data = padded(b"1\n0\n9\n") + padded(b"data")
    holes = pax(tarfile.XHDTYPE, *records) + header(tarfile.REGTYPE, len(data), "holes.jpg") + data
    if not records:
        holes = old_sparse(2, data)
    found = read(holes + header(tarfile.REGTYPE, 3) + padded(b"abc") + END)
    assert [(one.path, one.data) for one in found] == [("a.jpg", b"abc")]
