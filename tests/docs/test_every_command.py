"""The commands of the reference documents run, too; and no document has one that runs nowhere."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.docs.reader import ELSEWHERE, Make, commands, elsewhere, plain
from tests.pictures import jpeg_bytes

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TUTORIALS = ("index", "tutorials/sidecars", "tutorials/bucket", "tutorials/own-model", "tutorials/alt-texts")
# Of these test_tutorials.py runs the rest in the tutorials' own set-ups.
WITH_TUTORIALS = ("events", "../README")
HERE = ("command-line", "keys", "results", "sources", "webhooks")
# The same commands as a tutorial's, under other names.
OTHER_NAMES = {"training": ("chairs", "mine")}
UNREAD = {
    "deploy-aws": "needs an AWS account; tests/deploy synthesises the templates and simulates the scaling, "
    "and tests/docker runs the stack of its last part where a Docker engine is",
}
# Bytes of the photo that the direct upload announces.
ANNOUNCED = 48213


def _of(*names: str) -> set[str]:
    return {plain(command) for name in names for command in commands(DOCS / f"{name}.md")}


def _last(pattern: str, shown: str) -> str:
    found: str = re.findall(pattern, shown)[-1]
    return found


@pytest.mark.timeout(600)
def test_the_documents_of_the_command_line(reader: Make, tmp_path: Path) -> None:
    # Completion is installed for the user; compiled models stay where they are.
    kept = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    own = {"1f2e3d4c": lambda shown: _last(r"cf_live_([0-9a-f]{8})_", shown)}
    typed = reader(own, HOME=str(tmp_path), XDG_CACHE_HOME=kept)
    typed.follow(DOCS / "keys.md")
    typed.follow(DOCS / "command-line.md", known=_of(*TUTORIALS))
    assert {path.suffix for path in (tmp_path / "photos").iterdir()} == {".jpg", ".xmp"}
    assert len(list((tmp_path / "captioned").iterdir())) == 3
    assert (tmp_path / ".bash_completions/captionfleet.sh").stat().st_size > 0


@pytest.mark.timeout(600)
def test_the_documents_of_a_server(reader: Make, tmp_path: Path) -> None:
    own = {
        "'https://…'": lambda shown: _last(r'"url":"(http[^"]+)"', shown),
        "upload_…_0": lambda shown: _last(r'"id":"(upload_[^"]+)"', shown),
        "https://example.com/captions": "http://localhost:9/captions",
    }
    typed = reader(own, CAPTIONFLEET_TRUSTED_HOSTS="localhost")
    (tmp_path / "last-run").touch()
    os.utime(tmp_path / "last-run", (0, 0))
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(1).ljust(ANNOUNCED, b"\0"))
    typed.type("captionfleet serve")
    typed.type("JOB=$(captionfleet submit photos/ --wait)")
    shown = typed.follow(DOCS / "results.md", known=_of(*TUTORIALS))
    assert "event: job" in shown["curl -N localhost:8080/v1/jobs/$JOB/events"]
    assert (tmp_path / "captions.zip").stat().st_size > 0
    *_, made = typed.follow(DOCS / "sources.md").values()
    assert json.loads(made)["counts"]["total"] == 1
    shown = typed.follow(DOCS / "webhooks.md")
    assert len(shown["captionfleet webhooks secrets"].splitlines()) == 1


def _documents() -> list[str]:
    found = (path.relative_to(DOCS).with_suffix("") for path in sorted(DOCS.rglob("*.md")))
    return ["../README", *map(str, found)]


@pytest.mark.parametrize("name", _documents())
def test_every_command_runs_in_a_test_or_cannot(name: str) -> None:
    ran = _of(*TUTORIALS, *WITH_TUTORIALS, *HERE)
    theirs, ours = OTHER_NAMES.get(name, ("", ""))
    left = {command for command in _of(name) if command.replace(theirs, ours) not in ran}
    assert name in UNREAD or not {command for command in left if not elsewhere(command)}


def test_what_is_left_out_has_its_reason() -> None:
    written = _of(*_documents())
    for pattern, why in ELSEWHERE.items():
        assert why
        assert any(re.search(pattern, command) for command in written), pattern
    assert all(_of(name) for name in UNREAD)
