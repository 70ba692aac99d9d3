"""How often a process is asked whether it is ready, and how often that asks what it depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.readiness import FRESH_S, PATIENCE_S, Readiness
from jobs.services import build_services
from jobs.settings import Settings


class Clock:
    """Time as the test wants it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_slow_answer_is_as_fresh_as_a_quick_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, asked = Clock(), []
    monkeypatch.setattr("api.readiness.time", clock)
    services = build_services(Settings(data_dir=tmp_path))

    def slow() -> str | None:
        asked.append(clock.now)
        clock.now += PATIENCE_S - 1
        return None

    monkeypatch.setattr(services.objects, "check", slow)
    readiness = Readiness(services)
    first = readiness.check()
    assert readiness.check() is first
    assert len(asked) == 1
    clock.now += FRESH_S + 0.1
    readiness.check()
    assert len(asked) == 2
    services.close()
