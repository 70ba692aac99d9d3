"""Captions written into image files: everything else in them stays as it is."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import exiv2
import numpy as np
import pytest
from PIL import Image

from cli.console import CommandFailed
from cli.describing import describe
from cli.metadata import targets, write_metadata
from tests.pictures import encode, jpeg_bytes, picture
from tests.processes import wait_until
from tests.unit.cli.test_results_file import item

TEXT = "ein Hund läuft"
KEYS = ("Exif.Image.ImageDescription", "Iptc.Application2.Caption", "Xmp.dc.description")


def descriptions(path: Path) -> list[str]:
    image = exiv2.ImageFactory.open(str(path))
    image.readMetadata()
    parts = zip(KEYS, (image.exifData(), image.iptcData(), image.xmpData()), strict=True)
    return [data[key].toString().removeprefix('lang="x-default" ') for key, data in parts if key in data]


def scan(jpeg: bytes) -> list[bytes]:
    """The segments of a JPEG without those of applications: tables, frame, and the coded pixels."""
    kept, at = [], 2
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        if not 0xE0 <= jpeg[at + 1] <= 0xEF:
            kept.append(jpeg[at:end])
        at = end
    return [*kept, jpeg[at:]]


def camera_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x010E], exif[0x0112] = "Camera", "   ", 6
    file = io.BytesIO()
    picture(5, (64, 48)).save(file, "JPEG", exif=exif, quality=91, progressive=True)
    return file.getvalue()


def test_a_jpeg_keeps_its_pixels_and_its_other_fields(tmp_path: Path) -> None:
    source, copy = tmp_path / "a.jpg", tmp_path / "copy.jpg"
    source.write_bytes(camera_jpeg())
    assert describe(source, copy, TEXT, overwrite=False) is None
    assert descriptions(copy) == [TEXT] * 3
    assert scan(copy.read_bytes()) == scan(source.read_bytes())
    assert source.read_bytes() == camera_jpeg()
    assert copy.stat().st_mtime_ns == source.stat().st_mtime_ns
    with Image.open(copy) as image:
        assert (image.getexif()[0x010F], image.getexif()[0x0112]) == ("Camera", 6)
    # A person's own words are not written over by the way.
    assert "is kept" in str(describe(copy, copy, "other", overwrite=False))
    assert descriptions(copy) == [TEXT] * 3
    assert describe(copy, copy, "other", overwrite=True) is None
    assert descriptions(copy) == ["other"] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "copy.jpg"]


@pytest.mark.parametrize(("kind", "fields"), [("PNG", 2), ("WEBP", 2), ("TIFF", 3)])
def test_other_formats_keep_their_pixels(tmp_path: Path, kind: str, fields: int) -> None:
    source, copy = tmp_path / "a", tmp_path / "b"
    source.write_bytes(encode(picture(1), kind))
    describe(source, copy, TEXT, overwrite=False)
    assert descriptions(copy) == [TEXT] * fields
    with Image.open(source) as before, Image.open(copy) as after:
        assert np.array_equal(np.asarray(before), np.asarray(after))


def test_older_fields_in_another_character_set_stay_readable(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_bytes(1))
    image = exiv2.ImageFactory.open(str(path))
    image.readMetadata()
    image.iptcData()["Iptc.Application2.City"] = "Munchen"
    image.writeMetadata()
    path.write_bytes(path.read_bytes().replace(b"Munchen", b"M\xfcnchen"))
    describe(path, path, TEXT, overwrite=False)
    assert descriptions(path) == [TEXT, TEXT]
    assert b"M\xfcnchen" in path.read_bytes()


def test_copies_stay_in_their_folder_and_off_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    images = [Path("../a/x.jpg"), Path("../here/../b/y.jpg")]
    for image in images:
        image.write_bytes(jpeg_bytes(1))
    where = targets(images, Path("out"), in_place=False)
    assert list(where.values()) == [Path("out/a/x.jpg"), Path("out/b/y.jpg")]
    (tmp_path / "a/b").mkdir()
    inner = [*images, Path("../a/b/y.jpg")]
    inner[-1].write_bytes(jpeg_bytes(2))
    with pytest.raises(CommandFailed, match=r"copy of \.\./here.* would take the place of \.\./a/b/y\.jpg"):
        targets(inner, tmp_path / "a", in_place=False)


def test_copies_lie_as_the_images_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, copies = tmp_path / "photos", tmp_path / "copies"
    (photos / "trip").mkdir(parents=True)
    images = [photos / "a.jpg", photos / "trip" / "b.jpg", photos / "c.gif", photos / "torn.jpg"]
    for image in images[:2]:
        image.write_bytes(jpeg_bytes(1))
    images[2].write_bytes(encode(picture(1), "GIF"))
    images[3].write_bytes(b"\xff\xd8\xff nothing")
    where = targets(images, copies, in_place=False)
    results = [(image, item(number)) for number, image in enumerate(images)]
    assert write_metadata(results, where, in_place=False, overwrite=False) == 2
    complaints = capsys.readouterr().err
    assert "c.gif: no description can be written: Writing to GIF images is not supported" in complaints
    assert "torn.jpg: no description can be written: " in complaints
    found = sorted(path.relative_to(copies).as_posix() for path in copies.rglob("*") if path.is_file())
    assert found == ["a.jpg", "trip/b.jpg"]
    assert descriptions(copies / "trip" / "b.jpg") == ["a dog"] * 3
    before = (copies / "a.jpg").stat().st_ino
    assert write_metadata(results[:1], where, in_place=False, overwrite=False) == 0
    assert "a.jpg exists already and is left as it is" in capsys.readouterr().err
    assert (copies / "a.jpg").stat().st_ino == before


def test_images_are_changed_only_where_that_was_asked_for(tmp_path: Path) -> None:
    real, link = tmp_path / "real.jpg", tmp_path / "link.jpg"
    real.write_bytes(jpeg_bytes(1))
    link.symlink_to(real)
    with pytest.raises(CommandFailed, match="would take its place; choose another folder, or --in-place"):
        targets([real], tmp_path, in_place=False)
    with pytest.raises(CommandFailed, match="choose one"):
        targets([real], tmp_path / "copies", in_place=True)
    assert targets([real], None, in_place=False) == {}
    where = targets([link], None, in_place=True)
    assert write_metadata([(link, item(0))], where, in_place=True, overwrite=False) == 0
    assert link.is_symlink()
    assert descriptions(real) == ["a dog"] * 3


def test_a_process_that_dies_fails_one_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [tmp_path / "endless.jpg", tmp_path / "good.jpg"]
    # Reading it waits for ever: whoever tries can only be killed.
    os.mkfifo(images[0])
    images[1].write_bytes(jpeg_bytes(1))

    def kill() -> None:
        wait_until(lambda: bool(multiprocessing.active_children()), 30, "the process")
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    where = targets(images, tmp_path / "copies", in_place=False)
    results = [(image, item(number)) for number, image in enumerate(images)]
    assert write_metadata(results, where, in_place=False, overwrite=False) == 1
    killer.join()
    assert "endless.jpg: the process that writes descriptions died of it" in capsys.readouterr().err
    assert descriptions(tmp_path / "copies" / "good.jpg") == ["a dog"] * 3
