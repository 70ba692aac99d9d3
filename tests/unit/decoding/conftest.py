"""A pool of one, and the proof that nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.processes import children, wait_until
from tests.unit.decoding.children import (
    PREPROCESSING,
)
from worker.decoding import DecodePool


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    with DecodePool(1, PREPROCESSING) as running:
        yield running


# Of servers, browsers and wrong clocks of tests that run at the same time.
OTHERS = ("PostgreSQL.*", "*faketime_*", ".org.chromium.*", ".com.google.*")


def _shared_memory() -> set[str]:
    names = {path.name for path in Path("/dev/shm").iterdir()}
    return {name for name in names if not any(fnmatch(name, other) for other in OTHERS)}


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        yield
        return
    before, open_files = _shared_memory(), len(list(descriptors.iterdir()))
    yield
    assert not children()
    # What others left, and know themselves to remove, goes.
    wait_until(lambda: _shared_memory() <= before, 10, "shared memory that nobody needs being removed")
    assert len(list(descriptors.iterdir())) <= open_files
