"""Zip files as streams, beyond what the format's first version had room for."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path

from jobs.zips import ZipStream

NOW = datetime(2026, 11, 23, 12, 34, 56, tzinfo=UTC)


def test_more_members_than_sixteen_bits_count() -> None:
    with ZipStream(NOW) as stream:
        blocks = [stream.member(f"ä/{n}.txt", b"%d" % n) for n in range(66_000)]
        blocks += stream.end()
    with zipfile.ZipFile(io.BytesIO(b"".join(blocks))) as zipped:
        members = zipped.infolist()
        assert len(members) == 66_000
        assert [zipped.read(f"ä/{n}.txt") for n in (0, 65_999)] == [b"0", b"65999"]
        assert members[7].date_time == (2026, 11, 23, 12, 34, 56)


def test_members_beyond_four_gigabytes_and_none_at_all(tmp_path: Path) -> None:
    # A hole in the file stands for the members before.
    with (tmp_path / "large.zip").open("wb+") as file, ZipStream(NOW) as stream:
        stream._offset = 5 * 2**30
        file.seek(stream._offset)
        for block in (stream.member("a.txt", b"here"), *stream.end()):
            file.write(block)
        with zipfile.ZipFile(file) as zipped:
            assert zipped.read("a.txt") == b"here"
    with ZipStream(NOW) as stream, zipfile.ZipFile(io.BytesIO(b"".join(stream.end()))) as zipped:
        assert zipped.namelist() == []
