"""Files of results that are gone on with: what is not ours stays as it is."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from cli import outputs
from cli.console import CommandFailed
from cli.places import Places
from cli.results_file import ResultsFile
from cli.resuming import Done, find_done, merged, read_lines, summary
from cli.watch import Record
from jobs.records import Item, ItemStatus


def item(number: int, caption: str | None = "a dog") -> Item:
    return Item(
        position=number,
        custom_id=f"{number}.jpg",
        name=f"{number}.jpg",
        source=f"file:///photos/{number}.jpg",
        status=ItemStatus.SUCCEEDED if caption else ItemStatus.FAILED,
        caption=caption,
        edited_caption=None,
        score=-0.5,
        alternatives=[],
        model="small",
        width=1,
        height=1,
        sha256=None,
        attempts=1,
        error=None,
        finished_at=None,
    )


def line(number: int) -> bytes:
    return orjson.dumps(item(number).model_dump(mode="json")) + b"\n"


@pytest.mark.parametrize("torn", [b"", b"{", line(2)[:9], line(2)[:40], line(2)[:-2]])
def test_what_a_crash_has_torn_is_done_again(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(line(0) + line(1) + torn)
    file = ResultsFile(path)
    assert len(file.sources) == 2
    file.append([item(7)])
    assert [(found.position, found.name) for found, _ in read_lines(path)] == [
        (0, "0.jpg"),
        (1, "1.jpg"),
        (2, "7.jpg"),
    ]


def test_a_whole_line_without_an_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(line(0) + line(1)[:-1])
    ResultsFile(path).append([item(2)])
    assert path.read_bytes() == line(0) + line(1) + line(2)


@pytest.mark.parametrize("foreign", [b"my notes", b'{"position":3}', b'{"a":1', line(0) + b"more", b"\n"])
def test_what_is_not_ours_is_refused_and_stays(tmp_path: Path, foreign: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(foreign)
    number = foreign.count(b"\n", 0, -1) + 1
    for use in (ResultsFile, lambda path: find_done([], Places(path))):
        with pytest.raises(CommandFailed, match=f"line {number} of .* is not a result") as caught:
            use(path)
        assert caught.value.status == 2
    assert path.read_bytes() == foreign


def test_failures_are_tried_again_and_kept_until_then(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    lines = [item(0), item(1, None)]
    path.write_bytes(b"".join(orjson.dumps(one.model_dump(mode="json")) + b"\n" for one in lines))
    done = find_done([Path("/photos/0.jpg"), Path("/photos/1.jpg")], Places(path))
    assert done.images == {Path("/photos/0.jpg")}
    assert [one.name for one in done.items] == ["0.jpg", "1.jpg"]


def test_results_of_a_server_all_stay() -> None:
    """Uploads have one source, and a job may name an object twice; of a file here the later result stays."""
    sources = ("upload", "upload", "s3://bucket/a.jpg", "s3://bucket/a.jpg")
    theirs = [item(n).model_copy(update={"source": source}) for n, source in enumerate(sources)]
    found = merged([*theirs, item(4, None), item(5)], [item(4, "a cat")])
    assert found[:4] == theirs
    assert [(one.position, one.name, one.caption) for one in found[4:]] == [
        (4, "4.jpg", "a cat"),
        (5, "5.jpg", "a dog"),
    ]
    assert summary([Path("4.jpg")], Done(frozenset(), theirs)) == (
        "0 of 1 image captioned already; 4 results of a server, which names no files here, kept as well"
    )


def test_images_that_share_a_sidecar_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = [(tmp_path / name, item(number)) for number, name in enumerate(("a.jpg", "a.png", "b.jpg"))]
    assert outputs.write_sidecars(results, "txt", overwrite=False) == 1
    assert "a.png has no sidecar: a.txt is a.jpg's" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_sidecar_that_cannot_be_written_costs_no_other_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    output = tmp_path / f"x.{kind}"
    items = [item(0), item(1), item(2)]
    # With the longer ending the name is longer than any may be; a folder that has gone takes nothing either.
    images = [tmp_path / ("n" * 251 + ".jpg"), tmp_path / "gone" / "1.jpg", tmp_path / "2.jpg"]
    assert Places(output, "json").write(list(zip(images, items, strict=True)), items) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" cannot be written: ")[2] for line in said] == [
        "file name too long",
        "no such file or directory",
    ]
    assert (tmp_path / "2.json").exists()
    assert output.read_text().count("a dog") == 3


def test_a_sidecar_that_could_not_be_written_is_not_taken_for_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that goes on with the file writes it, and from the file; those that are there stay."""
    images = [tmp_path / "gone" / "0.jpg", tmp_path / "1.jpg"]
    places = Places(tmp_path / "x.jsonl", "txt")
    items = [item(n).model_copy(update={"source": outputs.uri_of(image)}) for n, image in enumerate(images)]
    assert places.write(list(zip(images, items, strict=True)), items) == 1
    (tmp_path / "1.txt").write_text("mine")
    (tmp_path / "gone").mkdir()
    capsys.readouterr()
    done = find_done(images, places)
    assert done.images == set(images)
    assert places.write([], done.items, done.captioned) == 0
    assert (tmp_path / "gone" / "0.txt").read_text() == "a dog\n"
    assert (tmp_path / "1.txt").read_text() == "mine"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("output", [None, "x.jsonl"])
def test_watching_goes_on_past_a_sidecar_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str | None
) -> None:
    """By the file both are done; without one, the next start tries what has no sidecar."""
    images = [tmp_path / ("n" * 251 + ".jpg"), tmp_path / "1.jpg"]
    items = [item(n).model_copy(update={"source": outputs.uri_of(image)}) for n, image in enumerate(images)]
    record = Record(tmp_path / output if output else None, "json")
    assert not any(map(record.has, images))
    record.keep(images, items)
    shown = capsys.readouterr()
    assert shown.out == "0.jpg\ta dog\n1.jpg\ta dog\n"
    assert "cannot be written: file name too long" in shown.err
    assert (tmp_path / "1.json").exists()
    assert [record.has(image) for image in images] == [output is not None, True]
