"""docs/errors.md explains every code a user can meet, each with the status it comes with."""

from __future__ import annotations

import re
from pathlib import Path

from jobs.errors import (
    REQUEST_STATUS,
    STARTUP_CODES,
    BrokerUnavailable,
    DatabaseUnavailable,
    ItemCode,
    StorageUnavailable,
)

TEXT = (Path(__file__).resolve().parents[2] / "docs/errors.md").read_text()
TRANSIENT = {error("").code for error in (StorageUnavailable, DatabaseUnavailable, BrokerUnavailable)}


def _section(title: str) -> str:
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
    assert match, title
    return match[1]


def _codes(title: str) -> list[str]:
    return re.findall(r"^\| `([a-z_]+)` \|", _section(title), re.M)


def test_refused_requests() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d+) \| .+ \| .+ \|$", _section("Refused requests"), re.M)
    assert {code: int(status) for code, status in rows} == {
        code: status.value for code, status in REQUEST_STATUS.items()
    }


def test_failed_images() -> None:
    assert _codes("Failed images") == [code.value for code in ItemCode]


def test_dependencies_that_are_away() -> None:
    assert set(_codes("Away for a moment")) == TRANSIENT


def test_what_stops_a_start() -> None:
    assert _codes("At the start of a process") == list(STARTUP_CODES)
