"""examples/alt_texts.py fills in what is missing in pages, and touches nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LONG = "a dog " * 30
BEFORE = """<!doctype html>\r
<!-- <img src="dog.jpg"> --><script>const x = "<img src='dog.jpg'>";</script>
<IMG
  class=a src="img/dog.jpg?v=2#x"><img src="dog.jpg" alt=""><img alt src="dog.jpg">
<img src=dog.jpg alt='mine'>
<img src="/img/caf%C3%A9.jpg"/><img src="img/long.jpg"><img src="dog.jpg" aria-hidden="true">
<img src="https://example.org/dog.jpg"><img src="data:image/gif;base64,R0"><img src="img/twice.jpg">
<img src="img/edited.jpg"><img src="img/none.jpg"><img src="{{ photo }}">\r
"""
AFTER = (
    BEFORE.replace("<IMG\n", '<IMG alt="a &quot;brown&quot; dog &amp; a stick"\n')
    .replace('<img src="/img/caf', '<img alt="a cup &lt;i&gt;" src="/img/caf')
    .replace('<img src="img/long', f'<img alt="{"a dog " * 20}a…" src="img/long')
    .replace('<img src="img/edited', '<img alt="in a person&#x27;s words" src="img/edited')
)


def _line(name: str, caption: str | None, **changed: Any) -> str:
    given = {"name": name, "custom_id": name, "source": "upload", "edited_caption": None}
    return json.dumps({**given, "caption": caption, **changed}) + "\n"


def _fill(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [
        sys.executable,
        ROOT / "examples/alt_texts.py",
        folder / "captions.jsonl",
        folder / "site",
    ]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=True)


def test_missing_texts_are_filled_in_and_nothing_else_changes(tmp_path: Path) -> None:
    page = tmp_path / "site/index.html"
    page.parent.mkdir()
    page.write_bytes(BEFORE.encode())
    other = tmp_path / "site/old/latin.html"
    other.parent.mkdir()
    other.write_bytes('<img src="../img/dog.jpg" title="é">'.encode("latin-1"))
    (tmp_path / "captions.jsonl").write_text(
        _line("dog.jpg", 'a "brown" dog & a stick')
        + _line("x.jpg", "a cup <i>", source=(page.parent.resolve() / "img/café.jpg").as_uri())
        + _line("long.jpg", LONG, custom_id="img/long.jpg")
        + _line("edited.jpg", "wrong", edited_caption="in a person's words")
        + _line("none.jpg", None)
        + _line("twice.jpg", "one of two")
        + _line("twice.jpg", "the other one")
    )
    tried = _fill(tmp_path, "--dry-run")
    assert page.read_bytes() == BEFORE.encode()
    ran = _fill(tmp_path)
    assert ran.stdout == tried.stdout
    assert page.read_bytes() == AFTER.encode()
    assert "latin.html is not UTF-8" in ran.stderr
    missing = ("https://example.org/dog.jpg", "data:image/gif;base64,R0", "img/twice.jpg", "img/none.jpg")
    assert all(f"index.html: {address} has no caption" in ran.stderr for address in missing)
    assert sorted(tmp_path.rglob("*.part")) == []
    # What has its texts is left as it is.
    assert _fill(tmp_path).stdout == ""
