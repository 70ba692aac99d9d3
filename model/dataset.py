"""Captioned photos: the captions file, its splits, and what can be wrong with them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from model.errors import TrainingError

COLUMNS = ("image", "split", "caption")
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class CaptionedImage:
    """One photo: file name, split and its reference captions as written."""

    name: str
    split: str
    captions: tuple[str, ...]


def read_captions(captions: Path, images: Path) -> list[CaptionedImage]:
    """Read ``image,split,caption`` rows, grouped by image; raise ``TrainingError`` on unusable data."""
    if not images.is_dir():
        raise TrainingError(f"the image folder {images} does not exist")
    if not captions.is_file():
        raise TrainingError(f"the captions file {captions} does not exist")
    grouped = _group(captions)
    if not grouped:
        raise TrainingError(f"{captions} holds no captions")
    _require_files(grouped, images)
    return [CaptionedImage(name, split, tuple(texts)) for name, (split, texts) in grouped.items()]


def select(rows: list[CaptionedImage], split: str) -> list[CaptionedImage]:
    """Return the photos of one split; raise ``TrainingError`` if there are none."""
    chosen = [row for row in rows if row.split == split]
    if not chosen:
        raise TrainingError(f"the captions file has no rows of the split {split!r}")
    return chosen


def _group(captions: Path) -> dict[str, tuple[str, list[str]]]:
    grouped: dict[str, tuple[str, list[str]]] = {}
    with captions.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise TrainingError(
                f"{captions} lacks the column(s) {', '.join(missing)}; need {', '.join(COLUMNS)}"
            )
        for line, row in enumerate(reader, start=2):
            _add(grouped, row, f"{captions}:{line}")
    return grouped


def _add(grouped: dict[str, tuple[str, list[str]]], row: dict[str, str], where: str) -> None:
    name, split, caption = ((row[column] or "").strip() for column in COLUMNS)
    if not name or not caption:
        raise TrainingError(f"{where}: empty {'caption' if name else 'image name'}")
    if split not in SPLITS:
        raise TrainingError(f"{where}: unknown split {split!r}; use {', '.join(SPLITS)}")
    known, texts = grouped.setdefault(name, (split, []))
    if known != split:
        raise TrainingError(f"{where}: {name} is in two splits, {known} and {split}")
    texts.append(caption)


def _require_files(grouped: dict[str, tuple[str, list[str]]], images: Path) -> None:
    present = {path.name for path in images.iterdir()}
    missing = [name for name in grouped if name not in present]
    if missing:
        named = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise TrainingError(f"{len(missing)} of {len(grouped)} images are missing from {images}: {named}")
