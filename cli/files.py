"""Finding the images a user means."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cli.console import usage_error
from jobs.image_types import SUFFIXES


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return the named files, whatever their names, and all images in the named folders, each file once.

    Raises ``CommandFailed`` (status 2) for what does not exist, for folders that cannot be read, and where
    nothing is found.
    """
    found = list(dict.fromkeys(image for path in paths for image in _images_of(path)))
    if not found:
        named = ", ".join(str(path) for path in paths)
        raise usage_error(f"no images in {named}; looked for {' '.join(sorted(SUFFIXES))}")
    return found


def _images_of(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from _walk(path)
    elif not path.exists():
        raise usage_error(f"{path} does not exist")
    elif not path.is_file():
        raise usage_error(f"{path} is neither a file nor a folder")
    else:
        yield path


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and path.is_file():
                yield path


def _refuse(error: OSError) -> None:
    raise usage_error(f"{error.filename} cannot be read: {(error.strerror or str(error)).lower()}")
