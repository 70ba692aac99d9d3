"""What commands print, in a terminal and elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cli.console import print_table, printable, progress

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
from cli.console import print_table, progress
with progress("captioning", 4) as advance:
    advance(2, "1 failed")
    advance(4, "")
print_table(("image", "caption"), [("[red]a.jpg\\x1b[2J", "a dog")])
"""


def _in_a_terminal(code: str) -> str:
    """Run Python code on a terminal of its own and return what that shows."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        try:
            while block := os.read(ours, 4096):
                shown.append(block)
        except OSError:
            return  # Linux says so when the other end is closed.

    reader = threading.Thread(target=read)
    reader.start()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-c", code]
    subprocess.run(command, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment, check=True, timeout=60)
    os.close(theirs)
    reader.join(10)
    os.close(ours)
    return b"".join(shown).decode()


def test_in_a_terminal() -> None:
    shown = _in_a_terminal(SCRIPT)
    assert "4/4" in shown
    assert "caption" in shown
    assert "│ [red]a.jpg\N{REPLACEMENT CHARACTER}[2J" in shown
    assert "\x1b[2J" not in shown


def test_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("captioning", 4) as advance:
        advance(2, "1 failed")
        advance(4, "1 failed")
        advance(4, "")
    with progress("sending", 2_000_000, "bytes") as advance:
        advance(2_000_000, "")
    print_table(("image", "caption"), [("a\tb.jpg", "a dog")])
    output, complaints = capsys.readouterr()
    assert output == "a\N{REPLACEMENT CHARACTER}b.jpg\ta dog\n"
    assert complaints == "captioning: 4/4 1 failed\nsending: 2.0/2.0 MB\n"


def test_names_that_would_drive_a_terminal() -> None:
    assert printable("naïve 写真.jpg") == "naïve 写真.jpg"
    assert (
        printable("\x1b]0;title\x07\u202e\n")
        == "\N{REPLACEMENT CHARACTER}]0;title" + "\N{REPLACEMENT CHARACTER}" * 3
    )
