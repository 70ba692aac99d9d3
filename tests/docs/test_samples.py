"""The sample photos are small, whole, and each has its source and licence written down."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

LICENCES = re.compile(r"public domain|CC0|CC-BY-4\.0|licenses/by/2\.0", re.I)


def test_every_photo_has_its_source_and_a_free_licence(photos: list[Path]) -> None:
    text = (photos[0].parent / "SOURCES.md").read_text()
    rows = dict(re.findall(r"^\| `([^`]+)` \|(.*)\|$", text, re.M))
    assert set(rows) == {photo.name for photo in photos}
    for name, row in rows.items():
        author, licence, package, _ = (cell.strip() for cell in row.split("|"))
        assert author, name
        assert package, name
        assert LICENCES.search(licence), name


def test_photos_are_few_small_and_free_of_metadata(photos: list[Path]) -> None:
    assert 8 <= len(photos) <= 12
    assert sum(photo.stat().st_size for photo in photos) <= 2_000_000
    for photo in photos:
        with Image.open(photo) as image:
            image.load()
            assert image.format == "JPEG"
            assert max(image.size) <= 800
            assert not image.getexif()
