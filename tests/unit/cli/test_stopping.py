"""Signals while work is under way."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from cli.metadata import targets
from cli.places import Places
from cli.resuming import advice, find_done
from cli.stopping import stopping


def test_the_first_signal_waits_for_what_is_under_way(capfd: pytest.CaptureFixture[str]) -> None:
    log = []

    def work() -> None:
        with stopping() as stop:
            log.append(stop.asked)
            signal.raise_signal(signal.SIGINT)
            log.append(stop.asked)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert log == [False, True]
    assert capfd.readouterr().err.startswith("captionfleet: stopping; ")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_signal_does_not() -> None:
    def work() -> None:
        with stopping():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("went on")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (Places(Path("x.jsonl")), "the same command with --resume goes on"),
        (
            Places(sidecar="txt", overwrite=True),
            "the same command with --resume instead of --overwrite goes on",
        ),
        (
            Places(Path("x.csv"), "txt"),
            "a run with `-o FILE.jsonl` or --sidecar could be gone on with by --resume",
        ),
        (Places(), "a run with `-o FILE.jsonl` or --sidecar could be gone on with by --resume"),
    ],
)
def test_the_advice_works(places: Places, said: str) -> None:
    assert advice(places) == said


def test_an_image_is_done_when_all_that_is_wanted_of_it_is_there(tmp_path: Path) -> None:
    images = [tmp_path / f"{number}.jpg" for number in range(3)]
    copies = tmp_path / "copies"
    places = Places(sidecar="txt", described=targets(images, copies, in_place=False))
    copies.mkdir()
    for path in (tmp_path / "0.txt", copies / "0.jpg", tmp_path / "1.txt", copies / "2.jpg"):
        path.touch()
    assert find_done(images, places).images == {images[0]}
