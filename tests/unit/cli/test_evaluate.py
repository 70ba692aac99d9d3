"""`captionfleet evaluate`: what is scored is shown, whatever becomes of the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model import scores
from model.evaluation import Evaluation
from tests.pictures import jpeg_bytes
from tests.unit.cli.conftest import Run


@pytest.fixture
def scored(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """Arguments that score a results file; without Java, which takes seconds."""
    monkeypatch.setattr(scores, "find_java", lambda: None)
    (tmp_path / "photo.jpg").write_bytes(jpeg_bytes(1))
    (tmp_path / "list.csv").write_text("image,split,caption\nphoto.jpg,dev,a red wall in the sun\n")
    line = {"name": "photo.jpg", "caption": "a red wall in the sun"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(line) + "\n")
    return ("evaluate", "--results", "mine.jsonl", "--images", ".", "--captions", "list.csv")


def test_a_page_that_fails_at_the_end_costs_no_figures(
    run: Run, tmp_path: Path, scored: tuple[object, ...]
) -> None:
    # What trying does not tell: the link can be replaced, and what it leads to cannot be opened.
    (tmp_path / "page.html").symlink_to(tmp_path / "gone" / "page.html")
    ran = run(*scored, "-o", "x.json", "--page", "page.html")
    assert ran.status == 1
    assert "error: the page page.html cannot be written: No such file or directory" in ran.complaints
    assert "BLEU-4\t1.0\n" in ran.output
    assert json.loads((tmp_path / "x.json").read_text())["captions"] == {"photo.jpg": "a red wall in the sun"}


def test_a_file_that_fails_at_the_end_costs_no_figures(
    run: Run, tmp_path: Path, scored: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "x"
    folder.mkdir()

    def as_json(_: Evaluation) -> dict[str, object]:
        folder.rmdir()
        return {}

    monkeypatch.setattr(Evaluation, "as_json", as_json)
    ran = run(*scored, "-o", "x/x.json")
    assert ran.status == 1
    assert "error: x/x.json cannot be written: no such file or directory" in ran.complaints
    assert "BLEU-4\t1.0\n" in ran.output
