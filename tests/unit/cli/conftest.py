"""Commands run within the test's own process: quick, for what needs no process of its own."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.endings import ending
from cli.main import app
from jobs.logs import CHATTY
from tests.e2e.cli.commands import Ran

Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run `captionfleet` with its arguments and, as keywords, settings; in an empty folder without others."""
    for name in os.environ:
        if name.startswith(("CAPTIONFLEET_", "DATABASE_URL", "REDIS_URL", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in CHATTY}

    def run(*arguments: object, **settings: str) -> Ran:
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            words = [str(argument) for argument in arguments]
            status = ending(lambda: app(words, prog_name="captionfleet", standalone_mode=False))
            _await_loading()
        output, complaints = capfd.readouterr()
        return Ran(status, output, complaints)

    yield run
    root.handlers[:], root.level = handlers, level
    # What a command does for its own process's speed is not to stay in this one.
    gc.unfreeze()
    gc.enable()
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def _await_loading() -> None:
    """Wait, as a process does at its end, for a model that a refused command had begun to load."""
    for thread in threading.enumerate():
        if thread.name.startswith("load-model"):
            thread.join()
