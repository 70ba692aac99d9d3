"""`captionfleet watch`, and `caption --resume` and its sidecars: what is done stays done."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sqlite3
import xml.etree.ElementTree as ET
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.e2e.cli.commands import captionfleet, command, environment
from tests.pictures import jpeg_bytes
from tests.processes import Process, wait_until

DESCRIPTION = (
    ".//{http://purl.org/dc/elements/1.1/}description//*[@{http://www.w3.org/XML/1998/namespace}lang]"
)


def watching(folder: Path, *arguments: str) -> Process:
    """A process that watches the folder ``in``."""
    words = [command(), "watch", "in", "--settle", "0.2", "--interval", "0.1", *arguments]
    process = Process(words, environment=environment(folder), folder=folder)
    process.start(lambda: "watching in" in process.output, timeout=90)
    return process


def interrupt(process: Process) -> None:
    process.send(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.output.splitlines()[-1] == "captionfleet: interrupted"
    assert "Traceback" not in process.output


def sources(path: Path) -> list[str]:
    """The images of a results file; the position of each is its line."""
    items = [json.loads(line) for line in path.read_text().splitlines()]
    assert [item["position"] for item in items] == list(range(len(items)))
    return [Path(item["name"]).stem for item in items]


def test_what_appears_is_captioned_once_over_restarts(tmp_path: Path) -> None:
    folder, lines = tmp_path / "in", tmp_path / "out.jsonl"
    (folder / "sub").mkdir(parents=True)
    (folder / "old.jpg").write_bytes(jpeg_bytes(1))
    process = watching(tmp_path, "-o", "out.jsonl", "--sidecar", "txt")
    wait_until(lambda: (folder / "old.txt").exists(), 90, "the photo that was there")
    (folder / "sub" / "new.jpg").write_bytes(jpeg_bytes(2))
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff nothing")
    wait_until(lambda: lines.exists() and len(sources(lines)) == 3, 60, "the photos that came")
    interrupt(process)
    assert "torn.jpg: " in process.output
    assert (folder / "sub" / "new.txt").exists()
    # A crash has torn the last line: that photo alone is done again.
    whole = lines.read_bytes()
    lines.write_bytes(whole[:-20])
    (folder / "later.jpg").write_bytes(jpeg_bytes(3))
    process = watching(tmp_path, "-o", "out.jsonl")
    wait_until(
        lambda: "later" in sources(lines) and len(sources(lines)) == 4, 90, "the photo of the second run"
    )
    interrupt(process)
    assert sorted(sources(lines)) == ["later", "new", "old", "torn"]


def test_resume_skips_what_has_a_caption(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg_bytes(number))
    assert captionfleet(tmp_path, "caption", "0.jpg", "-o", "x.jsonl", "--sidecar", "xmp").status == 0
    packet = (tmp_path / "0.xmp").read_bytes()
    first = (tmp_path / "x.jsonl").read_text()
    caption = json.loads(first)["caption"]
    assert [element.text for element in ET.fromstring(packet).iterfind(DESCRIPTION)] == [caption]
    ran = captionfleet(tmp_path, "caption", "*.jpg", "-o", "x.jsonl", "--sidecar", "json", "--resume")
    assert ran.status == 0, ran.complaints
    assert "1 of 3 images captioned already" in ran.complaints
    assert sources(tmp_path / "x.jsonl") == ["0", "1", "2"]
    # Of the line of the first run: it is not captioned again.
    assert json.loads((tmp_path / "0.json").read_text()) == json.loads(first)
    assert json.loads((tmp_path / "2.json").read_text())["name"] == "2.jpg"
    (tmp_path / "0.json").unlink()
    again = captionfleet(tmp_path, "caption", ".", "--sidecar", "json", "--resume")
    assert "2 of 3 images captioned already" in again.complaints
    ran = captionfleet(tmp_path, "caption", "0.jpg", "-o", "x.parquet")
    assert ran.status == 0, ran.complaints
    assert pq.read_table(tmp_path / "x.parquet").column("caption").to_pylist() == [caption]


@pytest.mark.parametrize(
    ("number", "status", "words", "advice"),
    [
        (signal.SIGINT, 130, "-o x.jsonl", "the same command with --resume goes on"),
        (signal.SIGTERM, 143, "-o x.csv --sidecar txt", "a run with `-o FILE.jsonl` or --sidecar could be"),
    ],
)
def test_what_is_done_is_kept(
    tmp_path: Path, number: signal.Signals, status: int, words: str, advice: str
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (tmp_path / "one.jpg").write_bytes(jpeg_bytes(1, (600, 400)))
    for index in range(600):
        (photos / f"{index:03}.jpg").symlink_to(tmp_path / "one.jpg")
    arguments = [command(), "caption", "photos", *words.split()]
    process = Process(arguments, environment=environment(tmp_path), folder=tmp_path)
    # In the first batch: nothing is recorded yet.
    process.start(lambda: _in_hand(tmp_path) > 0, timeout=90)
    process.send(number)
    assert process.wait(60) == status
    assert "Traceback" not in process.output
    [(done, of)] = re.findall(rf"(\d+) of (\d+) images done; {advice}", process.output)
    assert of == "600"
    written = tmp_path / words.split()[1]
    count = len(written.read_text().splitlines()) - (written.suffix == ".csv")
    assert 0 < int(done) == count < 600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.jpg", "photos", written.name]
    assert len(list(photos.glob("*.txt"))) == (count if "txt" in words else 0)


def _in_hand(folder: Path) -> int:
    """Chunks that a command's worker has in hand."""
    for path in folder.glob("captionfleet-*/captionfleet.db"):
        # It may be there without its tables yet.
        with (
            contextlib.suppress(sqlite3.OperationalError),
            contextlib.closing(sqlite3.connect(path)) as database,
        ):
            found = database.execute("select count(*) from chunks where state = 'leased'").fetchone()
            return int(found[0])
    return 0
