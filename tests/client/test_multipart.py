"""The upload body: what a server reads of it, its length, its memory."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from multipart import MultipartParser, parse_options_header  # type: ignore[import-untyped]

from captionfleet_client import FileChanged, UnreadableFile
from captionfleet_client.multipart import multipart
from captionfleet_client.requests import Body


def _upload(job: dict[str, Any], paths: list[Path]) -> Body:
    return multipart("job", job, "images", paths)


def test_what_a_server_reads(tmp_path: Path) -> None:
    names = ["plain.jpg", 'quoted "naïve" 写真.heic', "line\nbreak.PNG", "none"]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes([number]) * 300_000 * number)
    upload = _upload({"options": {"num_beams": 3}}, [tmp_path / name for name in names])
    sent: list[int] = []
    body = b"".join(upload.watched(lambda done, _: sent.append(done)).blocks())
    assert len(body) == upload.length == sent[-1]
    assert sent == sorted(sent)
    assert body == b"".join(upload.blocks())

    _, options = parse_options_header(upload.content_type)
    job, *images = MultipartParser(io.BytesIO(body), options["boundary"]).parts()
    assert (job.name, json.loads(job.value)) == ("job", {"options": {"num_beams": 3}})
    assert [(part.name, part.content_type, part.size) for part in images] == [
        ("images", "image/jpeg", 0),
        ("images", "image/heic", 300_000),
        ("images", "image/png", 600_000),
        ("images", "application/octet-stream", 900_000),
    ]
    filenames = [part.filename for part in images]
    for part in images:
        part.close()
    assert filenames == ["plain.jpg", 'quoted "naïve" 写真.heic', "line\nbreak.PNG", "none"]


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(200_000_000)
    upload = _upload({}, [tmp_path / "large.jpg"])
    tracemalloc.start()
    try:
        assert sum(map(len, upload.blocks())) == upload.length
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_file_that_shrinks_while_it_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"x" * 1000)
    upload = _upload({}, [path])
    path.write_bytes(b"x" * 900)
    with pytest.raises(FileChanged, match="became shorter while it was sent"):
        list(upload.blocks())


def test_a_file_that_grows_is_sent_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"x" * 1000)
    upload = _upload({}, [path])
    path.write_bytes(b"x" * 2000)
    assert len(b"".join(upload.blocks())) == upload.length


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"gone.jpg cannot be read: no such file"):
        _upload({}, [tmp_path / "gone.jpg"])
