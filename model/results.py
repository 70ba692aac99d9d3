"""Finished captions of any model, read from the files that models and jobs write."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from model.errors import TrainingError

_NAMES = ("name", "image", "file_name", "filename", "image_name", "image_id")
_LAST_NUMBER = re.compile(r"(\d+)$")


def read_results(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (photo, caption) of a results file; a failed photo has the empty caption.

    Known: a job's JSON lines or CSV, a JSON list such as COCO's results, CSV with a column for the photo and
    ``caption``. Raises ``TrainingError`` with the place of what is no result.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"the results file {path} cannot be read") from error
    for place, row in _rows(path, text):
        name = next(
            (row[key] for key in _NAMES if isinstance(row, Mapping) and row.get(key) is not None), None
        )
        if name is None or isinstance(name, (dict, list)):
            raise TrainingError(f"{path}:{place}: not a results line")
        yield str(name), str(row.get("caption") or "")


def _rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    if path.suffix.lower() in (".csv", ".tsv"):
        lines = csv.DictReader(
            io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ","
        )
        if "caption" not in (lines.fieldnames or ()):
            raise TrainingError(f"{path} lacks the column caption")
        yield from enumerate(lines, start=2)
    elif text.lstrip().startswith("["):
        yield from enumerate(_parsed(path, text, 1), start=1)
    else:
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield number, _parsed(path, line, number)


def _parsed(path: Path, text: str, place: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise TrainingError(f"{path}:{place}: not a results line") from error


def matched(results: Iterator[tuple[str, str]], photos: Mapping[str, object]) -> dict[str, str]:
    """Keep the captions of known photos: by path, by file name, or by the number a COCO name ends in."""
    known: dict[str, str] = {}
    for photo in photos:
        path = PurePosixPath(photo)
        number = _LAST_NUMBER.search(path.stem)
        known |= {str(int(number[1])): photo} if number else {}
        known |= {path.name: photo}
    known |= {photo: photo for photo in photos}
    found: dict[str, str] = {}
    for name, caption in results:
        place = known.get(name) or known.get(PurePosixPath(name).name)
        if place is not None:
            found[place] = caption
    return found
