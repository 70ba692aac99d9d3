"""Readers of documents, each in a folder of its own with what every document supposes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.reader import EXAMPLES, Make, Own, Reader, take_photo


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Make]:
    """Makes the reader of one document, in a folder with the examples and some photos."""
    readers: list[Reader] = []
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    for name in ("dog.jpg", "cow.jpg", "astronaut.jpg"):
        take_photo(tmp_path / "photos", name)

    def make(replaced: dict[str, Own] | None = None, **settings: str) -> Reader:
        readers.append(Reader(tmp_path, replaced or {}, **settings))
        return readers[-1]

    yield make
    for each in readers:
        each.stop()
