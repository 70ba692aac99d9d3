"""Archives of strangers: what becomes an image, what is passed over, and what hostile ones cannot do."""

from __future__ import annotations

import contextlib
import io
import random
import tarfile
import zipfile
from collections.abc import Callable

import pytest

from jobs import archives
from jobs.archives import Member, detect, read_members
from jobs.errors import RequestError
from tests.pictures import jpeg_bytes

KINDS = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz")
LIMIT = 100_000
Files = dict[str, bytes]
PHOTOS = {f"album/{n}.jpg": jpeg_bytes(n) for n in range(4)}


def pack(kind: str, files: Files) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return buffer.getvalue()
    mode = "w" if kind == "tar" else f"w:{kind.partition('.')[2]}"
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            tar.addfile(member(name, len(data)), io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, size: int = 0, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def read(data: bytes, cursor: list[int] | None = None, limit: int = LIMIT) -> list[Member]:
    kind = detect(data[: archives.DETECT_BYTES])
    assert kind is not None
    return [found for found in read_members(io.BytesIO(data), kind, len(data), cursor, limit) if found.path]


def refused(code: str, words: str, call: Callable[[], object]) -> None:
    with pytest.raises(RequestError) as refusal:
        call()
    assert refusal.value.code == code
    assert words in refusal.value.message


@pytest.mark.parametrize("kind", KINDS)
def test_images_come_in_order_and_again_from_every_cursor(kind: str) -> None:
    data = pack(kind, PHOTOS)
    assert detect(data[:512]) == kind
    found = read(data)
    assert {one.path: one.data for one in found} == PHOTOS
    assert [one.path for one in found] == list(PHOTOS)
    for number, one in enumerate(found, start=1):
        assert read(data, one.cursor) == found[number:]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_only_what_is_or_claims_to_be_an_image_is_taken(kind: str) -> None:
    photo = jpeg_bytes(0)
    inner = pack("zip", {"a.jpg": photo})
    passed_over = [
        "notes.txt",
        ".hidden.jpg",
        "__MACOSX/._a.jpg",
        "a/.thumbs/b.jpg",
        "Thumbs.db",
        "inner.zip",
    ]
    files = {name: inner if name.endswith("zip") else photo[20:] for name in passed_over}
    found = read(pack(kind, {**files, "no-suffix": photo, "torn.JPEG": b"x", "empty.png": b"", "dir/": b""}))
    assert [one.path for one in found] == ["no-suffix", "torn.JPEG", "empty.png"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("../../etc/passwd.jpg", "etc/passwd.jpg"),
        ("/absolute/a.jpg", "absolute/a.jpg"),
        ("C:\\photos\\a.jpg", "photos/a.jpg"),
        ("a/./b//../c.jpg", "a/b/c.jpg"),
        ("new\nline\x1b[31m\u202egpj.jpg", "new_line_[31m_gpj.jpg"),
        ("x" * 3000 + ".jpg", "x" * 1020 + ".jpg"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_become_plain_paths_inside(kind: str, name: str, path: str) -> None:
    assert [one.path for one in read(pack(kind, {name: b"x"}))] == [path]


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_member_fails_alone(kind: str) -> None:
    found = read(pack(kind, {"large.jpg": bytes(5000), "small.jpg": bytes(3000)}), limit=4000)
    assert [one.error and one.error.code for one in found] == ["image_too_large", None]


def test_links_and_devices_are_never_followed() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(member("link.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"))
        tar.addfile(member("hard.jpg", type=tarfile.LNKTYPE, linkname="a.jpg"))
        tar.addfile(member("device.jpg", type=tarfile.CHRTYPE))
        tar.addfile(member("a.jpg", 1), io.BytesIO(b"x"))
    assert [one.path for one in read(buffer.getvalue())] == ["a.jpg"]


def test_encrypted_and_oddly_packed_members_fail_alone() -> None:
    data = bytearray(pack("zip", {"a.jpg": b"abc", "b.jpg": b"abc", "c.jpg": b"abc"}))
    first = data.index(b"PK\x01\x02")
    data[first + 8] |= 1
    second = data.index(b"PK\x01\x02", first + 1)
    data[second + 10] = zipfile.ZIP_LZMA
    codes = [one.error and one.error.code for one in read(bytes(data))]
    assert codes == ["unsupported_format", "unsupported_format", None]


def test_a_member_whose_checksum_is_wrong_fails_alone() -> None:
    data = pack("zip", PHOTOS)
    at = data.index(b"PK\x01\x02")
    torn = data[: at + 16] + b"\0\0\0\0" + data[at + 20 :]
    codes = [one.error and one.error.code for one in read(torn)]
    assert codes == ["image_corrupt", None, None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_what_swells_like_a_bomb_is_stopped(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SWELLING_FREE_BYTES", 0)
    bomb = pack(kind, {f"{n}.jpg": bytes(LIMIT) for n in range(40)})
    words = "unpacks to more"
    if kind == "tar":
        assert len(read(bomb)) == 40
    else:
        refused("upload_too_large", words, lambda: read(bomb))
    passed_over = pack(kind, {"large.txt": bytes(40 * LIMIT), "a.jpg": b"x"})
    if kind in ("zip", "tar"):
        assert [one.path for one in read(passed_over)] == ["a.jpg"]
    else:
        refused("upload_too_large", words, lambda: read(passed_over))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_absurd_size_is_not_read_into_memory(kind: bytes) -> None:
    header = member("pax", 10**9, type=kind).tobuf()
    refused("invalid_request", "absurd size", lambda: read(header + bytes(10_000)))


def test_headers_of_headers_without_end_are_damage() -> None:
    header = member("long", 2, type=tarfile.GNUTYPE_LONGNAME).tobuf() + b"a\0".ljust(512, b"\0")
    refused("invalid_request", "damaged", lambda: read(header * 5000))


def test_a_zip_of_too_many_members_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "ZIP_ENTRIES", 3)
    refused("too_many_images", "3 members", lambda: read(pack("zip", PHOTOS)))
    monkeypatch.setattr(archives, "DIRECTORY_BYTES", 100)
    refused("invalid_request", "absurd size", lambda: read(pack("zip", PHOTOS)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_archive_is_never_taken_for_a_whole_one(kind: str) -> None:
    data = pack(kind, PHOTOS)
    # tar ends with many zero blocks of which two are needed.
    whole = len(data.rstrip(b"\0")) if kind == "tar" else len(data)
    for end in range(whole - 1, 600, -97):
        with pytest.raises(RequestError) as refusal:
            list(read_members(io.BytesIO(data[:end]), kind, end, None, LIMIT))
        assert refusal.value.code == "invalid_request"


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_always_an_error_of_ours(kind: str) -> None:
    data = pack(kind, PHOTOS)
    chance = random.Random(6)
    for _ in range(60):
        torn = bytearray(data)
        for _ in range(3):
            torn[chance.randrange(len(torn))] = chance.randrange(256)
        with contextlib.suppress(RequestError):
            list(read_members(io.BytesIO(bytes(torn)), kind, len(torn), None, LIMIT))


@pytest.mark.parametrize("head", [b"", b"PK", b"\xff\xd8\xff" + bytes(600), bytes(512), b"Rar!\x1a\x07\x00"])
def test_anything_else_is_no_archive(head: bytes) -> None:
    assert detect(head) is None
