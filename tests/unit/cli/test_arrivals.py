"""Which files `watch` takes, and when."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli.arrivals import Arrivals
from cli.console import CommandFailed


class Clock:
    """Time as the test wants it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("cli.arrivals.time", clock)
    return clock


def test_a_file_is_taken_once_when_it_has_come_to_rest(tmp_path: Path, clock: Clock) -> None:
    arrivals = Arrivals(tmp_path, 2, lambda path: path.name == "done.jpg")
    (tmp_path / "sub").mkdir()
    for name in ("done.jpg", "notes.txt", ".hidden.jpg", "empty.jpg"):
        (tmp_path / name).touch()
    growing, still = tmp_path / "sub" / "growing.jpg", tmp_path / "still.jpg"
    growing.write_bytes(b"1")
    still.write_bytes(b"1")
    assert arrivals.settled(9) == []
    clock.now = 1.5
    growing.write_bytes(b"12")
    assert arrivals.settled(9) == []
    clock.now = 2.5
    assert arrivals.settled(9) == [still]
    clock.now = 3.6
    assert arrivals.settled(9) == [growing]
    clock.now = 100
    assert arrivals.settled(9) == []


def test_no_more_are_taken_than_asked_for(tmp_path: Path, clock: Clock) -> None:
    images = [tmp_path / f"{n}.jpg" for n in range(5)]
    for image in images:
        image.write_bytes(b"x")
    arrivals = Arrivals(tmp_path, 0, lambda _: False)
    assert [arrivals.settled(2) for _ in range(4)] == [images[:2], images[2:4], images[4:], []]


def test_a_folder_that_goes_away(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    arrivals = Arrivals(folder, 0, lambda _: False)
    shutil.rmtree(folder)
    with pytest.raises(CommandFailed, match=r"cannot be read any more: no such file"):
        arrivals.settled(9)
