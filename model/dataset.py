"""Captioned photos: their files, splits and reference captions, and what can be wrong with them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from model.dataset_formats import Row, read_rows
from model.errors import TrainingError

_DEV_SHARE = 10
"""Where a file names no splits, one photo in so many is kept for dev."""


@dataclass(frozen=True)
class CaptionedImage:
    """One photo: its path below the image folder, split and its reference captions as written."""

    name: str
    split: str
    captions: tuple[str, ...]


def read_captions(captions: Path, images: Path) -> list[CaptionedImage]:
    """Read a captions file of any format of ``read_rows``, grouped by photo, in the file's order.

    Where the file names no splits, a tenth of the photos, chosen by the hash of their names, is ``dev``.
    Raises ``TrainingError`` on unusable data, missing photos included.
    """
    if not images.is_dir():
        raise TrainingError(f"the image folder {images} does not exist")
    if not captions.is_file():
        raise TrainingError(f"the captions file {captions} does not exist")
    grouped = _group(read_rows(captions))
    if not grouped:
        raise TrainingError(f"{captions} holds no captions")
    places = _places(grouped, images)
    if all(split is None for split, _ in grouped.values()):
        chosen = _hashed_splits(list(grouped))
        return [CaptionedImage(places[name], chosen[name], tuple(grouped[name][1])) for name in grouped]
    listed = ((name, split, texts) for name, (split, texts) in grouped.items() if split)
    return [CaptionedImage(places[name], split, tuple(texts)) for name, split, texts in listed]


def select(rows: list[CaptionedImage], split: str) -> list[CaptionedImage]:
    """Return the photos of one split; raise ``TrainingError`` if there are none."""
    chosen = [row for row in rows if row.split == split]
    if not chosen:
        raise TrainingError(f"the captions file has no rows of the split {split!r}")
    return chosen


def _group(rows: Iterable[Row]) -> dict[str, tuple[str | None, list[str]]]:
    grouped: dict[str, tuple[str | None, list[str]]] = {}
    for row in rows:
        if not row.name or not row.caption:
            raise TrainingError(f"{row.where}: empty {'caption' if row.name else 'image name'}")
        path = PurePosixPath(row.name)
        if path.is_absolute() or ".." in path.parts:
            raise TrainingError(f"{row.where}: {row.name!r} does not lie in the image folder")
        known, texts = grouped.setdefault(row.name, (row.split, []))
        if known != row.split:
            raise TrainingError(f"{row.where}: {row.name} is in two splits, {known} and {row.split}")
        texts.append(row.caption)
    return grouped


def _places(names: Iterable[str], images: Path) -> dict[str, str]:
    """Say where each photo lies: under the path that the file gives, or flat in the image folder."""
    flat = {path.name for path in images.iterdir()}
    places: dict[str, str] = {}
    missing: list[str] = []
    for name in names:
        last = PurePosixPath(name).name
        if name in flat or (last != name and (images / name).is_file()):
            places[name] = name
        elif last in flat:
            places[name] = last
        else:
            missing.append(name)
    if missing:
        named = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        total = len(places) + len(missing)
        raise TrainingError(f"{len(missing)} of {total} images are missing from {images}: {named}")
    return places


def _hashed_splits(names: list[str]) -> dict[str, str]:
    # By name and not by chance, so that a photo stays where it is when others are added.
    order = {name: int(hashlib.sha256(name.encode()).hexdigest(), 16) for name in names}
    dev = {name for name in names if order[name] % _DEV_SHARE == 0} or {min(names, key=order.__getitem__)}
    return {name: "dev" if name in dev else "train" for name in names}
