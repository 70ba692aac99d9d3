"""Logs: ids on every line, JSON for machines, text for people, and no secrets."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.logs import forget_ids, note_ids, set_up_logs, working_on
from jobs.settings import Settings

DISTRIBUTED = {"redis_url": "redis://x/0", "database_url": "postgresql://x/y", "bucket": "b-1"}
log = logging.getLogger("tests.logs")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    forget_ids()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    forget_ids()


def _lines(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, **settings: Any) -> io.StringIO:
    monkeypatch.setattr(sys, "stderr", stream)
    set_up_logs(Settings(**settings))
    return stream


def test_every_line_is_a_json_object_with_the_ids_of_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _lines(monkeypatch, io.StringIO(), **DISTRIBUTED)
    with working_on(job="job_1", chunk=3):
        log.info("two\nlines, %s", "ünïcode")
        with working_on(request="req_1"):
            log.warning("inner", extra={"fields": {"status": 200}})
        elsewhere = threading.Thread(target=lambda: log.info("another thread"))
        elsewhere.start()
        elsewhere.join()
        try:
            raise ValueError("bad")
        except ValueError:
            log.exception("failed")
    log.info("outside")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == [
        *("two\nlines, ünïcode", "inner", "another thread", "failed", "outside")
    ]
    ids = [(line.get("request"), line.get("job"), line.get("chunk")) for line in lines]
    chunk = (None, "job_1", 3)
    assert ids == [chunk, ("req_1", "job_1", 3), (None, None, None), chunk, (None, None, None)]
    assert lines[1]["status"] == 200
    assert lines[1]["level"] == "warning"
    assert lines[3]["exception"].endswith("ValueError: bad")


def test_people_read_text_with_the_ids_that_the_message_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _lines(monkeypatch, io.StringIO())
    note_ids(job="job_1", chunk=3)
    log.info("chunk of job_1")
    forget_ids()
    log.info("nothing")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("INFO    tests.logs: chunk of job_1  [chunk=3]")
    assert second.endswith("tests.logs: nothing")


@pytest.mark.parametrize(
    ("settings", "terminal", "json_lines"),
    [
        ({}, False, False),
        (DISTRIBUTED, True, False),
        (DISTRIBUTED, False, True),
        ({"log_format": "json"}, True, True),
        ({**DISTRIBUTED, "log_format": "text"}, False, False),
    ],
)
def test_the_format_fits_who_reads(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], terminal: bool, json_lines: bool
) -> None:
    stream = _lines(monkeypatch, Terminal() if terminal else io.StringIO(), **settings)
    log.info("hello")
    assert stream.getvalue().startswith("{") == json_lines
