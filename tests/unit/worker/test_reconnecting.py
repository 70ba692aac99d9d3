"""How often a worker asks for a broker that is away."""

from __future__ import annotations

import pytest
from kombu.exceptions import OperationalError

from tests.processes import reserve_port
from worker.celery_app import SteadyConnection


def test_a_broker_that_is_away_for_long_is_asked_for_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _seconds: None)
    pauses: list[float] = []
    with (
        SteadyConnection(f"redis://127.0.0.1:{reserve_port()}") as connection,  # type: ignore[no-untyped-call]
        pytest.raises(OperationalError),
    ):
        connection.ensure_connection(lambda _error, pause: pauses.append(pause), 20)
    assert len(pauses) == 20
    assert max(pauses) == 3
