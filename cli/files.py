"""Finding the images a user means."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cli.console import usage_error
from jobs.image_types import SUFFIXES

STDIN = Path("-")


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return the named files, whatever their names, and all images in the named folders, each file once.

    A pattern (``**/*.jpg``) that the shell has left stands for the images and folders that match it, ``-``
    for a list on standard input. Raises ``CommandFailed`` (status 2) for what does not exist, for folders
    that cannot be read, and where nothing is found.
    """
    named = [path for given in paths for path in (_listed() if given == STDIN else [given])]
    found = list(dict.fromkeys(image for path in named for image in _images_of(path)))
    if not found:
        places = ", ".join(str(path) for path in paths)
        raise usage_error(f"no images in {places}; looked for {' '.join(sorted(SUFFIXES))}")
    return found


def _listed() -> list[Path]:
    """Return the paths on standard input, one a line, or separated by NUL as by ``find -print0``."""
    data = sys.stdin.buffer.read()
    names = data.split(b"\0") if b"\0" in data else data.splitlines()
    return [Path(os.fsdecode(name)) for name in names if name.strip()]


def _images_of(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from walk(path, _refuse)
    elif not path.exists():
        yield from _matching(path)
    elif not path.is_file():
        raise usage_error(f"{path} is neither a file nor a folder")
    else:
        yield path


def _matching(pattern: Path) -> Iterator[Path]:
    # Path.glob() takes no absolute patterns.
    found = glob.glob(str(pattern), recursive=True)  # noqa: PTH207
    matches = sorted(found) if glob.has_magic(str(pattern)) else []
    if not matches:
        raise usage_error(f"{pattern} does not exist")
    for path in map(Path, matches):
        if path.is_dir():
            yield from walk(path, _refuse)
        elif _is_image(path):
            yield path


def walk(folder: Path, onerror: Callable[[OSError], None]) -> Iterator[Path]:
    """Yield the images in a folder and below it, in order, without hidden ones."""
    for parent, folders, files in os.walk(folder, onerror=onerror):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (path for name in sorted(files) if _is_image(path := Path(parent, name)))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _refuse(error: OSError) -> None:
    reason = (error.strerror or str(error)).lower()
    raise usage_error(f"{error.filename} cannot be read: {reason}; allow that, or name what lies beside it")
