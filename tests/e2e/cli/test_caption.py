"""`captionfleet caption`: files and folders, without a server."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.e2e.cli.commands import captionfleet, command, environment
from tests.pictures import jpeg_bytes, png_bytes
from tests.processes import Process, scratch_folder, wait_until

COPIES = ("--write-metadata", "copies")
IMAGE_DESCRIPTION = 0x010E


def test_a_mixed_folder(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "trip" / ".thumbs").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(jpeg_bytes(1))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    (folder / "notes.txt").write_text("no image")
    (folder / "trip" / "B.JPEG").write_bytes(jpeg_bytes(2))
    (folder / "trip" / ".thumbs" / "B.jpg").write_bytes(jpeg_bytes(2))
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9\tx.png")).write_bytes(png_bytes(3))
    ran = captionfleet(tmp_path, "caption", "photos", "-o", "out.jsonl", "--sidecar", "txt", *COPIES)
    assert ran.status == 1, ran.complaints
    assert "photos/broken.png: " in ran.complaints
    items = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(item["custom_id"], item["status"]) for item in items] == [
        ("photos/a.jpg", "succeeded"),
        ("photos/broken.png", "failed"),
        ("photos/caf?\tx.png", "succeeded"),
        ("photos/trip/B.JPEG", "succeeded"),
    ]
    assert items[1]["error"]["code"] == "image_corrupt"
    assert items[0]["source"] == (folder / "a.jpg").as_uri()
    assert (folder / "a.txt").read_text() == items[0]["caption"] + "\n"
    assert (folder / "trip" / "B.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copies", "out.jsonl", "photos"]
    copies = [path for path in (tmp_path / "copies").rglob("*") if path.is_file()]
    assert sorted(os.fsencode(path.name) for path in copies) == [b"B.JPEG", b"a.jpg", b"caf\xe9\tx.png"]
    with Image.open(tmp_path / "copies" / "a.jpg") as copy:
        assert copy.getexif()[IMAGE_DESCRIPTION] == items[0]["caption"]


def test_named_files_whatever_their_names(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(jpeg_bytes(1))
    (tmp_path / "photo.png").write_bytes(png_bytes(2))
    (tmp_path / "photo.txt").write_text("mine")
    wanted = ("--num-beams", "3", "--num-captions", "2", "--sidecar", "txt")
    ran = captionfleet(tmp_path, "caption", "photo", "photo.png", "photo", *wanted, "-o", "x.csv")
    assert ran.status == 0, ran.complaints
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["custom_id"] for row in rows] == ["photo", "photo.png"]
    assert all(len(json.loads(row["alternatives"])) == 1 for row in rows)
    assert (tmp_path / "photo.txt").read_text() == "mine"
    assert ran.complaints.count("photo.txt exists already and is left as it is") == 2
    assert (tmp_path / "photo").read_bytes() == jpeg_bytes(1)
    written = (tmp_path / "x.csv").read_bytes()
    ran = captionfleet(tmp_path, "caption", "photo", "-o", "x.csv")
    assert ran.status == 2
    assert "x.csv is there already: --overwrite replaces it" in ran.complaints
    assert (tmp_path / "x.csv").read_bytes() == written


LIGHT = """
import sys
sys.modules |= dict.fromkeys(("boto3", "celery", "psycopg", "redis", "torch"))
from cli.main import main
main()
"""


def test_captions_in_a_pipe_without_the_packages_of_other_modes(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg_bytes(1))
    ran = subprocess.run(
        [sys.executable, "-c", LIGHT, "caption", "."],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    ((name, caption, score),) = [line.split("\t") for line in ran.stdout.splitlines()]
    assert name == "photo.jpg"
    assert caption
    assert float(score) < 0
    assert list(tmp_path.iterdir()) == [tmp_path / "photo.jpg"]


def test_ctrl_c_ends_with_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    folder = scratch_folder("many")
    for number in range(2000):
        (folder / f"{number}.jpg").symlink_to(tmp_path / "one.jpg")
    (tmp_path / "one.jpg").write_bytes(jpeg_bytes(1, (600, 400)))
    process = Process([command(), "caption", str(folder)], environment=environment(tmp_path), folder=tmp_path)
    process.start(lambda: bool(list(tmp_path.glob("captionfleet-*/captionfleet.db"))), timeout=60)
    process.send(signal.SIGINT)
    assert process.wait(40) == 130
    assert process.output.splitlines()[-1] == "captionfleet: interrupted"
    assert "Traceback" not in process.output
    wait_until(lambda: [path.name for path in tmp_path.iterdir()] == ["one.jpg"], what="a clean folder")
