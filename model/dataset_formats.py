"""The files that captioned photo collections come in, each read into one kind of row."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from model.errors import TrainingError

_SPLITS = {
    "train": "train", "restval": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev",
    "test": "test",
}  # fmt: skip
_COLUMNS = {"image": ("image", "image_name", "file_name", "filename"), "caption": ("caption", "comment")}
_TOKEN_LINE = re.compile(r"([^\t]+)#\d+\t(.*)")
_COCO_NAME = re.compile(r"captions_(train|val)(\d*)")
_LISTS = {"train": "*trainImages.txt", "dev": "*devImages.txt", "test": "*testImages.txt"}


@dataclass(frozen=True)
class Row:
    """One caption of one photo, and where it was read; ``split`` is None where the file has none."""

    name: str
    split: str | None
    caption: str
    where: str


def read_rows(path: Path) -> Iterator[Row]:
    """Read a captions file of any known format, told by its content; raise ``TrainingError`` if it is none.

    Known: CSV or TSV with a header; Flickr8k's and Flickr30k's token files with the split lists beside them;
    Flickr30k's ``results.csv``; COCO's ``captions_*.json``; Karpathy's ``dataset_*.json``.
    """
    try:
        yield from _reader(path)(path)
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _reader(path: Path) -> Callable[[Path], Iterator[Row]]:
    if path.suffix.lower() == ".json":
        return _json_rows
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline()
    return _token_rows if _TOKEN_LINE.match(first) else _table_rows


def _table_rows(path: Path) -> Iterator[Row]:
    text = path.read_text(encoding="utf-8-sig")
    header = text.partition("\n")[0]
    delimiter = max("|\t;,", key=header.count)
    # Flickr30k separates by "| " and has lone quotation marks in its captions.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "|" else csv.QUOTE_MINIMAL
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
    columns = [cell.strip().lower() for cell in next(lines, [])]
    image, caption = (_column(columns, wanted, path) for wanted in ("image", "caption"))
    split = columns.index("split") if "split" in columns else None
    try:
        for cells in lines:
            if any(cell.strip() for cell in cells):
                where = f"{path}:{lines.line_num}"
                cells = _whole(cells, len(columns), delimiter, where)
                found = None if split is None else known_split(cells[split], where)
                yield Row(cells[image], found, cells[caption], where)
    except csv.Error as error:
        raise TrainingError(f"{path}:{lines.line_num}: {error}") from error


def _column(columns: list[str], wanted: str, path: Path) -> int:
    for name in _COLUMNS[wanted]:
        if name in columns:
            return columns.index(name)
    found = ", ".join(columns) or "nothing"
    raise TrainingError(
        f"{path} lacks the column {wanted}; need image, caption and, if the splits are given, split; "
        f"the first line has: {found}"
    )


def _whole(cells: list[str], count: int, delimiter: str, where: str) -> list[str]:
    cells = [cell.strip() for cell in cells]
    if delimiter == "|" and len(cells) == count - 1:
        # One line of Flickr30k's results.csv has no separator between number and caption.
        number, _, caption = cells[-1].partition(" ")
        cells = [*cells[:-1], number, caption.strip()]
    if len(cells) != count:
        raise TrainingError(f"{where}: {len(cells)} columns instead of {count}; quote commas in captions")
    return cells


def known_split(name: str, where: str) -> str:
    """Return ``train``, ``dev`` or ``test`` for the names that files use for them."""
    found = _SPLITS.get(name.strip().lower())
    if found is None:
        raise TrainingError(f"{where}: unknown split {name.strip()!r}; use {', '.join(_SPLITS)}")
    return found


def _token_rows(path: Path) -> Iterator[Row]:
    splits = _listed_splits(path.parent)
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        matched = _TOKEN_LINE.match(line)
        if matched is None and line.strip():
            raise TrainingError(f"{path}:{number}: expected IMAGE#NUMBER, a tab and a caption")
        # With lists, a photo on none of them is in no split and is left out, as published figures do.
        if matched and (not splits or matched[1] in splits):
            yield Row(matched[1], splits.get(matched[1]), matched[2].strip(), f"{path}:{number}")


def _listed_splits(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for split, pattern in _LISTS.items():
        for path in sorted(folder.glob(pattern)):
            names = path.read_text(encoding="utf-8-sig").split()
            found |= dict.fromkeys(names, split)
    return found


def _json_rows(path: Path) -> Iterator[Row]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise TrainingError(f"{path} is not JSON: {error}") from error
    try:
        if "annotations" in document:
            yield from _coco_rows(path, document)
        else:
            yield from _karpathy_rows(path, document)
    except (KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{path} is neither a COCO captions file nor one of Karpathy's splits: {error!r}"
        ) from error


def _coco_rows(path: Path, document: dict[str, Any]) -> Iterator[Row]:
    matched = _COCO_NAME.fullmatch(path.stem)
    yield from _coco_part(path, document, matched)
    sibling = _coco_sibling(path, matched)
    if sibling and matched and matched[1] == "train":
        other = json.loads(sibling.read_text(encoding="utf-8-sig"))
        yield from _coco_part(sibling, other, _COCO_NAME.fullmatch(sibling.stem))


def _coco_sibling(path: Path, matched: re.Match[str] | None) -> Path | None:
    if matched is None:
        return None
    other = path.with_name(f"captions_{'val' if matched[1] == 'train' else 'train'}{matched[2]}.json")
    return other if other.is_file() else None


def _coco_part(path: Path, document: dict[str, Any], matched: re.Match[str] | None) -> Iterator[Row]:
    split = None
    if matched and (matched[1] == "val" or _coco_sibling(path, matched)):
        split = _SPLITS[matched[1]]
    folder = f"{matched[1]}{matched[2]}/" if matched else ""
    names = {image["id"]: folder + image["file_name"] for image in document["images"]}
    for number, annotation in enumerate(document["annotations"]):
        where = f"{path}: annotation {number}"
        if annotation["image_id"] not in names:
            raise TrainingError(f"{where}: there is no image {annotation['image_id']!r}")
        yield Row(names[annotation["image_id"]], split, " ".join(annotation["caption"].split()), where)


def _karpathy_rows(path: Path, document: dict[str, Any]) -> Iterator[Row]:
    for number, image in enumerate(document["images"]):
        where = f"{path}: image {number}"
        folder = image.get("filepath")
        name = f"{folder}/{image['filename']}" if folder else image["filename"]
        split = known_split(image["split"], where)
        for sentence in image["sentences"]:
            yield Row(name, split, " ".join(sentence["raw"].split()), where)
