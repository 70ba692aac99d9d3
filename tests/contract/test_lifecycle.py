"""The store beside a model of the life of jobs, over both databases: few examples here, many in the soak."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from jobs.store import Store
from tests.contract.lifecycle import LifeCycle
from tests.contract.stores import store

__all__ = ["store"]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written and deleted in slices takes several of them."""
    for module in ("jobs", "retention"):
        monkeypatch.setattr(f"jobs.store.{module}.SLICE", 3)


def run(store: Store, examples: int, steps: int) -> None:
    """Drive one store; jobs of earlier examples stay in it, as in a service that is used."""
    machine = type("Life", (LifeCycle,), {"store": store})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_jobs_live_as_the_model_says(store: Store) -> None:
    run(store, examples=8 if store.database.is_sqlite else 4, steps=25)


@pytest.mark.soak
def test_jobs_live_as_the_model_says_for_long(store: Store) -> None:
    run(store, examples=2_000, steps=60)
