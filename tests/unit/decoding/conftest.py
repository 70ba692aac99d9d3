"""A pool of one, and the proof that nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.decoding.children import (
    PREPROCESSING,
    children,
)
from worker.decoding import DecodePool


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    with DecodePool(1, PREPROCESSING) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    shared_memory, descriptors = Path("/dev/shm"), Path("/proc/self/fd")
    if not descriptors.exists():
        yield
        return
    before, open_files = set(shared_memory.iterdir()), len(list(descriptors.iterdir()))
    yield
    assert not children()
    # Servers of other tests may come and go meanwhile.
    assert set(shared_memory.iterdir()) - set(shared_memory.glob("PostgreSQL.*")) <= before
    assert len(list(descriptors.iterdir())) <= open_files
