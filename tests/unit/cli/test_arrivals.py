"""Which files `watch` takes, and when."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli.arrivals import Arrivals
from cli.console import CommandFailed
from cli.watch import _run


class Clock:
    """Time as the test wants it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


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
    assert arrivals.settled() == []
    clock.now = 1.5
    growing.write_bytes(b"12")
    assert arrivals.settled() == []
    clock.now = 2.5
    assert arrivals.settled() == [still]
    clock.now = 3.6
    assert arrivals.settled() == [growing]
    clock.now = 100
    assert arrivals.settled() == []


class Work:
    """Photos that take a second each, and what was done in which order."""

    def __init__(self, clock: Clock, arrivals: list[list[Path]]) -> None:
        self.log: list[object] = []
        self._clock = clock
        self._arrivals = arrivals

    def settled(self) -> list[Path]:
        self.log.append("look")
        return self._arrivals.pop(0) if self._arrivals else []

    def check(self) -> None:
        if self._clock.now > 100:
            raise KeyboardInterrupt

    def run(self, images: list[Path], advance: object, stop: object) -> list[Path]:
        self._clock.now += len(images)
        return images

    def keep(self, images: list[Path], items: list[Path]) -> None:
        self.log.append(len(items))


def test_a_folder_is_looked_through_once_for_many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("cli.watch.time", clock)
    monkeypatch.setattr("cli.watch.BATCH", 10)
    photos = [Path(f"{number}.jpg") for number in range(50)]
    work = Work(clock, [photos[:45], photos[45:]])
    with pytest.raises(KeyboardInterrupt):
        _run(work, work, work, 10)
    assert work.log == ["look", 10, 10, 10, "look", 10, 10, "look", "look", "look", "look", "look", "look"]


def test_a_folder_that_goes_away(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    arrivals = Arrivals(folder, 0, lambda _: False)
    shutil.rmtree(folder)
    with pytest.raises(CommandFailed, match=r"cannot be read any more: no such file"):
        arrivals.settled()
